#include "harness.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- host memory: rows of numbers, freed when a test ends ---- */

static void **owned;
static size_t owned_count;

void *row_new(size_t count, size_t size) {
    owned = realloc(owned, (owned_count + 1) * sizeof *owned);
    assert_non_null(owned);
    return owned[owned_count++] = memory_new(count, size);
}

static void rows_free(void) {
    while (owned_count > 0)
        free(owned[--owned_count]);
    free(owned);
    owned = NULL;
}

double *zeros(size_t count) {
    return row_new(count, sizeof(double));
}

/* ---- test data; all of it can be written as float ---- */

struct random dice;

double *uniform(size_t count, float low, float high) {
    double *row = zeros(count);
    for (size_t i = 0; i < count; i++)
        row[i] = (double)random_uniform(&dice, low, high);
    return row;
}

double *grid(size_t count, double low, double spacing, uint32_t values) {
    double *row = zeros(count);
    for (size_t i = 0; i < count; i++)
        row[i] = low + spacing * (random_draw(&dice) % values);
    return row;
}

double *separated(size_t count, double spacing) {
    double *row = zeros(count);
    uint32_t *order = row_new(count, sizeof *order);
    random_permutation(&dice, order, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        row[i] = spacing * ((double)order[i] - (double)count / 2);
    return row;
}

/* ---- comparing ---- */

void check(const char *label, const char *what, const double *got, const double *want, size_t count,
           double tolerance) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]) && isnan(want[i]))
            continue;
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(sqrt(difference) <= tolerance * sqrt(norm)))
        fail_msg("%s: %s: relative error %.3g, allowed %.3g", label, what, sqrt(difference / norm),
                 tolerance);
}

/* ---- a device's memory, in doubles ---- */

float *floats(const double *from, size_t count) {
    float *to = row_new(count, sizeof *to);
    for (size_t i = 0; i < count; i++)
        to[i] = from == NULL ? NAN : (float)from[i];
    return to;
}

double *doubles(const float *from, size_t count) {
    double *to = zeros(count);
    for (size_t i = 0; i < count; i++)
        to[i] = (double)from[i];
    return to;
}

double *download(struct device *d, struct slice from, size_t count) {
    struct error error;
    float *to = floats(NULL, count);
    if (!d->ops->download(d, to, from, count, &error))
        fail_msg("%s", error.text);
    return doubles(to, count);
}

struct block *block_of(struct device *d, const double *values, size_t count) {
    struct block *block = d->ops->block_new(d, count);
    d->ops->upload(d, (struct slice){block, 0}, floats(values, count), count);
    return block;
}

enum { GUARD = 3 }; /* numbers before and behind a slice; odd, so it is not aligned to anything */

struct slice slice_of(struct device *d, const double *values, size_t count) {
    struct slice slice = {block_of(d, NULL, count + 2 * GUARD), GUARD};
    d->ops->upload(d, slice, floats(values, count), count);
    return slice;
}

double *slice_values(struct device *d, struct slice slice, size_t count) {
    double *block = download(d, (struct slice){slice.block, 0}, count + 2 * GUARD);
    for (size_t i = 0; i < GUARD; i++)
        assert_true(isnan(block[i]) && isnan(block[GUARD + count + i]));
    return block + GUARD;
}

size_t volume(struct shape shape) {
    return (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
}

struct tensor *tensor_of(struct device *d, const double *values, int n, int capacity,
                         struct shape shape) {
    struct tensor *tensor = d->ops->tensor_new(d, capacity, shape.c, shape.h, shape.w);
    d->ops->tensor_upload(d, tensor, floats(NULL, (size_t)capacity * volume(shape)), capacity);
    d->ops->tensor_upload(d, tensor, floats(values, (size_t)n * volume(shape)), n);
    return tensor;
}

double *tensor_values(struct device *d, const struct tensor *tensor, int n, struct shape shape) {
    const size_t count = (size_t)n * volume(shape);
    struct error error;
    float *to = floats(NULL, count);
    if (!d->ops->tensor_download(d, to, tensor, n, &error))
        fail_msg("%s", error.text);
    return doubles(to, count);
}

struct adam adam_of(struct device *d, struct adam numbers, const double *weights, size_t count) {
    numbers.count = count;
    numbers.parameters = block_of(d, weights, count);
    numbers.gradients = block_of(d, NULL, count);
    numbers.exp_avg = d->ops->block_new(d, count);
    numbers.exp_avg_sq = d->ops->block_new(d, count);
    return numbers;
}

/* ---- every test with a device of its own, over all backends ---- */

static const char *const NAMES[] = {"openblas", "cpu", "cudnn", "cuda"};
static const struct device_ops *tested[COUNT(NAMES)]; /* NULL where one was skipped */
static size_t reached;                                /* how many names were tried so far */
static const struct device_ops *backend;              /* the one that is tested */

struct device *opened(int threads) {
    struct device *d = NULL;
    struct error error;
    if (!backend->open(&d, &(struct device_options){.threads = threads}, &error))
        fail_msg("%s", error.text);
    return d;
}

int begin_test(void **state) {
    random_seed(&dice, 1);
    *state = backend == NULL ? NULL : opened(2);
    return 0;
}

int end_test(void **state) {
    struct device *d = *state;
    if (d != NULL)
        d->ops->close(d);
    rows_free();
    return 0;
}

enum { SKIP = 77 }; /* to ctest, a skipped test: an instruction set that is not here */

const char *next_backend(void) {
    const char *only = getenv("BACKEND");
    while (reached < COUNT(NAMES)) {
        const size_t i = reached++;
        struct error error;
        struct device *d;
        if (only != NULL && strcmp(only, NAMES[i]) != 0)
            continue;
        const struct device_ops *ops = device_find(NAMES[i], &error);
        bool again = false;
        for (size_t j = 0; j < i; j++)
            again = again || (ops != NULL && ops == tested[j]);
        if (again) {
            print_message("skipped: --device %s is %s, which is tested already\n", NAMES[i],
                          ops->name);
            continue;
        }
        if (ops == NULL || !ops->open(&d, &(struct device_options){.threads = 2}, &error)) {
            if (only != NULL) {
                print_error("%s: %s\n", only, error.text);
                exit(strstr(error.text, "this processor has no") != NULL ? SKIP : EXIT_FAILURE);
            }
            print_message("skipped: %s\n", error.text);
            continue;
        }
        ops->close(d);
        backend = tested[i] = ops;
        return NAMES[i];
    }
    if (only != NULL && backend == NULL) {
        print_error("BACKEND=%s: there is no such backend\n", only);
        exit(EXIT_FAILURE);
    }
    return NULL;
}
