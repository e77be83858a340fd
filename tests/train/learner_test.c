/* The average that is judged: its running statistics are what the forward passes of training make
 * of them. What a learner does from epoch to epoch is tested with the trainer. */
#include "base/memory.h"
#include "data/synth.h"
#include "train/learner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGES = 130, CALIBRATION_BATCH = 10, CALIBRATION_STEPS = 50 };

/* Like update_bn() of torch.optim.swa_utils, but with momentum 0.1, on images in the epoch's order,
 * as they are: nothing shifted, nothing mirrored. A learner whose rates are 0 takes the same
 * forward passes. */
static void an_average_has_statistics_of_its_own(void **unused) {
    (void)unused;
    struct device *device;
    struct cifar10 images, again;
    struct learner learner, still;
    struct network_state found;
    struct error error;
    const struct learner_settings settings = {.recipe = {.epochs = 1,
                                                         .batch = 10,
                                                         .lr = 0.01,
                                                         .flip = FLIP_RANDOM,
                                                         .shift = 9,
                                                         .average = AVERAGE_EMA,
                                                         .average_decay = 0.5}};
    assert_true(device_open(&device, "cpu", &(struct device_options){.threads = 2}, &error));
    synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
    const struct resident data = resident_new(device, &images);
    learner_init(&learner, device, &data, &settings, NULL);
    assert_true(learner_averages(&learner));
    learner_put(&learner);
    learner_begin(&learner);
    steps_run(&learner.steps, 0, learner.steps.count);
    assert_true(learner_take(&learner, &learner.state, &error));
    assert_memory_not_equal(learner.state.average, learner.state.network.parameters, 1000);
    learner_put_average(&learner, learner.state.average);
    network_state_new(&found);
    assert_true(network_download(learner.network, &found, &error));
    assert_memory_equal(found.parameters, learner.state.average,
                        network_plan()->parameters * sizeof *found.parameters);

    /* the images of the calibration as a data set */
    again = (struct cifar10){memory_new(CALIBRATION_STEPS * CALIBRATION_BATCH, CIFAR10_RECORD),
                             CALIBRATION_STEPS * CALIBRATION_BATCH, images.classes};
    struct view *views = memory_new((size_t)again.count, sizeof *views);
    for (int64_t i = 0; i < again.count; i++) {
        memcpy(again.records + i * CIFAR10_RECORD,
               images.records + learner.order[i % IMAGES] * (size_t)CIFAR10_RECORD, CIFAR10_RECORD);
        views[i].image = (uint32_t)i;
    }
    const struct resident more = resident_new(device, &again);
    const struct learner_settings at_rest = {.recipe = {.epochs = 1, .batch = CALIBRATION_BATCH}};
    const double none[CALIBRATION_STEPS] = {0};
    learner_init(&still, device, &more, &at_rest, NULL);
    network_state_copy(&still.state.network, &learner.state.network);
    memcpy(still.state.network.parameters, learner.state.average,
           network_plan()->parameters * sizeof *found.parameters);
    learner_put(&still);
    steps_begin(&still.steps, views, none, 0, 0);
    steps_run(&still.steps, 0, CALIBRATION_STEPS);
    assert_true(learner_take(&still, &still.state, &error));
    assert_memory_equal(found.statistics, still.state.network.statistics,
                        network_plan()->statistics * sizeof *found.statistics);

    free(views);
    network_state_free(&found);
    learner_free(&still);
    learner_free(&learner);
    device->ops->close(device);
    cifar10_free(&images);
    cifar10_free(&again);
}

/* What is drawn depends on the state's generator alone: the epoch's order, then its views. */
static void an_epoch_is_drawn_from_the_state(void **unused) {
    (void)unused;
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    struct error error;
    struct view views[IMAGES];
    uint32_t order[IMAGES];
    uint8_t begins[IMAGES];
    const struct learner_settings settings = {.recipe = {.epochs = 2,
                                                         .batch = 40,
                                                         .schedule = SCHEDULE_LINEAR,
                                                         .flip = FLIP_ALTERNATING,
                                                         .shift = 2,
                                                         .border = BORDER_REFLECT},
                                              .seed = 11};
    assert_true(device_open(&device, "cpu", &(struct device_options){.threads = 2}, &error));
    synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
    const struct resident data = resident_new(device, &images);
    learner_init(&learner, device, &data, &settings, NULL);
    learner_put(&learner);
    recipe_first_flips(begins, IMAGES, settings.seed);
    for (int twice = 0; twice < 2; twice++) {
        struct random random = learner.state.random;
        learner.state.epoch = 2;
        learner.state.step = 3;
        learner.state.steps = 4 + 3;
        learner_begin(&learner);
        random_permutation(&random, order, IMAGES);
        memset(views, 0, sizeof views);
        recipe_views(&settings.recipe, views, order, IMAGES, 2, begins, &random);
        assert_memory_equal(learner.order, order, sizeof order);
        assert_memory_equal(learner.views, views, sizeof views);
        assert_memory_equal(&learner.drawn, &random, sizeof random);
        for (int64_t step = 0; step < 4; step++) /* of 8 in the run */
            assert_true(fabs(learner.schedule[step] - (double)(4 - step) / 8) < 1e-12);
    }
    learner_free(&learner);
    device->ops->close(device);
    cifar10_free(&images);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_average_has_statistics_of_its_own),
        cmocka_unit_test(an_epoch_is_drawn_from_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
