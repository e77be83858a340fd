/* The training loop: PyTorch's first steps, overfitting, repeatability, the last smaller batch,
 * what observers hear, and how it ends when the loss is no longer finite. */
#include "base/clock.h"
#include "data/synth.h"
#include "net/checkpoint.h"
#include "train/trainer.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* What a run did. */
struct record {
    struct trainer *trainer;
    const char *device;               /* NULL: openblas */
    int validation;                   /* images; held out of the run's */
    uint64_t test_seed;               /* of the test images */
    const struct network_state *init; /* may be NULL */
    double spoil_lr;                  /* if not 0: Adam's rate from the second epoch on */
    int64_t steps, epochs;
    int64_t progresses;
    struct train_progress progress; /* the last one */
    double losses[2000];            /* of each on_step */
    struct train_epoch epoch[16];
    struct train_epoch last;
    int tests;
    struct evaluation test; /* of the end */
    int64_t best_epoch;     /* as the trainer has it in the end */
    double best_accuracy;
    int warnings, alarms, savings;
    int64_t stop_at;    /* wants to stop once so many steps were reported in all; 0: never */
    const char *folder; /* to be made at a step; NULL: none */
    int64_t make_at, remove_at; /* remove_at 0: never */
};

static void on_progress(void *context, const struct train_progress *progress) {
    struct record *r = context;
    if (progress->epoch == r->progress.epoch) {
        assert_true(progress->images > r->progress.images);
    }
    assert_true(progress->images_per_second > 0);
    r->progresses++;
    r->progress = *progress;
}

static void on_step(void *context, int epoch, int64_t step, double loss) {
    struct record *r = context;
    (void)epoch, (void)step;
    if (r->steps < 2000)
        r->losses[r->steps] = loss;
    r->steps++;
    if (r->folder != NULL && r->steps == r->make_at)
        mkdir(r->folder, 0777);
    if (r->folder != NULL && r->steps == r->remove_at) {
        unlink(r->trainer->settings.last);
        rmdir(r->folder);
    }
}

static void on_epoch(void *context, const struct train_epoch *epoch) {
    struct record *r = context;
    if (r->epochs < 16)
        r->epoch[r->epochs] = *epoch;
    if (r->spoil_lr > 0)
        r->trainer->learner.optimizer.adam.lr = r->spoil_lr;
    r->epochs++;
    r->last = *epoch;
}

static void on_test(void *context, const struct evaluation *test) {
    struct record *r = context;
    r->tests++;
    r->test = *test;
}

static void on_warning(void *context, const char *text) {
    struct record *r = context;
    assert_non_null(strstr(text, "cannot be written"));
    if (strncmp(text, "THIS RUN IS NOT BEING SAVED: ", 29) == 0) {
        r->alarms++;
        return;
    }
    assert_non_null(strstr(text, "; training goes on, and the next save tries again"));
    r->warnings++;
}

static void on_saving(void *context) {
    struct record *r = context;
    r->savings++;
}

static bool on_stop(void *context) {
    const struct record *r = context;
    return r->stop_at > 0 && r->steps >= r->stop_at;
}

static char model[64], last[64]; /* where the runs save */

static const struct train_settings SETTINGS = {
    .recipe = {.epochs = 1, .batch = 10, .lr = 0.001, .weight_decay = 0.0001},
    .log_every = 1,
    .model = model,
    .last = last,
    .keep = 1,
};

/* All that a recipe can have. */
static const struct recipe FULL = {
    .epochs = 3,
    .batch = 10,
    .optimizer = OPTIMIZER_MUON,
    .lr = 0.002,
    .weight_decay = 0.1,
    .decoupled = true,
    .muon_lr = 0.02,
    .momentum = 0.9,
    .schedule = SCHEDULE_COSINE,
    .warmup = 0.2,
    .final_lr = 0.1,
    .flip = FLIP_ALTERNATING,
    .shift = 3,
    .border = BORDER_REFLECT,
    .label_smoothing = 0.1,
    .average = AVERAGE_EMA,
    .average_decay = 0.7,
};

/* Trains on `count` synthetic images with so many threads, from a state if there is one; the
 * learned state goes to *state. */
static bool go_on(struct train_settings settings, int count, int threads, struct record *record,
                  struct train_state *from, struct network_state *state, struct error *error) {
    struct device *device;
    struct cifar10 images, test, held = {0};
    struct trainer trainer;
    const struct metadata about = {0};
    const struct train_observer observer = {record,  on_progress, on_step,    on_epoch,
                                            on_test, on_saving,   on_warning, on_stop};
    *record = (struct record){.trainer = &trainer,
                              .device = record->device,
                              .validation = record->validation,
                              .test_seed = record->test_seed,
                              .init = record->init,
                              .spoil_lr = record->spoil_lr,
                              .stop_at = record->stop_at,
                              .folder = record->folder,
                              .make_at = record->make_at,
                              .remove_at = record->remove_at};
    assert_true(device_open(&device, record->device != NULL ? record->device : "openblas",
                            &(struct device_options){.threads = threads}, error));
    synth_draw(&images, CIFAR10_TRAIN, count + record->validation, 0);
    synth_draw(&test, CIFAR10_TEST, 30, record->test_seed);
    if (record->validation > 0)
        cifar10_hold_out(&images, &held, record->validation, settings.seed);
    struct train_data data = {.train = resident_new(device, &images),
                              .test = resident_new(device, &test)};
    if (record->validation > 0)
        data.validation = resident_new(device, &held);
    trainer_init(&trainer, device, &settings, &data, record->init, &about, &about, from);
    const double began = clock_seconds();
    bool good = train(&trainer, &observer, error);
    const double seconds = clock_seconds() - began;
    if (good && from == NULL) {
        const struct train_epoch *final = &record->last;
        assert_true(final->train_seconds < seconds);
        assert_true(fabs(final->images_per_second * final->train_seconds - count) < 1e-6 * count);
    }
    record->best_epoch = trainer.learner.state.best.epoch;
    record->best_accuracy = trainer.learner.state.best.accuracy;
    if (state != NULL) {
        struct error second;
        network_state_new(state);
        assert_true(network_download(trainer.learner.network, state, &second));
        state->batches = trainer.learner.state.network.batches;
    }
    trainer_free(&trainer);
    device->ops->close(device);
    cifar10_free(&images);
    cifar10_free(&test);
    cifar10_free(&held);
    return good;
}

