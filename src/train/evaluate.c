#include "train/evaluate.h"

#include "base/clock.h"
#include "base/memory.h"

#include <stdlib.h>

double evaluation_accuracy(const struct evaluation *evaluation) {
    return 100.0 * (double)evaluation->correct / (double)evaluation->images;
}

void evaluator_init(struct evaluator *e, struct network *network, const struct cifar10 *images,
                    int batch) {
    struct device *device = network_device(network);
    e->images = images;
    e->loader = device->ops->loader_new(device, images->records, images->count, CIFAR10_CHANNELS,
                                        CIFAR10_SIDE, CIFAR10_SIDE);
    pass_init(&e->pass, network, e->loader, NULL, images->count, batch);
    e->order = memory_new((size_t)images->count, sizeof *e->order);
    for (int64_t i = 0; i < images->count; i++)
        e->order[i] = (uint32_t)i;
    e->predicted = memory_new((size_t)images->count, sizeof *e->predicted);
    e->losses = memory_new((size_t)e->pass.steps, sizeof *e->losses);
}

void evaluator_free(struct evaluator *e) {
    free(e->order);
    free(e->predicted);
    free(e->losses);
}

bool evaluate(struct evaluator *e, struct evaluation *evaluation, struct error *error) {
    struct device *device = network_device(e->pass.whole.network);
    const double began = clock_seconds();
    device->ops->loader_rewind(device, e->loader, e->order, e->images->count);
    pass_run(&e->pass, 0, e->pass.steps);
    if (!device->ops->losses(device, e->loader, e->losses, 0, e->pass.steps, error) ||
        !device->ops->predictions(device, e->loader, e->predicted, e->images->count, error))
        return false;

    *evaluation =
        (struct evaluation){.images = e->images->count, .seconds = clock_seconds() - began};
    for (int64_t i = 0; i < e->pass.steps; i++)
        evaluation->loss += (double)e->losses[i] * pass_batch(&e->pass, i);
    evaluation->loss /= (double)e->images->count;
    for (int64_t i = 0; i < e->images->count; i++) {
        const int label = e->images->records[i * CIFAR10_RECORD];
        evaluation->confusion[label][e->predicted[i]]++;
        evaluation->correct += label == e->predicted[i];
    }
    return true;
}

bool evaluator_first_logits(struct evaluator *e, float *logits, struct error *error) {
    struct device *device = network_device(e->pass.whole.network);
    device->ops->loader_rewind(device, e->loader, e->order, e->images->count);
    pass_run(&e->pass, 0, 1);
    return network_logits(e->pass.whole.network, logits, e->pass.whole.n, error);
}
