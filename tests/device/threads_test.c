/* However many threads a device has, its results are the same to the bit. */
#include "layer.h"

#include <string.h>

static void same_bits(const char *label, const char *what, int threads, const double *got,
                      const double *want, size_t count) {
    if (memcmp(got, want, count * sizeof *got) != 0)
        fail_msg("%s: %s differs with %d threads", label, what, threads);
}

static void the_number_of_threads_changes_no_bit(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8}, batches[] = {10, 15, 65, 145};
    for (size_t batch = 0; batch < COUNT(batches); batch++) {
        const int n = batches[batch];
        const struct layer layers[] = {
            conv_layer(&(struct conv_case){12, 8, 5, 1, 16, 16, n}),
            conv_layer(&(struct conv_case){12, 11, 5, 1, 16, 16, n}),
            conv_layer(&(struct conv_case){3, 4, 3, 2, 9, 8, n}),
            conv_layer(&(struct conv_case){3, 4, 3, 1, 9, 6, n}),
            conv_layer(&(struct conv_case){1, 1, 1, 4, 1, 1, n}), /* a part may be all border */
            norm_layer(&(struct norm_case){5, 9, 8, 2, n, PLAIN, 1e-5F, 0.1F}),
            norm_layer(&(struct norm_case){12, 7, 7, 1, n, PLAIN, 1e-5F, 0.1F}),
            linear_layer(&(struct linear_case){{24, 10, 10}, 10, n})};
        for (size_t i = 0; i < COUNT(layers); i++) {
            const struct layer *l = &layers[i];
            struct results first = {0};
            for (size_t j = 0; j < COUNT(threads); j++) {
                struct device *d = opened(threads[j]);
                const struct results r = on_device(d, l, true);
                d->ops->close(d);
                if (j == 0)
                    first = r;
                same_bits(l->label, "y", threads[j], r.y, first.y, outputs(l));
                same_bits(l->label, "dx", threads[j], r.dx, first.dx, inputs(l));
                same_bits(l->label, "dweight", threads[j], r.dweight, first.dweight, l->weights);
                same_bits(l->label, "dbias", threads[j], r.dbias, first.dbias, l->biases);
                if (l->kind != NORM)
                    continue;
                same_bits(l->label, "mean", threads[j], r.running_mean, first.running_mean,
                          l->biases);
                same_bits(l->label, "var", threads[j], r.running_var, first.running_var, l->biases);
            }
        }
    }

    enum { SIZE = 1037, STEPS = 5 };
    const struct adam numbers = {
        .lr = 1e-1, .beta1 = 0.5, .beta2 = 0.9, .eps = 1e-8, .weight_decay = 0.5};
    const double *w = uniform(SIZE, -1, 1), *g = uniform(SIZE, -1, 1), *first = NULL;
    for (size_t j = 0; j < COUNT(threads); j++) {
        struct device *d = opened(threads[j]);
        const struct adam adam = adam_of(d, numbers, w, SIZE);
        d->ops->upload(d, (struct slice){adam.gradients, 0}, floats(g, SIZE), SIZE);
        for (int step = 0; step < STEPS; step++)
            d->ops->adam_step(d, &adam);
        const double *got = download(d, (struct slice){adam.parameters, 0}, SIZE);
        d->ops->close(d);
        first = j == 0 ? got : first;
        same_bits("Adam", "w", threads[j], got, first, SIZE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_number_of_threads_changes_no_bit),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