static bool run(struct train_settings settings, int count, int threads, struct record *record,
                struct network_state *state, struct error *error) {
    return go_on(settings, count, threads, record, NULL, state, error);
}

static void must_run(struct train_settings settings, int count, int threads, struct record *record,
                     struct network_state *state) {
    struct error error;
    if (!run(settings, count, threads, record, state, &error))
        fail_msg("%s", error.text);
}

/* ---- tests ---- */

static void three_steps_are_pytorchs(void **unused) {
    (void)unused;
    enum { BATCH = 10, STEPS = 3, IMAGES = BATCH * STEPS };
    const struct learner_settings settings = {
        .recipe = {.batch = BATCH, .lr = 0.001, .weight_decay = 0.0001}};
    const size_t count = network_plan()->parameters;
    struct error error;
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    struct network_state expected;
    struct safetensors golden;
    static const double WHOLE[STEPS] = {1, 1, 1};
    struct view views[IMAGES] = {{0}};
    float losses[STEPS];

    if (!safetensors_load(&golden, GOLDEN "/step.safetensors", &error))
        fail_msg("%s", error.text);
    assert_true(device_open(&device, "openblas", &(struct device_options){.threads = 2}, &error));
    synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
    const struct resident data = resident_new(device, &images);
    learner_init(&learner, device, &data, &settings, NULL);
    learner_put(&learner);
    for (uint32_t i = 0; i < IMAGES; i++)
        views[i].image = i;
    steps_begin(&learner.steps, views, WHOLE, 0, 0);
    steps_run(&learner.steps, 0, STEPS);

    assert_true(steps_losses(&learner.steps, losses, 0, STEPS, &error));
    for (int i = 0; i < golden.count; i++)
        if (strcmp(golden.tensors[i].name, "losses") == 0)
            for (int j = 0; j < STEPS; j++) {
                float e;
                memcpy(&e, (const char *)golden.tensors[i].data + (size_t)j * sizeof e, sizeof e);
                assert_true(fabsf(losses[j] - e) < 1e-5F * e);
            }

    struct train_state *state = &learner.state;
    assert_true(learner_take(&learner, state, &error));
    network_state_new(&expected);
    assert_true(checkpoint_load(GOLDEN "/after3.safetensors", &expected, NULL, &error));
    /* Adam's first steps are lr * sign(gradient): where a gradient is all but 0 its sign is chance,
     * so a few elements may differ by whole steps, and no more */
    int64_t off = 0;
    for (size_t i = 0; i < count; i++) {
        const float difference = fabsf(state->network.parameters[i] - expected.parameters[i]);
        assert_true(difference <= 2 * 0.001F * STEPS);
        off += difference > 1e-5F;
    }
    assert_true(off <= (int64_t)(count / 1000));
    for (size_t i = 0; i < network_plan()->statistics; i++)
        assert_true(fabsf(state->network.statistics[i] - expected.statistics[i]) <=
                    1e-3F + 1e-3F * fabsf(expected.statistics[i]));

    network_state_free(&expected);
    safetensors_free(&golden);
    learner_free(&learner);
    device->ops->close(device);
    cifar10_free(&images);
}

/* The trainer against a learner that is told each step by hand: PyTorch's Adam with the user's
 * settings, and for each epoch the next order from the generator that drew the weights. Bit by bit.
 */
static void epochs_are_made_of_pytorchs_orders_and_steps(void **unused) {
    (void)unused;
    enum { BATCH = 10, IMAGES = 33, EPOCHS = 3, STEPS = 4 };
    const struct learner_settings by_hand = {
        .recipe = {.epochs = EPOCHS, .batch = BATCH, .lr = 0.002, .weight_decay = 0.01}, .seed = 7};
    struct train_settings settings = SETTINGS;
    struct error error;
    struct record record = {0};
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    struct network_state found;
    uint32_t order[IMAGES];

    settings.recipe = by_hand.recipe;
    settings.seed = by_hand.seed;
    must_run(settings, IMAGES, 2, &record, &found);

    assert_true(device_open(&device, "openblas", &(struct device_options){.threads = 2}, &error));
    synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
    const struct resident data = resident_new(device, &images);
    learner_init(&learner, device, &data, &by_hand, NULL);
    struct train_state *state = &learner.state;
    learner_put(&learner);
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        random_permutation(&state->random, order, IMAGES);
        for (int step = 0; step < STEPS; step++) { /* each as a pass of its own */
            struct view views[IMAGES] = {{0}};
            const double whole[STEPS] = {1, 1, 1, 1};
            for (int i = 0; i < IMAGES; i++)
                views[i].image = order[i];
            steps_begin(&learner.steps, views, whole, step, epoch * STEPS + step);
            steps_run(&learner.steps, step, 1);
        }
    }
    assert_true(learner_take(&learner, state, &error));
    assert_memory_equal(found.parameters, state->network.parameters,
                        network_plan()->parameters * sizeof *found.parameters);
    assert_memory_equal(found.statistics, state->network.statistics,
                        network_plan()->statistics * sizeof *found.statistics);

    network_state_free(&found);
    learner_free(&learner);
    device->ops->close(device);
    cifar10_free(&images);
}

