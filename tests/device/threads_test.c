/* However many threads a device has, its results are the same to the bit. */
#include "model.h"

#include <string.h>

static const int THREADS[] = {1, 2, 3, 7, 16}, BATCHES[] = {1, 10, 16, 100, 128, 145};

static void same_bits(const char *label, const char *what, int threads, const double *got,
                      const double *want, size_t count) {
    if (count > 0 && memcmp(got, want, count * sizeof *got) != 0)
        fail_msg("%s: %s differs with %d threads", label, what, threads);
}

static void layers_have_the_same_bits(void **state) {
    (void)state;
    for (size_t batch = 0; batch < COUNT(BATCHES); batch++) {
        const int n = BATCHES[batch];
        const size_t rows = rows_mark();
        const struct stage_case stages[] = {
            {12, 8, 5, 1, 16, 16, n, 1, PLAIN, 1e-5F, 0.1F},
            {12, 11, 5, 1, 16, 16, n, 2, PLAIN, 1e-5F, 0.1F},
            {3, 4, 3, 2, 9, 8, n, 1, PLAIN, 1e-5F, 0.1F},
            {3, 4, 3, 1, 9, 6, n, 1, PLAIN, 1e-5F, 0.1F},
            {1, 1, 1, 4, 1, 1, n, 1, PLAIN, 1e-5F, 0.1F}, /* a part may be all border */
            {2, 5, 1, 0, 9, 8, n, 2, TIES, 1e-5F, 0.1F},
            {3, 12, 1, 0, 7, 7, n, 1, TIES, 1e-5F, 0.1F}};
        struct model models[COUNT(stages) + 1] = {0};
        struct results first[COUNT(models)];
        for (size_t i = 0; i < COUNT(stages); i++)
            model_stage(&models[i], &stages[i]);
        model_head(&models[COUNT(stages)], &(struct head_case){{24, 10, 10}, 10, n});
        for (size_t j = 0; j < COUNT(THREADS); j++) {
            struct device *d = opened(THREADS[j]);
            for (size_t i = 0; i < COUNT(models); i++) {
                const struct results r = model_run(&models[i], d, NULL);
                if (j == 0)
                    first[i] = r;
                for (int k = 0; k < RESULTS; k++)
                    same_bits(models[i].layers[0].label, result_names[k], THREADS[j],
                              r.of[k].values, first[i].of[k].values, r.of[k].count);
            }
            d->ops->close(d);
        }
        rows_release(rows);
    }
}

static void trainings_have_the_same_bits(void **state) {
    (void)state;
    enum { N = 37, STEPS = 5 };
    const struct images images = images_new(N, MODEL_IMAGE, MODEL_CLASSES);
    const struct view *views = views_new(&images, N * STEPS, true);
    const double *schedule = uniform(STEPS, 1e-3F, 1e-1F);
    const struct model model = model_small(N);
    const size_t parameters = model.parameters.count, statistics = model.statistics.count;
    struct {
        double *parameters, *averages, *statistics, *losses, *logits;
    } r, first = {0};
    for (size_t j = 0; j < COUNT(THREADS); j++) {
        struct device *d = opened(THREADS[j]);
        struct model m = model;
        model_put(&m, d);
        struct pass *pass = pass_of(d, &images, N * STEPS, STEPS);
        begin_pass(d, pass, views, N * STEPS, schedule, STEPS, 0);
        d->ops->step_run(d, model_step(&m, pass, true, N), STEPS);
        r.parameters = download(d, (struct slice){m.weights, 0}, parameters);
        r.averages = download(d, (struct slice){m.average_block, 0}, parameters);
        r.statistics = download(d, (struct slice){m.running, 0}, statistics);
        r.losses = losses(d, pass, 0, STEPS);
        r.logits = logits(d, pass, N * STEPS, MODEL_CLASSES);
        d->ops->close(d);
        if (j == 0)
            first = r;
        same_bits("training", "w", THREADS[j], r.parameters, first.parameters, parameters);
        same_bits("training", "average", THREADS[j], r.averages, first.averages, parameters);
        same_bits("training", "statistics", THREADS[j], r.statistics, first.statistics, statistics);
        same_bits("training", "loss", THREADS[j], r.losses, first.losses, STEPS);
        same_bits("training", "logits", THREADS[j], r.logits, first.logits,
                  (size_t)(N * STEPS * MODEL_CLASSES));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(layers_have_the_same_bits),
        TEST(trainings_have_the_same_bits),
    };
    return test_backends(tests, COUNT(tests));
}
