/* Adam, step by step against the reference. */
#include "harness.h"
#include "reference.h"

#include <math.h>
#include <stdio.h>

/* Weights that begin at 0 show the updates alone. */
static const struct adam_case {
    int steps;
    double lr, beta1, beta2, eps, weight_decay;
    float weights, gradients; /* up to which size; the gradients go down to a millionth of it */
} ADAMS[] = {
    {1, 1e-3, 0.9, 0.999, 1e-8, 0, 0, 1},       {1, 1e-3, 0.9, 0.999, 1e-8, 0, 0, 1e-6F},
    {1, 1e-3, 0.9, 0.999, 1e-3, 0, 0, 0.1F},    {1, 1e-1, 0.5, 0.9, 1e-8, 0.5, 1, 0.1F},
    {1, 1e-3, 0.9, 0.999, 1e-8, 1e-4, 1, 1},    {1000, 1e-3, 0.9, 0.999, 1e-8, 0, 0, 1},
    {1000, 1e-3, 0.9, 0.999, 1e-3, 0, 0, 0.1F}, {1000, 1e-3, 0.9, 0.999, 1e-8, 1e-2, 1, 1},
    {1000, 1e-2, 0.8, 0.99, 1e-6, 1e-1, 1, 1},
};

static struct adam numbers_of(const struct adam_case *t) {
    return (struct adam){.lr = t->lr,
                         .beta1 = t->beta1,
                         .beta2 = t->beta2,
                         .eps = t->eps,
                         .weight_decay = t->weight_decay};
}

/* Of both signs, and of sizes from a millionth of the largest. */
static double *wide(size_t count, float largest) {
    double *row = uniform(count, -6, 0);
    for (size_t i = 0; i < count; i++)
        row[i] = (double)(float)((i % 2 == 0 ? 1 : -1) * (double)largest * pow(10, row[i]));
    return row;
}

/* With one thread: more would mostly wait for each other in a thousand steps of so few numbers. */
static void adam_is_the_reference(void **state) {
    (void)state;
    struct device *d = opened(1);
    enum { SIZE = 203 };
    for (size_t i = 0; i < COUNT(ADAMS); i++) {
        const struct adam_case *t = &ADAMS[i];
        double *w = uniform(SIZE, -t->weights, t->weights), *m = zeros(SIZE), *v = zeros(SIZE);
        const struct adam adam = adam_of(d, numbers_of(t), w, SIZE);
        d->ops->adam_seek(d, 0);
        const double *gradients[] = {wide(SIZE, t->gradients), wide(SIZE, t->gradients),
                                     uniform(SIZE, -t->gradients, t->gradients)};
        for (int step = 1; step <= t->steps; step++) {
            const double *g = gradients[step % 3];
            float lent[SIZE];
            for (int j = 0; j < SIZE; j++)
                lent[j] = (float)g[j];
            d->ops->upload(d, (struct slice){adam.gradients, 0}, lent, SIZE);
            d->ops->adam_step(d, &adam);
            reference_adam(w, m, v, g, &adam, step);
        }
        const double tolerance = t->steps == 1 ? 1e-6 : 1e-5;
        char label[40];
        snprintf(label, sizeof label, "Adam, row %zu, %d steps", i, t->steps);
        check(label, "w", download(d, (struct slice){adam.parameters, 0}, SIZE), w, SIZE,
              tolerance);
        check(label, "m", download(d, (struct slice){adam.exp_avg, 0}, SIZE), m, SIZE, tolerance);
        check(label, "v", download(d, (struct slice){adam.exp_avg_sq, 0}, SIZE), v, SIZE,
              tolerance);
    }
    d->ops->close(d);
}

/* adam_seek(k) and a step are step k + 1 of a training that went on from open(). */
static void adam_seek_chooses_the_step(void **state) {
    struct device *d = *state;
    enum { SIZE = 37, STEPS = 5, ROWS = 3 };
    const double *g = uniform(SIZE, -1, 1);
    const struct adam adam = adam_of(d, numbers_of(&ADAMS[3]), uniform(SIZE, -1, 1), SIZE);
    const struct slice rows[ROWS] = {{adam.parameters, 0}, {adam.exp_avg, 0}, {adam.exp_avg_sq, 0}};
    d->ops->upload(d, (struct slice){adam.gradients, 0}, floats(g, SIZE), SIZE);
    double *after[STEPS + 1][ROWS];
    for (int step = 0; step <= STEPS; step++) {
        if (step > 0)
            d->ops->adam_step(d, &adam);
        for (int row = 0; row < ROWS; row++)
            after[step][row] = download(d, rows[row], SIZE);
    }
    for (int k = STEPS - 1; k >= 0; k--) {
        for (int row = 0; row < ROWS; row++)
            d->ops->upload(d, rows[row], floats(after[k][row], SIZE), SIZE);
        d->ops->adam_seek(d, k);
        d->ops->adam_step(d, &adam);
        for (int row = 0; row < ROWS; row++)
            check("adam_seek", "state", download(d, rows[row], SIZE), after[k + 1][row], SIZE, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(adam_is_the_reference),
        TEST(adam_seek_chooses_the_step),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