/* One process does one run after another, over data that it puts on the device once: what a run
 * takes there is given back, and each comes to the same. */
static void many_runs_in_one_process(void **unused) {
    (void)unused;
    enum { RUNS = 50, IMAGES = 25 };
    static const char *const DEVICES[] = {"cpu", "openblas"};
    for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++) {
        const struct metadata about = {0};
        struct record record = {0};
        const struct train_observer observer = {&record, on_progress, on_step,    on_epoch,
                                                on_test, on_saving,   on_warning, on_stop};
        struct trainer *trainer = calloc(1, sizeof *trainer);
        struct device *device;
        struct cifar10 images, test;
        struct error error;
        size_t bytes = 0, host_bytes = 0;
        double loss = 0;
        assert_non_null(trainer);
        assert_true(
            device_open(&device, DEVICES[i], &(struct device_options){.threads = 2}, &error));
        synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
        synth_draw(&test, CIFAR10_TEST, 10, 0);
        const struct train_data data = {.train = resident_new(device, &images),
                                        .test = resident_new(device, &test)};
        for (int run = 0; run < RUNS; run++) {
            record = (struct record){.trainer = trainer};
            trainer_init(trainer, device, &SETTINGS, &data, NULL, &about, &about, NULL);
            if (!train(trainer, &observer, &error))
                fail_msg("%s", error.text);
            trainer_free(trainer);
            if (run == 1) { /* what libraries keep is there */
                bytes = device->ops->memory(device);
                host_bytes = mallinfo2().uordblks;
                loss = record.last.train_loss;
            }
            assert_true(run == 0 || device->ops->memory(device) == bytes);
            /* a run takes half a megabyte; what malloc keeps at hand counts as if in use */
            assert_true(run == 0 || mallinfo2().uordblks < host_bytes + 65536);
            assert_true(run == 0 || record.last.train_loss == loss);
        }
        device->ops->close(device);
        cifar10_free(&images);
        cifar10_free(&test);
        free(trainer);
    }
}

static void overfits_32_images(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    settings.recipe.epochs = 60;
    settings.recipe.batch = 16;
    must_run(settings, 32, 2, &record, NULL);
    assert_true(record.last.train_loss < 0.01);
}

static void threads_and_runs_do_not_change_a_bit(void **unused) {
    (void)unused;
    static const int THREADS[] = {1, 1, 2, 3, 7};
    struct train_settings settings = SETTINGS;
    struct network_state first = {0};
    const struct network_plan *plan = network_plan();
    settings.recipe.batch = 35; /* more than one image in a group of the weight gradient's sum */
    for (size_t i = 0; i < sizeof THREADS / sizeof *THREADS; i++) {
        struct network_state state;
        struct record record = {0};
        must_run(settings, 80, THREADS[i], &record, &state);
        if (i == 0) {
            first = state;
            continue;
        }
        assert_memory_equal(first.parameters, state.parameters,
                            plan->parameters * sizeof *state.parameters);
        assert_memory_equal(first.statistics, state.statistics,
                            plan->statistics * sizeof *state.statistics);
        network_state_free(&state);
    }
    network_state_free(&first);
}

static void assert_same_numbers(const struct network_state *a, const struct network_state *b) {
    const struct network_plan *plan = network_plan();
    assert_memory_equal(a->parameters, b->parameters, plan->parameters * sizeof *a->parameters);
    assert_memory_equal(a->statistics, b->statistics, plan->statistics * sizeof *a->statistics);
}

static struct network_state saved_network(struct metadata *about) {
    struct network_state saved;
    struct error error;
    network_state_new(&saved);
    if (!checkpoint_load(model, &saved, about, &error))
        fail_msg("%s", error.text);
    return saved;
}

static void nor_do_they_with_a_recipe(void **unused) {
    (void)unused;
    static const struct {
        const char *device;
        int threads;
    } CASES[] = {{"cpu", 1},      {"cpu", 1},      {"cpu", 2},     {"cpu", 3},
                 {"openblas", 1}, {"openblas", 2}, {"openblas", 7}};
    struct train_settings settings = SETTINGS;
    struct network_state first = {0}, other;
    struct metadata about;
    settings.recipe = FULL;
    settings.recipe.epochs = 1;
    double losses[2];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct record record = {.device = CASES[i].device, .validation = 7};
        const bool begins = i == 0 || strcmp(CASES[i].device, CASES[i - 1].device) != 0;
        must_run(settings, 45, CASES[i].threads, &record, NULL);
        other = saved_network(&about);
        if (begins) {
            losses[i > 0] = record.last.train_loss;
            network_state_free(&first);
            first = other;
            continue;
        }
        assert_same_numbers(&first, &other);
        network_state_free(&other);
    }
    assert_true(fabs(losses[0] - losses[1]) < 1e-4 * losses[0]); /* both backends learn alike */
    network_state_free(&first);
}

