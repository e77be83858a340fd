/* What reads the data set: the batches, the loss of each with its gradient, and the results of a
 * pass. */
#include "images.h"
#include "reference.h"

#include <math.h>
#include <stdio.h>

static void check_batch(struct device *d, struct loader *loader, const struct images *images,
                        const uint32_t *order, int n, int capacity) {
    struct tensor *x = tensor_of(d, NULL, capacity, capacity, images->shape);
    d->ops->load_batch(d, x, loader, n);
    check("load_batch", "x", tensor_values(d, x, n, images->shape), pixels_of(images, order, n),
          (size_t)n * volume(images->shape), 0);
}

static void load_batch_reads_in_order(void **state) {
    struct device *d = *state;
    struct images images = images_new(23, (struct shape){3, 5, 4}, 10);
    struct images others = images_new(9, (struct shape){1, 2, 3}, 10);
    struct loader *loader = loader_of(d, &images), *other = loader_of(d, &others);
    const uint32_t *order = shuffled(23), *again = shuffled(23), *few = shuffled(9);

    rewind_to(d, loader, order, 23);
    rewind_to(d, other, few, 9);
    for (int i = 0; i < 23; i += 5) { /* the last batch is smaller */
        check_batch(d, loader, &images, order + i, i + 5 <= 23 ? 5 : 3, 5);
        check_batch(d, other, &others, few + i / 5, 1, 4);
    }
    rewind_to(d, loader, again, 7); /* a part of the data set, and not read to its end */
    check_batch(d, loader, &images, again, 5, 5);
    rewind_to(d, loader, order, 7);
    check_batch(d, loader, &images, order, 6, 6);
    check_batch(d, loader, &images, order + 6, 1, 1);
    rewind_to(d, loader, again, 23);
    check_batch(d, loader, &images, again, 23, 23);
    check_batch(d, other, &others, few + 5, 4, 4); /* goes on from where it was */
}

/* What is queued reads the order that it was queued with, though nobody waits in between. */
static void rewinds_follow_each_other(void **state) {
    struct device *d = *state;
    enum { PASSES = 3, N = 4, ALL = 9 };
    struct images images = images_new(ALL, (struct shape){1, 2, 3}, 10);
    struct loader *loader = loader_of(d, &images);
    struct tensor *x[PASSES];
    const uint32_t *orders[PASSES];
    for (int pass = 0; pass < PASSES; pass++) {
        orders[pass] = shuffled(ALL);
        x[pass] = tensor_of(d, NULL, N, N, images.shape);
    }
    for (int pass = 0; pass < PASSES; pass++) {
        rewind_to(d, loader, orders[pass], ALL);
        d->ops->load_batch(d, x[pass], loader, N);
    }
    for (int pass = 0; pass < PASSES; pass++)
        check("rewind", "x", tensor_values(d, x[pass], N, images.shape),
              pixels_of(&images, orders[pass], N), N * volume(images.shape), 0);
}

/* A pass over `images` images in batches of `batch`, with logits low, low + spacing, ... (values of
 * them): few, so that several are the largest. */
static const struct loss_case {
    int classes, images, batch;
    double low, spacing;
    uint32_t values;
    bool training;
} LOSSES[] = {
    {10, 1, 1, -3, 1.0 / 1024, 6144, true},
    {10, 43, 10, -3, 1.0 / 1024, 6144, true},
    {10, 66, 33, -3, 1.0 / 1024, 6144, true},
    {10, 43, 10, -3, 1.0 / 1024, 6144, false},
    {10, 43, 10, -1, 1, 3, true},
    {10, 43, 10, 5, 1, 1, true},
    {10, 43, 10, -1e4, 1e4, 3, true},
    {10, 43, 10, -1e4, 1e4, 3, false},
    {10, 43, 10, 1e4, 0.5, 8, true},
    {2, 9, 4, -1, 0.125, 16, true},
    {1, 3, 2, -1, 0.125, 16, true},
    {37, 20, 7, -3, 0.125, 48, true},
    {3, 300, 300, -3, 0.125, 48, true},
};

static void cross_entropy_is_the_reference(void **state) {
    struct device *d = *state;
    for (size_t i = 0; i < COUNT(LOSSES); i++) {
        const struct loss_case *t = &LOSSES[i];
        const struct shape row = {t->classes, 1, 1};
        const int spare = i % 2 == 0 ? 0 : 3, steps = (t->images + t->batch - 1) / t->batch;
        struct images images = images_new(t->images + 5, (struct shape){1, 1, 2}, t->classes);
        struct loader *loader = loader_of(d, &images);
        struct tensor *x = tensor_of(d, NULL, t->batch, t->batch + spare, images.shape);
        uint8_t *labels = row_new((size_t)t->batch, 1), *predicted = row_new((size_t)t->images, 1);
        double *loss = zeros((size_t)steps);
        char label[80];
        snprintf(label, sizeof label, "cross entropy, %d classes, %d of %d images, from %g by %g",
                 t->classes, t->batch, t->images, t->low, t->spacing);
        for (int pass = 0; pass < 2; pass++) { /* the second forgets the first */
            const uint32_t *order = shuffled(images.count);
            rewind_to(d, loader, order, t->images);
            for (int step = 0; step < steps; step++) {
                const int first = step * t->batch;
                const int n = first + t->batch <= t->images ? t->batch : t->images - first;
                const size_t count = (size_t)(n * t->classes);
                const double *z = grid(count, t->low, t->spacing, t->values);
                double *dlogits = zeros(count);
                for (int j = 0; j < n; j++)
                    labels[j] = record_of(&images, order[first + j])[0];
                loss[step] =
                    reference_cross_entropy(dlogits, predicted + first, z, labels, t->classes, n);

                struct tensor *logits = tensor_of(d, z, n, t->batch + spare, row);
                struct tensor *got = tensor_of(d, NULL, n, t->batch + spare, row);
                d->ops->load_batch(d, x, loader, n);
                d->ops->cross_entropy(d, t->training ? got : NULL, logits, loader, n);
                if (t->training)
                    check(label, "dlogits", tensor_values(d, got, n, row), dlogits, count, 1e-6);
                check(label, "loss so far", losses(d, loader, step, 1), loss + step, 1, 1e-6);
                check_predictions(d, loader, label, predicted, first + n);
            }
            for (int first = 0; first < steps; first++)
                for (int step = first; step < steps; step++)
                    check(label, "loss", losses(d, loader, first, steps - first) + step - first,
                          loss + step, 1, 1e-6);
        }
    }
}

/* The trainer tells from the loss that training has diverged. */
static void the_loss_of_nan_is_nan(void **state) {
    struct device *d = *state;
    enum { N = 3, CLASSES = 10 };
    struct images images = images_new(N, (struct shape){1, 1, 1}, CLASSES);
    struct loader *loader = loader_of(d, &images);
    struct tensor *x = tensor_of(d, NULL, N, N, images.shape);
    for (int at = 0; at < N * CLASSES; at++) {
        double *z = uniform(N * CLASSES, -1, 1);
        z[at] = NAN;
        rewind_to(d, loader, shuffled(N), N);
        d->ops->load_batch(d, x, loader, N);
        d->ops->cross_entropy(d, NULL, tensor_of(d, z, N, N, (struct shape){CLASSES, 1, 1}), loader,
                              N);
        assert_true(isnan(losses(d, loader, 0, 1)[0]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(load_batch_reads_in_order),
        TEST(rewinds_follow_each_other),
        TEST(cross_entropy_is_the_reference),
        TEST(the_loss_of_nan_is_nan),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
