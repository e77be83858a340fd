/* The optimisers and the average, step by step against the reference. */
#include "images.h"
#include "reference.h"

#include <math.h>
#include <stdio.h>

/* clang misses the blocks, which are the test's to make */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* Gradients go down to a millionth of their size. Weights of size 0 show the updates alone. The
 * blocks have room before, between and behind what the optimiser has. */
static const struct optimizer_case {
    int steps;
    float weights, gradients; /* up to which size */
    size_t count;             /* floats of a block */
    struct op_numbers {
        int kind;
        struct adam adam;
        struct sgd sgd;
        struct muon muon;
        double decay; /* of an average */
    } of;
} CASES[] = {
#define ADAM(...)                                                                                  \
    {                                                                                              \
        .kind = OP_ADAM, .adam = { __VA_ARGS__, .ranges = 2, .range = {{3, 150}, {160, 40}} }      \
    }
    {1, 0, 1, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 0)},
    {1, 0, 1e-6F, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 0)},
    {1, 0, 0.1F, 205, ADAM(1e-3, 0.9, 0.999, 1e-3, 0)},
    {1, 1, 0.1F, 205, ADAM(1e-1, 0.5, 0.9, 1e-8, 0.5)},
    {1, 1, 1, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 1e-4)},
    {1, 1, 0.1F, 205, ADAM(1e-1, 0.5, 0.9, 1e-8, 0.5, true)},
    {1000, 0, 1, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 0)},
    {1000, 0, 0.1F, 205, ADAM(1e-3, 0.9, 0.999, 1e-3, 0)},
    {1000, 1, 1, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 1e-2)},
    {1000, 1, 1, 205, ADAM(1e-2, 0.8, 0.99, 1e-6, 1e-1)},
    {1000, 1, 1, 205, ADAM(1e-3, 0.9, 0.999, 1e-8, 1e-2, true)},
    {1000, 1, 1, 205, ADAM(1e-2, 0.8, 0.99, 1e-6, 1e-1, true)},
#undef ADAM
    /* as many ranges as there may be, some of them of nothing or of one; larger than a block of
     * threads */
    {2,
     1,
     1,
     40,
     {.kind = OP_ADAM,
      .adam = {1e-2,
               0.9,
               0.999,
               1e-8,
               1e-2,
               true,
               8,
               {{0, 1}, {1, 1}, {3, 0}, {4, 5}, {20, 1}, {22, 2}, {25, 14}, {40, 0}}}}},
    {3,
     1,
     1,
     5000,
     {.kind = OP_ADAM,
      .adam = {1e-2, 0.9, 0.999, 1e-8, 1e-2, true, 3, {{1, 511}, {600, 1025}, {1700, 3300}}}}},
    {1, 0, 1, 205, {.kind = OP_SGD, .sgd = {0.1, 0, 0, 1, {{3, 200}}}}},
    {1, 1, 1, 205, {.kind = OP_SGD, .sgd = {0.1, 0.9, 1e-2, 2, {{0, 100}, {101, 99}}}}},
    {1000, 1, 1, 205, {.kind = OP_SGD, .sgd = {1e-3, 0.9, 1e-2, 2, {{0, 100}, {101, 104}}}}},
    {1000, 0, 1, 205, {.kind = OP_SGD, .sgd = {1e-2, 0.99, 0, 1, {{3, 200}}}}},
    {3,
     1,
     1,
     5000,
     {.kind = OP_SGD, .sgd = {0.1, 0.9, 1e-2, 3, {{1, 511}, {600, 1025}, {1700, 3300}}}}},