static void last_smaller_batch_counts(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct network_state state;
    settings.recipe.epochs = 2;
    must_run(settings, 33, 2, &record, &state); /* 10 + 10 + 10 + 3 */
    assert_int_equal(record.steps, 2 * 4);
    assert_int_equal(record.epochs, 2);
    assert_int_equal(record.progress.images, 33);
    assert_int_equal(record.progress.epoch, 2);
    assert_int_equal(record.last.epoch, 2);
    assert_int_equal(state.batches, 2 * 4);
    const double *l = record.losses + 4;
    const double mean = (10 * l[0] + 10 * l[1] + 10 * l[2] + 3 * l[3]) / 33;
    assert_true(fabs(record.last.train_loss - mean) < 1e-12);
    assert_true(record.epoch[0].chosen);
    network_state_free(&state);
}

static void batch_sizes_at_the_edges(void **unused) {
    (void)unused;
    static const struct {
        int batch, images, steps;
    } CASES[] = {{1, 3, 3}, {1000, 7, 1}, {7, 7, 1}, {6, 7, 2}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct train_settings settings = SETTINGS;
        struct record record = {0};
        settings.recipe.batch = CASES[i].batch;
        must_run(settings, CASES[i].images, 2, &record, NULL);
        assert_int_equal(record.steps, CASES[i].steps);
        assert_true(isfinite(record.last.train_loss));
    }
}

static void log_every_takes_means(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record each = {0}, third = {0};
    must_run(settings, 75, 2, &each, NULL); /* 8 steps */
    settings.log_every = 3;
    must_run(settings, 75, 2, &third, NULL);
    assert_int_equal(each.steps, 8);
    assert_int_equal(third.steps, 2); /* what is left over is not reported, as in the tutorial */
    assert_true(fabs(third.progress.loss - (each.losses[6] + each.losses[7]) / 2) < 1e-12);
    for (int i = 0; i < 2; i++) {
        const double *l = each.losses + 3 * i;
        assert_true(fabs(third.losses[i] - (l[0] + l[1] + l[2]) / 3) < 1e-12);
    }
}

static void checkpoint_is_the_best_epochs(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct network_state saved;
    struct metadata about;
    struct error error;
    settings.recipe.epochs = 4;
    settings.seed = 5;
    must_run(settings, 60, 2, &record, NULL);
    network_state_new(&saved);
    assert_true(checkpoint_load(model, &saved, &about, &error));
    int best = 0;
    for (int i = 0; i < 4; i++)
        if (record.epoch[i].chosen)
            best = i + 1;
    assert_int_equal(atoi(metadata_get(&about, "epoch")), best);
    assert_int_equal(saved.batches, best * 6);
    const struct evaluation *test = &record.epoch[best - 1].judged;
    char text[64];
    snprintf(text, sizeof text, "%.2f", evaluation_accuracy(test));
    assert_string_equal(metadata_get(&about, "test_accuracy"), text);
    snprintf(text, sizeof text, "%.6f", test->loss);
    assert_string_equal(metadata_get(&about, "test_loss"), text);
    network_state_free(&saved);
}

/* With a learning rate of 0 only the running statistics move, which no other rounding changes much:
 * the accuracy on so few images rises, stays and falls, as the test needs. */
static void best_is_better_than_all_before(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct network_state saved;
    struct metadata about;
    struct error error;
    int best = 0, equal = 0, worse = 0;
    double best_accuracy = -1;
    settings.recipe.epochs = 8;
    settings.recipe.lr = 0;
    must_run(settings, 60, 2, &record, NULL);
    for (int i = 0; i < 8; i++) {
        const double accuracy = evaluation_accuracy(&record.epoch[i].judged);
        assert_int_equal(record.epoch[i].chosen, accuracy > best_accuracy);
        equal += accuracy == best_accuracy;
        worse += accuracy < best_accuracy;
        if (accuracy > best_accuracy) {
            best = i;
            best_accuracy = accuracy;
        }
    }
    assert_true(equal > 0 && worse > 0 && best > 0);
    assert_int_equal(record.best_epoch, best + 1);
    assert_true(record.best_accuracy == best_accuracy);
    network_state_new(&saved);
    assert_true(checkpoint_load(model, &saved, &about, &error));
    assert_int_equal(atoi(metadata_get(&about, "epoch")), best + 1);
    network_state_free(&saved);
}

