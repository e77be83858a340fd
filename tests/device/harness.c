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

size_t rows_mark(void) {
    return owned_count;
}

void rows_release(size_t mark) {
    while (owned_count > mark)
        free(owned[--owned_count]);
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

/* ---- comparing ---- */

double norm_of(const double *row, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += isnan(row[i]) ? 0 : row[i] * row[i];
    return sqrt(sum);
}

double distance(const double *a, const double *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += isnan(a[i]) && isnan(b[i]) ? 0 : (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

void check_within(const char *label, const char *what, const double *got, const double *want,
                  size_t count, double allowed) {
    const double difference = distance(got, want, count);
    if (!(difference <= allowed))
        fail_msg("%s: %s: off by %.3g, allowed %.3g, of %.3g", label, what, difference, allowed,
                 norm_of(want, count));
}

void check(const char *label, const char *what, const double *got, const double *want, size_t count,
           double tolerance) {
    check_within(label, what, got, want, count, tolerance * norm_of(want, count));
}

void must(bool good, const struct error *error) {
    if (!good)
        fail_msg("%s", error->text);
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
    must(d->ops->download(d, to, from, count, &error), &error);
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
    must(d->ops->tensor_download(d, to, tensor, n, &error), &error);
    return doubles(to, count);
}

void run_ops(struct device *d, const struct op *ops, int count, bool training, struct pass *pass,
             int n) {
    const struct step_description description = {ops, count, training, pass, n};
    d->ops->step_run(d, d->ops->step_new(d, &description), 1);
}

/* ---- every test with a device of its own, over all backends ---- */

static const char *const NAMES[] = {"openblas", "cpu", "cudnn", "cuda"};
static const struct device_ops *tested[COUNT(NAMES)]; /* NULL where one was skipped */
static size_t reached;                                /* how many names were tried so far */
static const struct device_ops *backend;              /* the one that is tested */

struct device *opened(int threads) {
    struct device *d = NULL;
    struct error error;
    must(backend->open(&d, &(struct device_options){.threads = threads}, &error), &error);
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
    rows_release(0);
    free(owned);
    owned = NULL;
    return 0;
}

enum { SKIP = 77 }; /* to ctest, a skipped test: an instruction set that is not here */

/* Goes on to the next backend and says its name, or NULL after the last. */
static const char *next_backend(void) {
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

int test_backends(const struct CMUnitTest *tests, size_t count) {
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += _cmocka_run_group_tests(name, tests, count, NULL, NULL); /* as its macro does */
    return failures;
}
