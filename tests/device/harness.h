/* What the tests of the ops share: every op of every backend is measured against reference.c.
 *
 * The measure is the relative error |got - want| / |want| of a whole result, in the L2 norm. Before
 * an op runs its outputs hold NaN, and so does what it must not read: the part of a tensor behind
 * the batch, and the neighbours of a slice in its block, which are checked to be NaN afterwards.
 *
 * On the host all numbers are double; on the device they are float. */
#pragma once

#include "base/random.h"
#include "device/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- host memory: rows of numbers, freed when a test ends ---- */

void *row_new(size_t count, size_t size);
double *zeros(size_t count);

/* Frees the rows that were made since rows_mark(), before the test ends. */
size_t rows_mark(void);
void rows_release(size_t mark);

/* ---- test data; all of it can be written as float ---- */

extern struct random dice; /* every test begins with the same */

double *uniform(size_t count, float low, float high);

/* low, low + spacing, ... (values of them): few values, so that equals abound. */
double *grid(size_t count, double low, double spacing, uint32_t values);

/* ---- comparing ---- */

/* The L2 norm of a row, and of the difference of two; a NaN counts nothing, but where only one of
 * the two has it the difference is NaN. */
double norm_of(const double *row, size_t count);
double distance(const double *a, const double *b, size_t count);

/* Fails if the distance is above what is allowed; or above the tolerance times the norm of `want`.
 */
void check_within(const char *label, const char *what, const double *got, const double *want,
                  size_t count, double allowed);
void check(const char *label, const char *what, const double *got, const double *want, size_t count,
           double tolerance);

/* Fails if a call of the device did. */
void must(bool good, const struct error *error);

/* ---- a device's memory, in doubles; values NULL: NaN, for an output ---- */

float *floats(const double *from, size_t count);
double *doubles(const float *from, size_t count);

double *download(struct device *d, struct slice from, size_t count);
struct block *block_of(struct device *d, const double *values, size_t count);

/* A slice inside a block of NaN; slice_values() fails if something wrote beside it. */
struct slice slice_of(struct device *d, const double *values, size_t count);
double *slice_values(struct device *d, struct slice slice, size_t count);

struct shape {
    int c, h, w;
};

size_t volume(struct shape shape);

/* A tensor for `capacity` images, of which the first n have values. */
struct tensor *tensor_of(struct device *d, const double *values, int n, int capacity,
                         struct shape shape);
double *tensor_values(struct device *d, const struct tensor *tensor, int n, struct shape shape);

/* Makes a step of these ops and runs it once. */
void run_ops(struct device *d, const struct op *ops, int count, bool training, struct pass *pass,
             int n);

/* ---- every test with a device of its own, over all backends ---- */

/* Runs the tests on all backends; to be returned by main(). Leaves out, with a message, what cannot
 * be used here and what was tested under another name. With BACKEND in the environment there is
 * that one alone, and it is a failure if it cannot be used. */
int test_backends(const struct CMUnitTest *tests, size_t count);

/* A device of the backend that is tested. */
struct device *opened(int threads);

/* A test's state is a device with two threads, or NULL outside of test_backends(). */
#define TEST(function) cmocka_unit_test_setup_teardown(function, begin_test, end_test)
int begin_test(void **state);
int end_test(void **state);