/* Which epoch is chosen depends on the validation images alone; these are not trained on. */
static void validation_images_choose(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record with[2] = {{.validation = 20}, {.validation = 20, .test_seed = 9}}, without = {0};
    struct network_state saved[2], learned[3];
    struct metadata about[2];
    char text[64];
    settings.recipe.epochs = 4;
    settings.recipe.lr = 0.01;
    for (int i = 0; i < 2; i++) {
        must_run(settings, 40, 2, &with[i], &learned[i]);
        saved[i] = saved_network(&about[i]);
        assert_int_equal(with[i].epoch[0].judged.images, 20);
        assert_int_equal(with[i].tests, 1);
        assert_int_equal(with[i].test.images, 30);
        snprintf(text, sizeof text, "%.2f", with[i].best_accuracy);
        assert_string_equal(metadata_get(&about[i], "validation_accuracy"), text);
        snprintf(text, sizeof text, "%.6f", with[i].epoch[with[i].best_epoch - 1].judged.loss);
        assert_string_equal(metadata_get(&about[i], "validation_loss"), text);
        snprintf(text, sizeof text, "%.2f", evaluation_accuracy(&with[i].test));
        assert_string_equal(metadata_get(&about[i], "test_accuracy"), text);
        snprintf(text, sizeof text, "%.6f", with[i].test.loss);
        assert_string_equal(metadata_get(&about[i], "test_loss"), text);
    }
    assert_true(with[0].test.loss != with[1].test.loss);
    assert_int_equal(with[0].best_epoch, with[1].best_epoch);
    assert_string_equal(metadata_get(&about[0], "epoch"), metadata_get(&about[1], "epoch"));
    assert_same_numbers(&saved[0], &saved[1]);
    assert_same_numbers(&learned[0], &learned[1]);

    /* of as many images as are left, of which one or the other is another one */
    must_run(settings, 40, 2, &without, &learned[2]);
    assert_int_equal(without.tests, 0);
    assert_int_equal(without.epoch[0].judged.images, 30);
    assert_memory_not_equal(learned[2].parameters, learned[0].parameters, 1000);
    for (int i = 0; i < 3; i++)
        network_state_free(&learned[i]);
    for (int i = 0; i < 2; i++)
        network_state_free(&saved[i]);
}

/* The average is judged and saved; the network that learns goes on as if there was none. */
static void an_average_changes_no_training(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record with = {0}, without = {0};
    struct network_state learned[2], saved;
    struct metadata about;
    settings.recipe = FULL;
    settings.recipe.epochs = 2;
    must_run(settings, 30, 2, &with, &learned[0]);
    saved = saved_network(&about);
    assert_memory_not_equal(saved.parameters, learned[0].parameters, 1000);
    settings.recipe.average = AVERAGE_NONE;
    must_run(settings, 30, 2, &without, &learned[1]);
    assert_same_numbers(&learned[0], &learned[1]);
    assert_memory_equal(with.losses, without.losses, 6 * sizeof *with.losses);
    network_state_free(&learned[0]);
    network_state_free(&learned[1]);
    network_state_free(&saved);
}

static void the_last_epoch_can_be_selected(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct network_state learned, saved;
    struct metadata about;
    settings.recipe.epochs = 5;
    settings.recipe.lr = 0; /* as in best_is_better_than_all_before */
    settings.recipe.select = SELECT_LAST;
    must_run(settings, 60, 2, &record, &learned);
    bool fell = false;
    for (int i = 0; i < 5; i++) {
        assert_true(record.epoch[i].chosen);
        fell |= i > 0 && record.epoch[i].judged.correct <= record.epoch[i - 1].judged.correct;
    }
    assert_true(fell); /* or the test says nothing */
    assert_int_equal(record.best_epoch, 5);
    assert_true(record.best_accuracy == evaluation_accuracy(&record.last.judged));
    saved = saved_network(&about);
    assert_string_equal(metadata_get(&about, "epoch"), "5");
    assert_same_numbers(&saved, &learned);
    network_state_free(&saved);
    network_state_free(&learned);
}

/* A run that begins with the network of another one learns from there, as a run of its own. */
static void begins_with_another_network(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record first = {0};
    struct network_state init, learned;
    settings.recipe.epochs = 20;
    must_run(settings, 40, 2, &first, &init);
    struct record second = {.init = &init};
    settings.recipe.epochs = 1;
    must_run(settings, 40, 2, &second, &learned);
    assert_true(second.losses[0] < first.losses[0] / 4);
    assert_int_equal(learned.batches, 4);
    network_state_free(&learned);
    settings.recipe.lr = 0;
    settings.recipe.weight_decay = 0;
    must_run(settings, 40, 2, &second, &learned);
    assert_memory_equal(learned.parameters, init.parameters,
                        network_plan()->parameters * sizeof *init.parameters);
    network_state_free(&learned);
    network_state_free(&init);
}

/* The rate of an epoch's last step. */
static void epochs_tell_their_rate(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    settings.recipe.schedule = SCHEDULE_LINEAR;
    settings.recipe.epochs = 2;
    must_run(settings, 40, 2, &record, NULL); /* 8 steps */
    assert_true(fabs(record.epoch[0].lr - 0.001 * 5 / 8) < 1e-12);
    assert_true(fabs(record.epoch[1].lr - 0.001 * 1 / 8) < 1e-12);
}

static void infinite_loss_ends_the_run(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    unlink(model);
    settings.recipe.lr = 1e30;
    assert_false(run(settings, 60, 2, &record, NULL, &error));
    assert_int_equal(error.status, STATUS_DIVERGED);
    assert_non_null(strstr(error.text, "the loss of step "));
    assert_non_null(strstr(error.text, "no checkpoint had been saved"));
    assert_true(access(model, F_OK) != 0);
}

/* Training that diverges after a good epoch leaves that epoch's checkpoint and says so. */
static void divergence_keeps_the_last_good_checkpoint(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {.spoil_lr = 1e30};
    struct network_state saved;
    struct metadata about;
    struct error error;
    char kept[128];
    settings.recipe.epochs = 3;
    assert_false(run(settings, 60, 2, &record, NULL, &error));
    assert_int_equal(error.status, STATUS_DIVERGED);
    assert_int_equal(record.epochs, 1);
    assert_non_null(strstr(error.text, "epoch 2: the loss of step 2 "));
    snprintf(kept, sizeof kept, "%s still holds epoch 1 with %.2f %%", model,
             evaluation_accuracy(&record.last.judged));
    assert_non_null(strstr(error.text, kept));
    network_state_new(&saved);
    assert_true(checkpoint_load(model, &saved, &about, &error));
    assert_string_equal(metadata_get(&about, "epoch"), "1");
    network_state_free(&saved);
}