#define MUON(offset, rows, columns)                                                                \
    {                                                                                              \
        .kind = OP_MUON, .muon = { 0.02, 0.95, 1, {{offset, rows, columns}} }                      \
    }
    {1, 1, 1, 910, MUON(3, 12, 75)},
    {1, 0, 1, 910, MUON(3, 12, 75)},
    {10, 1, 1e-6F, 910, MUON(3, 12, 75)},
    {10, 1, 0, 910, MUON(3, 12, 75)},
    {10, 0, 0, 910, MUON(3, 12, 75)},
    {10, 1, 1, 14410, MUON(3, 24, 600)},
    {10, 1, 1, 4, MUON(1, 1, 1)},
    {10, 1, 1, 12, MUON(1, 1, 9)},
    {10, 1, 1, 40, MUON(3, 5, 7)},
    {10, 1, 1, 40, MUON(0, 6, 6)},
    {10, 1, 1, 1283, MUON(3, 32, 40)},
    {10, 1, 1, 1030, MUON(0, 32, 32)},
    {10, 1, 1, 20000, MUON(9, 31, 601)},
    {10, 1, 1, 2000, MUON(9, 9, 64)},
    {10, 1, 1, 2000, MUON(9, 8, 65)},
#undef MUON
    {10,
     1,
     1,
     26120,
     {.kind = OP_MUON,
      .muon = {0.02, 0.9, 4, {{3, 12, 75}, {910, 12, 300}, {4515, 24, 300}, {11717, 24, 600}}}}},
    {10, 1, 1, 200, {.kind = OP_MUON, .muon = {0.02, 0, 3, {{100, 2, 40}, {3, 1, 5}, {8, 7, 9}}}}},
    {1, 1, 1, 205, {.kind = OP_AVERAGE, .decay = 0.9}},
    {10, 1, 1, 205, {.kind = OP_AVERAGE, .decay = 0.9}},
    {10, 1, 1, 1300, {.kind = OP_AVERAGE, .decay = 0}},
    {1000, 1, 1, 205, {.kind = OP_AVERAGE, .decay = 0.999}},
};

static const char *const kinds[] = {
    [OP_ADAM] = "Adam", [OP_SGD] = "SGD", [OP_MUON] = "Muon", [OP_AVERAGE] = "average"};

/* W, M and V are the parameters, with their momentum or moments; for an average W is the average,
 * and the gradients are what it is of. */
enum { W, M, V, ROWS };
static const char *const names[ROWS] = {"w", "m", "v"};

/* An optimiser over blocks of its own, in a step that is nothing else but what it needs, a pass
 * that is read, and its twin on the host. */
struct optimizer {
    struct device *device;
    const struct optimizer_case *t;
    struct op_numbers numbers; /* with these blocks: */
    struct average average;
    struct block *rows[ROWS], *gradients;
    double *twin[ROWS];
    double *mask; /* mask_of() */
    struct images images;
    struct pass *pass;
    struct step *step;
};

/* 1 for each parameter that the optimiser has, 0 for others. */
static double *mask_of(const struct optimizer_case *t) {
    double *mask = zeros(t->count);
    const bool is_adam = t->of.kind == OP_ADAM;
    const struct range *range = is_adam ? t->of.adam.range : t->of.sgd.range;
    const int ranges = is_adam ? t->of.adam.ranges : t->of.sgd.ranges;
    const struct matrix *matrix = t->of.muon.matrix;
    for (size_t i = 0; i < t->count; i++) {
        mask[i] = t->of.kind == OP_AVERAGE;
        for (int r = 0; r < ranges; r++)
            mask[i] += i >= range[r].offset && i < range[r].offset + range[r].count;
        for (int k = 0; k < t->of.muon.matrices; k++) {
            const size_t count = (size_t)(matrix[k].rows * matrix[k].columns);
            mask[i] += i >= matrix[k].offset && i < matrix[k].offset + count;
        }
    }
    return mask;
}

