#include "train/steps.h"

struct resident resident_new(struct device *device, const struct cifar10 *images) {
    const struct images all = {.records = images->records,
                               .count = images->count,
                               .classes = CIFAR10_CLASSES,
                               .c = CIFAR10_CHANNELS,
                               .h = CIFAR10_SIDE,
                               .w = CIFAR10_SIDE};
    return (struct resident){images, device->ops->dataset_new(device, &all)};
}

int64_t steps_count(int64_t images, int batch) {
    return (images + batch - 1) / batch;
}

void steps_init(struct steps *steps, struct network *network, const struct resident *data,
                const struct network_training *training, int batch) {
    const int64_t images = data->images->count;
    struct device *device = network_device(network);
    *steps = (struct steps){.device = device, .images = images, .batch = batch};
    steps->count = steps_count(images, batch);
    steps->pass = device->ops->pass_new(device, data->dataset, images, steps->count);
    if (images >= batch)
        steps->whole = network_step(network, steps->pass, training, batch);
    if (images % batch != 0)
        steps->rest = network_step(network, steps->pass, training, (int)(images % batch));
}

int steps_batch(const struct steps *steps, int64_t step) {
    const int64_t whole = steps->images / steps->batch;
    return step < whole ? steps->batch : (int)(steps->images % steps->batch);
}

void steps_begin(struct steps *steps, const struct view *views, const double *schedule,
                 int64_t first, int64_t steps_before) {
    const int64_t done = first * steps->batch;
    const struct script script = {.views = views + done,
                                  .images = steps->images - done,
                                  .schedule = schedule == NULL ? NULL : schedule + first,
                                  .steps = steps->count - first,
                                  .steps_before = steps_before};
    steps->began = first;
    steps->device->ops->pass_begin(steps->device, steps->pass, &script);
}

void steps_run(const struct steps *steps, int64_t first, int64_t count) {
    const struct device_ops *ops = steps->device->ops;
    const int64_t whole = steps->images / steps->batch, last = first + count;
    require(first >= steps->began && last <= steps->count);
    if (first < whole)
        ops->step_run(steps->device, steps->whole, (last < whole ? last : whole) - first);
    if (last > whole)
        ops->step_run(steps->device, steps->rest, 1);
}

bool steps_losses(const struct steps *steps, float *losses, int64_t first, int64_t count,
                  struct error *error) {
    return steps->device->ops->losses(steps->device, steps->pass, losses, first - steps->began,
                                      count, error);
}

bool steps_logits(const struct steps *steps, float *logits, int64_t images, struct error *error) {
    return steps->device->ops->logits(steps->device, steps->pass, logits, images, error);
}