/* An average of what diverged has, too; and what is wrong is found in it. */
static void divergence_with_an_average(void **unused) {
    (void)unused;
    static const struct {
        double lr;
        int images, validation;
        const char *found;
    } CASES[] = {
        {1e30, 60, 0, "epoch 1: the loss of step 2 is "},
        {1e30, 10, 0, "epoch 1: the loss on the test images is "},
        {1e30, 10, 9, "epoch 1: the loss on the validation images is "},
        {1e17, 20, 0, "running_var is infinite"},
        {1e17, 10, 0, "running_var is infinite: no longer a finite number; "}, /* the average's */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct train_settings settings = SETTINGS;
        struct record record = {.validation = CASES[i].validation};
        struct error error;
        unlink(model);
        settings.recipe.average = AVERAGE_EMA;
        settings.recipe.average_decay = 0.5;
        settings.recipe.lr = CASES[i].lr;
        assert_false(run(settings, CASES[i].images, 2, &record, NULL, &error));
        assert_int_equal(error.status, STATUS_DIVERGED);
        if (strstr(error.text, CASES[i].found) == NULL)
            fail_msg("'%s' is not in: %s", CASES[i].found, error.text);
        assert_int_equal(strstr(error.text, "(first to go wrong: ") == NULL, /* in what learns */
                         strchr(CASES[i].found, ';') != NULL);
        assert_true(access(model, F_OK) != 0);
    }
}

/* One huge step at the end of an epoch: no loss of a step tells of it, that of the test does. */
static void infinite_test_loss_ends_the_run(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    unlink(model);
    settings.recipe.lr = 1e30;
    assert_false(run(settings, 10, 2, &record, NULL, &error));
    assert_int_equal(error.status, STATUS_DIVERGED);
    assert_non_null(strstr(error.text, "epoch 1: the loss on the test images is "));
    assert_non_null(
        strstr(error.text, " (first to go wrong: the output of bn1, with infinite numbers)"));
    assert_true(access(model, F_OK) != 0);
}

/* Reports at every step keep runs of steps from growing, however many there are. */
static void many_steps_with_a_report_each(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    settings.recipe.batch = 1;
    must_run(settings, 150, 1, &record, NULL);
    assert_int_equal(record.steps, 150);
    assert_int_equal(record.progress.images, 150);
    assert_int_equal(record.progresses, 150);
    settings.log_every = 1000;
    must_run(settings, 150, 1, &record, NULL);
    assert_true(record.progresses < 150); /* small steps are queued in runs */
}

/* With so large a step running variances overflow while the loss stays finite: what would be saved
 * could not be loaded. */
static void infinite_statistics_end_the_run(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    unlink(model);
    settings.recipe.lr = 1e17;
    assert_false(run(settings, 20, 2, &record, NULL, &error));
    assert_int_equal(error.status, STATUS_DIVERGED);
    assert_non_null(strstr(error.text, "running_var is infinite"));
    assert_true(access(model, F_OK) != 0);
}

/* ---- files and going on ---- */

/* A file's bytes. */
static uint8_t *bytes_of(const char *path, size_t *size) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    uint8_t *bytes = malloc(1 << 21);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 21, file);
    fclose(file);
    return bytes;
}

static void assert_file_holds(const char *path, const uint8_t *bytes, size_t size) {
    size_t found_size;
    uint8_t *found = bytes_of(path, &found_size);
    assert_int_equal(found_size, size);
    assert_memory_equal(found, bytes, size);
    free(found);
}

/* Stopped after any step, in the middle of an epoch, between two and before the last evaluation,
 * the run goes on with another number of threads as if nothing had happened: the same losses,
 * reports and files, bit for bit. */
static void goes_on(const struct recipe *recipe, int validation, const char *device, int first_stop,
                    int every) {
    enum { IMAGES = 33, STEPS = 4, EPOCHS = 3 };
    const bool averages = recipe->average != AVERAGE_NONE;
    struct train_settings settings = SETTINGS;
    struct record whole = {.validation = validation, .device = device};
    struct error error;
    size_t model_size, last_size;
    settings.recipe = *recipe;
    settings.recipe.epochs = EPOCHS;
    settings.log_every = 1;
    must_run(settings, IMAGES, 2, &whole, NULL);
    assert_int_equal(whole.tests, validation > 0);
    uint8_t *model_bytes = bytes_of(model, &model_size), *last_bytes = bytes_of(last, &last_size);

    for (int stop = first_stop; stop < EPOCHS * STEPS; stop += every) {
        struct record first = whole, second = whole;
        struct train_state state;
        struct metadata about;
        unlink(model);
        unlink(last);
        first.stop_at = stop;
        settings.save_every = stop % 3; /* changes nothing */
        assert_false(run(settings, IMAGES, 1 + stop % 3, &first, NULL, &error));
        assert_int_equal(error.status, STATUS_INTERRUPTED);
        assert_int_equal(first.steps, stop);
        assert_int_equal(first.tests, 0);
        assert_non_null(strstr(error.text, "go on with --resume /tmp/trainer_test."));

        unlink(model); /* the state holds the best network, too */
        assert_true(train_state_load(last, &state, &about, &error));
        assert_true(train_state_fits(&state, EPOCHS, STEPS, averages, last, &error));
        assert_false(train_state_fits(&state, EPOCHS, STEPS + 1, averages, last, &error) &&
                     stop >= STEPS);
        assert_int_equal((state.epoch - 1) * STEPS + state.step, stop);
        if (!go_on(settings, IMAGES, 3, &second, &state, NULL, &error))
            fail_msg("%s", error.text);
        assert_int_equal(second.steps, EPOCHS * STEPS - stop);
        assert_memory_equal(second.losses, whole.losses + stop,
                            (size_t)second.steps * sizeof *whole.losses);
        assert_true(second.last.train_loss == whole.last.train_loss);
        assert_true(second.last.judged.loss == whole.last.judged.loss);
        assert_true(second.last.lr == whole.last.lr);
        assert_true(second.test.loss == whole.test.loss);
        assert_int_equal(second.best_epoch, whole.best_epoch);
        assert_file_holds(model, model_bytes, model_size);
        assert_file_holds(last, last_bytes, last_size);
    }
    free(model_bytes);
    free(last_bytes);
}

