#include "train/learner.h"

#include "base/memory.h"

#include <stdlib.h>

void learner_init(struct learner *l, struct device *device, const struct resident *train,
                  const struct learner_settings *settings, struct train_state *from) {
    const struct device_ops *ops = device->ops;
    const size_t parameters = network_plan()->parameters, images = (size_t)train->images->count;
    const int batch = settings->batch, capacity = settings->capacity;
    *l = (struct learner){.device = device, .mark = ops->mark(device)};
    if (from != NULL) {
        l->state = *from;
        *from = (struct train_state){0};
    } else {
        train_state_new(&l->state);
        train_state_begin(&l->state, settings->seed);
    }
    l->network = network_new(device, batch > capacity ? batch : capacity);
    l->adam = (struct adam){.count = parameters,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = settings->weight_decay,
                            .parameters = network_parameters(l->network),
                            .gradients = network_gradients(l->network),
                            .exp_avg = ops->block_new(device, parameters),
                            .exp_avg_sq = ops->block_new(device, parameters)};
    steps_init(&l->steps, l->network, train, &l->adam, batch);
    l->order = memory_new(images, sizeof *l->order);
    l->views = memory_new(images, sizeof *l->views);
    l->lr = memory_new((size_t)l->steps.count, sizeof *l->lr);
    l->base_lr = settings->lr;
}

void learner_free(struct learner *l) {
    l->device->ops->release(l->device, l->mark);
    network_free(l->network);
    train_state_free(&l->state);
    free(l->order);
    free(l->views);
    free(l->lr);
}

void learner_put(struct learner *l) {
    const struct device_ops *ops = l->device->ops;
    const struct train_state *state = &l->state;
    network_upload(l->network, &state->network);
    ops->upload(l->device, (struct slice){l->adam.exp_avg, 0}, state->exp_avg, l->adam.count);
    ops->upload(l->device, (struct slice){l->adam.exp_avg_sq, 0}, state->exp_avg_sq, l->adam.count);
}

bool learner_take(const struct learner *l, struct train_state *state, struct error *error) {
    const struct device_ops *ops = l->device->ops;
    return network_download(l->network, &state->network, error) &&
           ops->download(l->device, state->exp_avg, (struct slice){l->adam.exp_avg, 0},
                         l->adam.count, error) &&
           ops->download(l->device, state->exp_avg_sq, (struct slice){l->adam.exp_avg_sq, 0},
                         l->adam.count, error);
}

void learner_begin(struct learner *l) {
    l->drawn = l->state.random;
    random_permutation(&l->drawn, l->order, (uint32_t)l->steps.images);
    for (int64_t i = 0; i < l->steps.images; i++)
        l->views[i] = (struct view){.image = l->order[i]};
    for (int64_t i = 0; i < l->steps.count; i++)
        l->lr[i] = l->base_lr; /* of step number adam_step - step + i of the run */
    steps_begin(&l->steps, l->views, l->lr, l->state.step, l->state.adam_step);
}
