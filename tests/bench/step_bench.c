/* Measures the training step of a device.
 *
 *     step_bench DEVICE PRECISION BATCH [SECONDS [RECIPE]]     PRECISION: float32 or tf32
 *
 * RECIPE: tutorial, or best, here with label smoothing and an average as well, so that everything
 * is on.
 * The network trains on random images as src/train/trainer.c trains it. Two figures, after a
 * warm-up: the time of a step, over runs of a few steps that are each waited for, for SECONDS (1)
 * and over 60 runs at least; and the time of a whole epoch queued as the trainer queues it, the
 * better of two. Prints one line of JSON. */
#include "base/clock.h"
#include "base/memory.h"
#include "train/learner.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    IMAGES = 50000,
    RECORD = 1 + CIFAR10_CHANNELS * CIFAR10_SIDE * CIFAR10_SIDE,
    LONGEST_RUN = 32, /* steps; of at most so many images together, */
    RUN_IMAGES = 1024,
    RUNS = 60,
};

static const double WARM_UP_SECONDS = 0.5; /* a GPU raises its clock when it has work */
static const double QUEUED_SECONDS = 0.05; /* of a run of the epoch, as in the trainer */

struct bench {
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    int64_t whole; /* steps of whole batches in an epoch */
    int64_t next;  /* step of the epoch */
};

static void stop(const char *text, int status) {
    fprintf(stderr, "step_bench: %s\n", text);
    exit(status);
}

/* Random labels and pixels, since zeros compute faster on some GPUs. */
static uint8_t *draw_records(struct random *random) {
    uint8_t *records = memory_new(IMAGES, RECORD);
    for (size_t i = 0; i < (size_t)IMAGES * RECORD; i++)
        records[i] = (uint8_t)(random_draw(random) >> 8);
    for (size_t i = 0; i < IMAGES; i++)
        records[i * RECORD] %= CIFAR10_CLASSES;
    return records;
}

static void set_up(struct bench *b, struct device *device, int batch, bool everything) {
    struct learner_settings settings = {.recipe =
                                            recipes[everything ? RECIPE_BEST : RECIPE_TUTORIAL]};
    struct random random;
    *b = (struct bench){.device = device, .whole = IMAGES / batch};
    settings.recipe.batch = batch;
    if (everything) {
        settings.recipe.label_smoothing = 0.1;
        settings.recipe.average = AVERAGE_EMA;
    }
    random_seed(&random, 0);
    b->images = (struct cifar10){draw_records(&random), IMAGES, CIFAR10_CLASSES};
    const struct resident data = resident_new(device, &b->images);
    learner_init(&b->learner, device, &data, &settings, NULL);
    learner_put(&b->learner);
}

/* Goes to step number `step` of another epoch. */
static void begin_epoch(struct bench *b, int64_t step) {
    struct learner *l = &b->learner;
    l->state.step = b->next = step;
    learner_begin(l);
    l->state.random = l->drawn;
}

static void wait_for(struct bench *b, int64_t step) {
    struct error error;
    float loss;
    if (!steps_losses(&b->learner.steps, &loss, step, 1, &error))
        stop(error.text, STATUS_DEVICE);
}

/* Runs the next `steps` steps of the epoch and waits for them; in seconds. */
static double run(struct bench *b, int64_t steps) {
    const double began = clock_seconds();
    steps_run(&b->learner.steps, b->next, steps);
    b->next += steps;
    wait_for(b, b->next - 1);
    return clock_seconds() - began;
}

/* The same of whole batches, where need be those of the next epoch. */
static double run_whole(struct bench *b, int64_t steps) {
    if (b->next + steps > b->whole) {
        begin_epoch(b, 0);
        run(b, 1); /* which also waits for the new order to arrive */
    }
    return run(b, steps);
}

/* Until all is loaded, chosen and recorded: also the smaller step at the end of a pass, which is
 * recorded the second time it runs. */
static void warm_up(struct bench *b, int64_t steps) {
    for (int i = 0; i < 2 && b->whole < b->learner.steps.count; i++) {
        begin_epoch(b, b->whole);
        run(b, 1);
    }
    begin_epoch(b, 0);
    run(b, 1);
    run_whole(b, 2);
    run_whole(b, steps);
    if (2 * steps + 1 < b->whole)
        run_whole(b, 2 * steps + 1);
    for (const double began = clock_seconds(); clock_seconds() - began < WARM_UP_SECONDS;)
        run_whole(b, steps);
}

