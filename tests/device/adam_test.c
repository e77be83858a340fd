/* Adam, step by step against the reference. */
#include "model.h"
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

enum { ROWS = 3 };
static const char *const NAMES[ROWS] = {"w", "m", "v"};

/* Adam over a head's parameters, whose gradients the test uploads, in a step that is nothing else
 * but what it needs: a pass that is read, and its loss. */
struct optimizer {
    struct model model;
    struct slice rows[ROWS]; /* parameters and moments */
    struct images images;
    struct pass *pass;
    struct step *step;
};

static void optimizer_init(struct optimizer *o, struct device *d, const struct adam_case *t) {
    const struct shape shape = {20, 1, 1};
    *o = (struct optimizer){.images = images_new(1, shape, 9)};
    struct model *model = &o->model;
    const struct head *head = &model_head(model, &(struct head_case){shape, 9, 1})->head;
    struct adam *adam = &model->adam;
    model->parameters.values = uniform(model->parameters.count, -t->weights, t->weights);
    model_put(model, d);
    adam->beta1 = t->beta1, adam->beta2 = t->beta2, adam->eps = t->eps;
    adam->weight_decay = t->weight_decay;
    o->rows[0].block = adam->parameters;
    o->rows[1].block = adam->exp_avg;
    o->rows[2].block = adam->exp_avg_sq;
    o->pass = pass_of(d, &o->images, t->steps, t->steps);
    const struct op ops[] = {
        {OP_LOAD, .images = head->x}, {OP_HEAD, .head = head}, {OP_ADAM, .adam = adam}};
    o->step = d->ops->step_new(
        d, &(struct step_description){ops, COUNT(ops), .training = true, .pass = o->pass, .n = 1});
}

/* Begins `steps` steps with these rates, after others. */
static void optimizer_begin(const struct optimizer *o, const double *lr, int steps, int after) {
    begin_pass(o->model.device, o->pass, views_new(&o->images, steps, false), steps, lr, steps,
               after);
}

static void optimizer_step(const struct optimizer *o, const double *gradients) {
    const size_t rows = rows_mark(), count = o->model.adam.count;
    struct device *d = o->model.device;
    d->ops->upload(d, (struct slice){o->model.adam.gradients, 0}, floats(gradients, count), count);
    d->ops->step_run(d, o->step, 1);
    rows_release(rows);
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
    for (size_t i = 0; i < COUNT(ADAMS); i++) {
        const struct adam_case *t = &ADAMS[i];
        struct optimizer o;
        struct model *model = &o.model;
        optimizer_init(&o, d, t);
        const size_t count = model->adam.count;
        const double *gradients[] = {wide(count, t->gradients), wide(count, t->gradients),
                                     uniform(count, -t->gradients, t->gradients)};
        double *lr = zeros((size_t)t->steps);
        for (int step = 0; step < t->steps; step++)
            lr[step] = t->lr;
        optimizer_begin(&o, lr, t->steps, 0);
        for (int step = 1; step <= t->steps; step++) {
            optimizer_step(&o, gradients[step % 3]);
            reference_adam(model->parameters.values, model->exp_avg, model->exp_avg_sq,
                           gradients[step % 3], &model->adam, t->lr, step);
        }
        const double *want[] = {model->parameters.values, model->exp_avg, model->exp_avg_sq};
        char label[40];
        snprintf(label, sizeof label, "Adam, row %zu, %d steps", i, t->steps);
        for (int row = 0; row < ROWS; row++)
            check(label, NAMES[row], download(d, o.rows[row], count), want[row], count,
                  t->steps == 1 ? 1e-6 : 1e-5);
    }
    d->ops->close(d);
}

/* A pass after k steps goes on as one that has taken them. */
static void the_script_tells_the_step(void **state) {
    struct device *d = *state;
    enum { STEPS = 5 };
    struct adam_case numbers = ADAMS[3];
    struct optimizer o;
    numbers.steps = STEPS;
    optimizer_init(&o, d, &numbers);
    const size_t count = o.model.adam.count;
    const double *g = uniform(count, -1, 1), *lr = uniform(STEPS, 1e-2F, 1e-1F);
    double *after[STEPS + 1][ROWS];
    optimizer_begin(&o, lr, STEPS, 0);
    for (int step = 0; step <= STEPS; step++) {
        if (step > 0)
            optimizer_step(&o, g);
        for (int row = 0; row < ROWS; row++)
            after[step][row] = download(d, o.rows[row], count);
    }
    for (int k = STEPS - 1; k >= 0; k--) {
        for (int row = 0; row < ROWS; row++)
            d->ops->upload(d, o.rows[row], floats(after[k][row], count), count);
        optimizer_begin(&o, lr + k, 1, k);
        optimizer_step(&o, g);
        for (int row = 0; row < ROWS; row++)
            check("adam_steps", NAMES[row], download(d, o.rows[row], count), after[k + 1][row],
                  count, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(adam_is_the_reference),
        TEST(the_script_tells_the_step),
    };
    return test_backends(tests, COUNT(tests));
}