/* The momentum, or the moments, of what it has begin at 0, as in a run. */
static void optimizer_init(struct optimizer *o, struct device *d, const struct optimizer_case *t) {
    *o = (struct optimizer){.device = d,
                            .t = t,
                            .numbers = t->of,
                            .mask = mask_of(t),
                            .images = images_new(1, (struct shape){1, 1, 1}, 9)};
    o->twin[W] = uniform(t->count, -t->weights, t->weights);
    if (t->of.kind == OP_AVERAGE) /* which is not read at first */
        o->twin[W] = doubles(floats(NULL, t->count), t->count);
    o->twin[M] = uniform(t->count, -t->gradients, t->gradients);
    o->twin[V] = uniform(t->count, 0, t->gradients * t->gradients);
    for (size_t i = 0; i < t->count; i++) {
        o->twin[M][i] *= 1 - o->mask[i];
        o->twin[V][i] *= 1 - o->mask[i];
    }
    for (int row = 0; row < ROWS; row++)
        o->rows[row] = block_of(d, o->twin[row], t->count);
    o->gradients = block_of(d, NULL, t->count);
    struct adam *adam = &o->numbers.adam;
    struct sgd *sgd = &o->numbers.sgd;
    struct muon *muon = &o->numbers.muon;
    adam->parameters = sgd->parameters = muon->parameters = o->rows[W];
    adam->gradients = sgd->gradients = muon->gradients = o->gradients;
    adam->exp_avg = sgd->momentum_buffer = muon->momentum_buffer = o->rows[M];
    adam->exp_avg_sq = o->rows[V];
    o->average = (struct average){t->count, t->of.decay, o->rows[W], o->gradients};
    const struct op kinds_of_op[] = {[OP_ADAM] = {OP_ADAM, .adam = adam},
                                     [OP_SGD] = {OP_SGD, .sgd = sgd},
                                     [OP_MUON] = {OP_MUON, .muon = muon},
                                     [OP_AVERAGE] = {OP_AVERAGE, .average = &o->average}};
    const struct op ops[] = {{OP_LOAD, .images = d->ops->tensor_new(d, 1, 1, 1, 1)},
                             kinds_of_op[t->of.kind]};
    o->pass = pass_of(d, &o->images, t->steps, t->steps);
    o->step = d->ops->step_new(
        d, &(struct step_description){ops, COUNT(ops), .training = true, .pass = o->pass, .n = 1});
}

/* Begins `steps` steps by this schedule, after others. Without one where there are no rates. */
static void optimizer_begin(const struct optimizer *o, const double *schedule, int steps,
                            int after) {
    begin_pass(o->device, o->pass, views_new(&o->images, steps, false), steps,
               o->t->of.kind == OP_AVERAGE ? NULL : schedule, steps, after);
}

static void optimizer_step(const struct optimizer *o, const double *gradients) {
    const size_t rows = rows_mark(), count = o->t->count;
    struct device *d = o->device;
    d->ops->upload(d, (struct slice){o->gradients, 0}, floats(gradients, count), count);
    d->ops->step_run(d, o->step, 1);
    rows_release(rows);
}

static void twin_step(const struct optimizer *o, const double *gradients, double schedule,
                      int step) {
    double *w = o->twin[W], *m = o->twin[M], *v = o->twin[V];
    switch (o->t->of.kind) {
    case OP_ADAM:
        reference_adam(w, m, v, gradients, &o->numbers.adam, schedule, step);
        break;
    case OP_SGD:
        reference_sgd(w, m, gradients, &o->numbers.sgd, schedule);
        break;
    case OP_MUON:
        reference_muon(w, m, gradients, &o->numbers.muon, schedule);
        break;
    case OP_AVERAGE:
        reference_average(w, gradients, &o->average, step);
        break;
    }
}

static double *row_of(const struct optimizer *o, int row) {
    return download(o->device, (struct slice){o->rows[row], 0}, o->t->count);
}

/* Of both signs, and of sizes from a millionth of the largest; NaN where the optimiser has none. */
static double *wide(const struct optimizer *o) {
    const size_t count = o->t->count;
    const double largest = (double)o->t->gradients, *mask = o->mask;
    double *row = uniform(count, -6, 0);
    for (size_t i = 0; i < count; i++)
        row[i] =
            mask[i] == 0 ? NAN : (double)(float)((i % 2 == 0 ? 1 : -1) * largest * pow(10, row[i]));
    return row;
}

static double *even(const struct optimizer *o) {
    const double *mask = o->mask;
    double *row = uniform(o->t->count, -o->t->gradients, o->t->gradients);
    for (size_t i = 0; i < o->t->count; i++)
        row[i] = mask[i] == 0 ? NAN : row[i];
    return row;
}