/* A whole pass. Where the device runs ahead, a run is queued before the one before is waited for.
 */
static double epoch(struct bench *b, int64_t queued) {
    const int64_t steps = b->learner.steps.count;
    const double began = clock_seconds();
    int64_t waited_for = 0;
    begin_epoch(b, 0);
    while (b->next < steps) {
        const int64_t count = queued < steps - b->next ? queued : steps - b->next;
        steps_run(&b->learner.steps, b->next, count);
        if (!b->device->runs_ahead)
            waited_for = b->next + count;
        if (waited_for > 0)
            wait_for(b, waited_for - 1);
        b->next += count;
        waited_for = b->next;
    }
    wait_for(b, steps - 1);
    return clock_seconds() - began;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds a step. */
struct times {
    double median, p95;
    size_t runs;
};

/* Over runs of `steps` steps, for so many seconds at least. */
static struct times step_times(struct bench *b, int64_t steps, double seconds) {
    struct times times = {0};
    double *row = NULL, total = 0;
    for (; times.runs < RUNS || total < seconds; times.runs++) {
        const double time = run_whole(b, steps);
        row = realloc(row, (times.runs + 1) * sizeof *row);
        require(row != NULL);
        row[times.runs] = 1e6 * time / (double)steps;
        total += time;
    }
    qsort(row, times.runs, sizeof *row, compare);
    times.median = row[times.runs / 2];
    times.p95 = row[(times.runs * 95 - 1) / 100];
    free(row);
    return times;
}

static void print(const struct bench *b, const char *precision, int64_t steps,
                  const struct times *times, double epoch_seconds) {
    const struct device_ops *op = b->device->ops;
    char description[512];
    op->describe(b->device, description, sizeof description);
    json_t *result = json_pack(
        "{s:s, s:s, s:i, s:f, s:f, s:I, s:I, s:f, s:f, s:I, s:s, s:i}", "device", op->name,
        "precision", precision, "batch", b->learner.steps.batch, "us_median", times->median,
        "us_p95", times->p95, "runs", (json_int_t)times->runs, "steps_a_run", (json_int_t)steps,
        "epoch_seconds", epoch_seconds, "images_per_second", IMAGES / epoch_seconds, "memory_bytes",
        (json_int_t)op->memory(b->device), "description", description, "threads",
        b->device->threads);
    require(result != NULL);
    json_dumpf(result, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(result);
}

int main(int argc, char **argv) {
    struct device *device;
    struct error error;
    struct bench b;
    char *end = NULL;
    const long batch = argc > 3 ? strtol(argv[3], &end, 10) : 0;
    const double seconds = argc > 4 ? atof(argv[4]) : 1;
    const char *recipe = argc > 5 ? argv[5] : "tutorial";
    const bool everything = strcmp(recipe, "best") == 0;
    if (argc < 4 || argc > 6 || (!everything && strcmp(recipe, "tutorial") != 0) || *end != '\0' ||
        batch < 1 || batch > IMAGES / 4 ||
        (strcmp(argv[2], "float32") != 0 && strcmp(argv[2], "tf32") != 0))
        stop("usage: step_bench DEVICE float32|tf32 BATCH [SECONDS [tutorial|best]]", STATUS_USAGE);
    const struct device_options options = {.threads = (int)sysconf(_SC_NPROCESSORS_ONLN),
                                           .tf32 = strcmp(argv[2], "tf32") == 0};
    if (!device_open(&device, argv[1], &options, &error))
        stop(error.text, STATUS_DEVICE);
    set_up(&b, device, (int)batch, everything);

    const int64_t fit = RUN_IMAGES / batch;
    const int64_t steps = fit > LONGEST_RUN ? LONGEST_RUN : fit > 1 ? fit : 1;
    warm_up(&b, steps);
    const struct times times = step_times(&b, steps, seconds);
    const int64_t queued = 1 + (int64_t)(QUEUED_SECONDS / (1e-6 * times.median));
    const double first = epoch(&b, queued), second = epoch(&b, queued);
    print(&b, argv[2], steps, &times, first < second ? first : second);

    learner_free(&b.learner);
    device->ops->close(device);
    cifar10_free(&b.images);
    return 0;
}
