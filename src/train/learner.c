#include "train/learner.h"

#include "base/memory.h"

#include <stdlib.h>

/* Each step of a calibration moves the statistics by a tenth, so that after these hardly anything
 * is left of those before. One pass over the images is enough, or over 5,000 of them. */
enum { CALIBRATION_STEPS = 50, CALIBRATION_LEAST = 10, CALIBRATION_MOST = 100 };

static int64_t largest(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int calibration_batch(int64_t images) {
    const int64_t batch = largest(images / CALIBRATION_STEPS, CALIBRATION_LEAST);
    return (int)(batch < CALIBRATION_MOST ? batch : CALIBRATION_MOST);
}

static int64_t calibration_images(const struct learner *l) {
    return (int64_t)CALIBRATION_STEPS * l->calibration_batch;
}

void learner_init(struct learner *l, struct device *device, const struct resident *train,
                  const struct learner_settings *settings, struct train_state *from) {
    const struct device_ops *ops = device->ops;
    const size_t images = (size_t)train->images->count;
    const int64_t asked = settings->recipe.batch;
    const int batch = (int)(asked < train->images->count ? asked : train->images->count);
    *l = (struct learner){.device = device, .recipe = settings->recipe, .mark = ops->mark(device)};
    if (from != NULL) {
        l->state = *from;
        *from = (struct train_state){0};
    } else {
        train_state_new(&l->state);
        train_state_begin(&l->state, settings->seed, settings->init);
        l->state.averaged = learner_averages(l);
    }
    const int64_t capacity = largest(batch, settings->capacity);
    const bool averages = learner_averages(l);
    l->calibration_batch = averages ? calibration_batch(train->images->count) : 0;
    l->network = network_new(device, (int)largest(capacity, l->calibration_batch));
    optimizer_init(&l->optimizer, l->network, &l->recipe);
    steps_init(&l->steps, l->network, train, &l->optimizer.training, batch);
    l->order = memory_new(images, sizeof *l->order);
    l->views =
        memory_new((size_t)largest((int64_t)images, calibration_images(l)), sizeof *l->views);
    l->begins = memory_new(images, sizeof *l->begins);
    l->schedule = memory_new((size_t)l->steps.count, sizeof *l->schedule);
    recipe_first_flips(l->begins, l->steps.images, settings->seed);
    if (averages) {
        l->calibration =
            ops->pass_new(device, train->dataset, calibration_images(l), CALIBRATION_STEPS);
        l->calibrate = network_statistics_step(l->network, l->calibration, l->calibration_batch);
    }
}

void learner_free(struct learner *l) {
    l->device->ops->release(l->device, l->mark);
    network_free(l->network);
    train_state_free(&l->state);
    free(l->order);
    free(l->views);
    free(l->begins);
    free(l->schedule);
}

/* The blocks of the device beside the network's, and what of the state each is. */
enum { BLOCKS = 3 };
struct part {
    struct block *block; /* may be NULL */
    float *data;
    size_t count;
};

static void list_parts(struct part parts[BLOCKS], const struct optimizer *o,
                       const struct train_state *state) {
    const struct network_plan *plan = network_plan();
    parts[0] = (struct part){o->exp_avg, state->exp_avg, plan->parameters};
    parts[1] = (struct part){o->exp_avg_sq, state->exp_avg_sq, plan->parameters};
    parts[2] = (struct part){o->average, state->average, plan->parameters};
}

void learner_put(struct learner *l) {
    struct part parts[BLOCKS];
    network_upload(l->network, &l->state.network);
    list_parts(parts, &l->optimizer, &l->state);
    for (const struct part *p = parts; p < parts + BLOCKS; p++)
        if (p->block != NULL)
            l->device->ops->upload(l->device, (struct slice){p->block, 0}, p->data, p->count);
}

bool learner_take(const struct learner *l, struct train_state *state, struct error *error) {
    struct part parts[BLOCKS];
    bool good = network_download(l->network, &state->network, error);
    list_parts(parts, &l->optimizer, state);
    for (const struct part *p = parts; good && p < parts + BLOCKS; p++)
        if (p->block != NULL)
            good = l->device->ops->download(l->device, p->data, (struct slice){p->block, 0},
                                            p->count, error);
    return good;
}

bool learner_averages(const struct learner *l) {
    return l->recipe.average != AVERAGE_NONE;
}

void learner_put_average(struct learner *l, const float *average) {
    const struct device_ops *ops = l->device->ops;
    for (int64_t i = 0; i < calibration_images(l); i++)
        l->views[i] = (struct view){.image = l->order[i % l->steps.images]};
    const struct script script = {
        .views = l->views, .images = calibration_images(l), .steps = CALIBRATION_STEPS};
    network_upload_parameters(l->network, average);
    ops->pass_begin(l->device, l->calibration, &script);
    ops->step_run(l->device, l->calibrate, CALIBRATION_STEPS);
}

void learner_begin(struct learner *l) {
    const int64_t images = l->steps.images, steps = l->steps.count, epoch = l->state.epoch;
    l->drawn = l->state.random;
    random_permutation(&l->drawn, l->order, (uint32_t)images);
    recipe_views(&l->recipe, l->views, l->order, images, epoch, l->begins, &l->drawn);
    for (int64_t i = 0; i < steps; i++)
        l->schedule[i] = recipe_rate(&l->recipe, (epoch - 1) * steps + i, l->recipe.epochs * steps);
    steps_begin(&l->steps, l->views, l->schedule, l->state.step, l->state.steps);
}