static void goes_on_from_any_step(void **unused) {
    (void)unused;
    goes_on(&SETTINGS.recipe, 0, NULL, 1, 1);
}

static void goes_on_from_any_step_of_a_recipe(void **unused) {
    (void)unused;
    /* an epoch's average takes as long as 5,000 images */
    goes_on(&FULL, 12, "cpu", 2, 3);
    goes_on(&FULL, 12, "openblas", 7, 8);
    struct recipe other = FULL;
    other.optimizer = OPTIMIZER_SGD;
    other.flip = FLIP_RANDOM;
    other.select = SELECT_LAST;
    other.average = AVERAGE_NONE;
    other.decoupled = false;
    goes_on(&other, 0, "cpu", 1, 1);
}

/* Reports that span a stop are the mean of all their steps. */
static void reports_span_a_stop(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record each = {0}, rest = {0};
    struct train_state state;
    struct metadata about;
    struct error error;
    must_run(settings, 75, 2, &each, NULL); /* 8 steps */
    struct record stopped = {.stop_at = 4};
    assert_false(run(settings, 75, 2, &stopped, NULL, &error));
    assert_true(train_state_load(last, &state, &about, &error));
    assert_true(state.running == 0);
    state.running = each.losses[3]; /* as if the last report had been after step 3 */
    settings.log_every = 3;
    assert_true(go_on(settings, 75, 2, &rest, &state, NULL, &error));
    assert_int_equal(rest.steps, 1); /* after step 6 */
    assert_true(rest.losses[0] == (each.losses[3] + each.losses[4] + each.losses[5]) / 3);
}

/* A finished run has nothing left to do, and goes on when it is to be longer. */
static void a_longer_run_goes_on(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0}, rest = {0};
    struct train_state state;
    struct metadata about;
    struct error error;
    size_t last_size;
    settings.recipe.epochs = 3;
    must_run(settings, 33, 2, &record, NULL);
    uint8_t *last_bytes = bytes_of(last, &last_size);
    settings.recipe.epochs = 2;
    must_run(settings, 33, 2, &record, NULL);
    for (settings.recipe.epochs = 2; settings.recipe.epochs <= 3; settings.recipe.epochs++) {
        assert_true(train_state_load(last, &state, &about, &error));
        assert_int_equal(state.epoch, 3);
        assert_true(go_on(settings, 33, 2, &rest, &state, NULL, &error));
        assert_int_equal(rest.epochs, settings.recipe.epochs - 2);
    }
    assert_file_holds(last, last_bytes, last_size);
    free(last_bytes);
}

/* A file that cannot be written does not end the training; what it misses is written as soon as
 * that is possible, and the end tells. */
static void writes_that_fail_are_tried_again(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    char folder[64], path[80];
    snprintf(folder, sizeof folder, "/tmp/trainer_test.%ld.folder", (long)getpid());
    snprintf(path, sizeof path, "%s/file", folder);
    settings.recipe.epochs = 2;
    settings.save_every = 2;
    for (int k = 0; k < 2; k++) {
        settings.model = k == 0 ? path : model;
        settings.last = k == 0 ? last : path;
        assert_false(run(settings, 33, 2, &record, NULL, &error));
        assert_int_equal(error.status, STATUS_FAILURE);
        assert_int_equal(record.epochs, 2);
        /* the state is to be written at the beginning, after steps 2 and 4 of both epochs and after
         * each; the model after the first epoch and at each occasion from then on; and once more
         * at the end */
        assert_int_equal(record.warnings, k == 0 ? 4 : 6);
        assert_non_null(strstr(error.text, "training is finished, but /tmp/trainer_test."));
        assert_non_null(strstr(error.text, "folder/file does not hold its end: "));

        record.folder = folder;
        record.make_at = 6; /* in the second epoch */
        assert_false(run(settings, 33, 2, &record, NULL, &error));
        assert_int_equal(error.status, STATUS_FAILURE);
        assert_non_null(strstr(error.text, "files are complete, but "));
        assert_true(access(path, F_OK) == 0);
        record.folder = NULL;
        unlink(path);
        rmdir(folder);
    }
}