/* What it has is as the twin's, the rest as at first. */
static void check_rows(const struct optimizer *o, const char *label, double *const before[ROWS]) {
    const size_t count = o->t->count;
    const double *mask = o->mask;
    for (int row = 0; row < ROWS; row++) {
        double *got = row_of(o, row), *want = o->twin[row], *rest = zeros(count);
        double *own = zeros(count), *want_own = zeros(count);
        for (size_t i = 0; i < count; i++) {
            own[i] = mask[i] == 0 ? 0 : got[i];
            want_own[i] = mask[i] == 0 ? 0 : want[i];
            rest[i] = mask[i] == 0 ? got[i] : before[row][i];
        }
        check(label, names[row], own, want_own, count, o->t->steps == 1 ? 1e-6 : 1e-5);
        check(label, "what it has not", rest, before[row], count, 0);
    }
}

/* With one thread: more would mostly wait for each other in a thousand steps of so few numbers. */
static void optimizers_are_the_reference(void **state) {
    (void)state;
    struct device *d = opened(1);
    for (size_t i = 0; i < COUNT(CASES); i++) {
        const struct optimizer_case *t = &CASES[i];
        const size_t rows = rows_mark();
        struct optimizer o;
        char label[60];
        optimizer_init(&o, d, t);
        const double *gradients[] = {wide(&o), wide(&o), even(&o)};
        const double *schedule = uniform((size_t)t->steps, 0.5F, 1.5F);
        double *before[ROWS];
        for (int row = 0; row < ROWS; row++)
            before[row] = row_of(&o, row);
        optimizer_begin(&o, schedule, t->steps, 0);
        for (int step = 1; step <= t->steps; step++) {
            optimizer_step(&o, gradients[step % 3]);
            twin_step(&o, gradients[step % 3], schedule[step - 1], step);
        }
        snprintf(label, sizeof label, "%s, row %zu, %d steps", kinds[t->of.kind], i, t->steps);
        check_rows(&o, label, before);
        rows_release(rows);
    }
    d->ops->close(d);
}

/* A pass after k steps goes on as one that has taken them. */
static void the_script_tells_the_step(void **state) {
    struct device *d = *state;
    enum { STEPS = 5, KINDS = 4 };
    const struct optimizer_case first[KINDS] = {
        {STEPS, 1, 1, 50, {.kind = OP_ADAM, .adam = {1, 0.5, 0.9, 1e-8, 0.5, true, 1, {{2, 44}}}}},
        {STEPS, 1, 1, 50, {.kind = OP_SGD, .sgd = {1, 0.9, 0.1, 1, {{2, 44}}}}},
        {STEPS, 1, 1, 50, {.kind = OP_MUON, .muon = {1, 0.9, 1, {{2, 4, 11}}}}},
        {STEPS, 1, 1, 50, {.kind = OP_AVERAGE, .decay = 0.9}}};
    for (int kind = 0; kind < KINDS; kind++) {
        struct optimizer o;
        optimizer_init(&o, d, &first[kind]);
        const size_t count = o.t->count;
        const double *gradients[STEPS], *schedule = uniform(STEPS, 1e-2F, 1e-1F);
        double *after[STEPS + 1][ROWS];
        optimizer_begin(&o, schedule, STEPS, 0);
        for (int step = 0; step <= STEPS; step++) {
            if (step > 0)
                optimizer_step(&o, gradients[step - 1] = uniform(count, -1, 1));
            for (int row = 0; row < ROWS; row++)
                after[step][row] = row_of(&o, row);
        }
        for (int k = STEPS - 1; k >= 0; k--) {
            for (int row = 0; row < ROWS; row++)
                d->ops->upload(d, (struct slice){o.rows[row], 0}, floats(after[k][row], count),
                               count);
            optimizer_begin(&o, schedule + k, 1, k);
            optimizer_step(&o, gradients[k]);
            for (int row = 0; row < ROWS; row++)
                check(kinds[o.t->of.kind], names[row], row_of(&o, row), after[k + 1][row], count,
                      0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(optimizers_are_the_reference),
        TEST(the_script_tells_the_step),
    };
    return test_backends(tests, COUNT(tests));
}