/* Also where no report falls on them. */
static void saves_as_often_as_wanted(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    settings.recipe.batch = 1;
    settings.log_every = 1000;
    settings.save_every = 7;
    settings.last = "/nowhere/last.ckpt"; /* each try is a warning */
    assert_false(run(settings, 150, 1, &record, NULL, &error));
    assert_int_equal(record.savings, record.warnings);
    assert_int_equal(record.warnings, 1 + 150 / 7 + 2); /* at the beginning, and twice at the end */
    assert_int_equal(record.alarms, (1 + 150 / 7 + 1) / 3); /* the last try is no occasion */
}

/* A run that nobody can save is told of at the third time, and ends then if that is wished. */
static void a_run_that_is_not_saved_can_end(void **unused) {
    (void)unused;
    struct train_settings settings = SETTINGS;
    struct record record = {0};
    struct error error;
    settings.recipe.batch = 1;
    settings.save_every = 7;
    settings.last = "/nowhere/last.ckpt";
    settings.stop_if_unsaved = true;
    assert_false(run(settings, 150, 1, &record, NULL, &error));
    assert_int_equal(error.status, STATUS_FAILURE);
    assert_non_null(
        strstr(error.text, "the last 3 times that /nowhere/last.ckpt was to be written"));
    assert_non_null(strstr(error.text, "(now: epoch 1 after step 14)"));
    assert_int_equal(record.warnings, 3);
    assert_int_equal(record.alarms, 0);
    assert_int_equal(record.steps, 14);

    char folder[64], path[80];
    snprintf(folder, sizeof folder, "/tmp/trainer_test.%ld.folder", (long)getpid());
    snprintf(path, sizeof path, "%s/file", folder);
    settings.last = path; /* twice in vain does not count any more once it has worked */
    record.folder = folder;
    record.make_at = 10;
    record.remove_at = 100;
    assert_false(run(settings, 150, 1, &record, NULL, &error));
    assert_non_null(strstr(error.text, "(now: epoch 1 after step 119)"));
    record.folder = NULL;
    settings.last = last; /* what can be saved goes on */
    assert_true(run(settings, 150, 1, &record, NULL, &error));
    assert_int_equal(record.warnings, 0);
}

/* Where a number went wrong is found by taking the steps once more. */
static void divergence_names_the_first_tensor(void **unused) {
    (void)unused;
    static const struct {
        double lr, weight_decay;
        const char *found;
    } CASES[] = {
        {1e30, 0,
         "the loss of step 2 is NaN: no longer a finite number (first to go wrong: the "
         "output of conv2, with "}, /* infinite or NaN, as the order of OpenBLAS's sums has it */
        {1e37, 0, "(first to go wrong: the output of conv1, with infinite numbers)"},
        {1e-3, 1e39,
         "the loss of step 2 is NaN: no longer a finite number (first to go wrong: "
         "conv1.weight, which became NaN in step 1)"},
        {1e-3, 1e30,
         "exp_avg_sq.conv1.weight is infinite: no longer a finite number (first to go "
         "wrong: exp_avg_sq.conv1.weight, which became infinite in step 1)"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct train_settings settings = SETTINGS;
        struct record record = {0};
        struct error error;
        settings.recipe.lr = CASES[i].lr;
        settings.recipe.weight_decay = CASES[i].weight_decay;
        assert_false(run(settings, 60, 2, &record, NULL, &error));
        assert_int_equal(error.status, STATUS_DIVERGED);
        if (strstr(error.text, CASES[i].found) == NULL)
            fail_msg("'%s' is not in: %s", CASES[i].found, error.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_steps_are_pytorchs),
        cmocka_unit_test(epochs_are_made_of_pytorchs_orders_and_steps),
        cmocka_unit_test(many_runs_in_one_process),
        cmocka_unit_test(overfits_32_images),
        cmocka_unit_test(threads_and_runs_do_not_change_a_bit),
        cmocka_unit_test(nor_do_they_with_a_recipe),
        cmocka_unit_test(last_smaller_batch_counts),
        cmocka_unit_test(batch_sizes_at_the_edges),
        cmocka_unit_test(log_every_takes_means),
        cmocka_unit_test(many_steps_with_a_report_each),
        cmocka_unit_test(checkpoint_is_the_best_epochs),
        cmocka_unit_test(best_is_better_than_all_before),
        cmocka_unit_test(validation_images_choose),
        cmocka_unit_test(an_average_changes_no_training),
        cmocka_unit_test(the_last_epoch_can_be_selected),
        cmocka_unit_test(begins_with_another_network),
        cmocka_unit_test(epochs_tell_their_rate),
        cmocka_unit_test(infinite_loss_ends_the_run),
        cmocka_unit_test(infinite_statistics_end_the_run),
        cmocka_unit_test(infinite_test_loss_ends_the_run),
        cmocka_unit_test(divergence_keeps_the_last_good_checkpoint),
        cmocka_unit_test(divergence_with_an_average),
        cmocka_unit_test(divergence_names_the_first_tensor),
        cmocka_unit_test(goes_on_from_any_step),
        cmocka_unit_test(goes_on_from_any_step_of_a_recipe),
        cmocka_unit_test(reports_span_a_stop),
        cmocka_unit_test(a_longer_run_goes_on),
        cmocka_unit_test(writes_that_fail_are_tried_again),
        cmocka_unit_test(saves_as_often_as_wanted),
        cmocka_unit_test(a_run_that_is_not_saved_can_end),
    };
    snprintf(model, sizeof model, "/tmp/trainer_test.%ld.best.ckpt", (long)getpid());
    snprintf(last, sizeof last, "/tmp/trainer_test.%ld.last.ckpt", (long)getpid());
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model);
    unlink(last);
    return failed;
}
