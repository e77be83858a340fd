/* Whole steps: a small network is trained and evaluated by scripts, beside its twin on the host. */
#include "model.h"
#include "reference.h"

enum { BATCH = 4, CLASSES = MODEL_CLASSES };

/* A pass of the model, and what its twin makes of the same. */
struct course {
    struct model *model;
    const struct images *images;
    struct pass *pass;
    struct step *whole, *rest;
    bool training;
    int count, steps; /* images and steps of the pass, */
    int read, done;   /* and so far */
    const struct view *views;
    const double *schedule;
    double *losses, *logits;
};

static struct course course_of(struct model *model, const struct images *images,
                               struct dataset *data, int count, bool training) {
    const int steps = (count + BATCH - 1) / BATCH, rest = count % BATCH;
    struct device *d = model->device;
    struct pass *pass = d->ops->pass_new(d, data, count, steps);
    return (struct course){.model = model,
                           .images = images,
                           .pass = pass,
                           .whole = model_step(model, pass, training, BATCH),
                           .rest = rest > 0 ? model_step(model, pass, training, rest) : NULL,
                           .training = training,
                           .count = count,
                           .steps = steps,
                           .losses = zeros((size_t)steps),
                           .logits = zeros((size_t)(count * CLASSES))};
}

static void begin(struct course *c, const double *schedule) {
    c->views = views_new(c->images, c->count, c->training);
    c->schedule = schedule;
    c->read = c->done = 0;
    begin_pass(c->model->device, c->pass, c->views, c->count, schedule, c->steps, c->model->steps);
}

/* The next steps, in one call. */
static void advance(struct course *c, int steps) {
    struct device *d = c->model->device;
    const bool is_rest = c->count - c->read < BATCH;
    const int n = is_rest ? c->count - c->read : BATCH;
    d->ops->step_run(d, is_rest ? c->rest : c->whole, steps);
    for (const int end = c->done + steps; c->done < end; c->done++, c->read += n)
        c->losses[c->done] =
            model_twin_step(c->model, c->logits + c->read * CLASSES, c->images, c->views + c->read,
                            n, c->training, c->training ? c->schedule[c->done] : 0);
}

/* The logits also of a part of the images. */
static void check_results(const struct course *c, const char *label) {
    struct device *d = c->model->device;
    check(label, "losses", losses(d, c->pass, 0, c->done), c->losses, (size_t)c->done, 1e-5);
    for (int count = 1; count <= c->read; count += c->read - 1)
        check(label, "logits", logits(d, c->pass, count, CLASSES), c->logits,
              (size_t)(count * CLASSES), 1e-5);
}

/* Steps of different sizes, one by one, and evaluation in between: of other images, and of the same
 * ones by a pass of its own. */
static void steps_are_the_reference(void **state) {
    struct device *d = *state;
    const struct images images = images_new(14, MODEL_IMAGE, CLASSES);
    const struct images others = images_new(11, MODEL_IMAGE, CLASSES);
    struct dataset *data = d->ops->dataset_new(d, &images);
    struct model model = model_small(BATCH);
    model_put(&model, d);
    struct course training = course_of(&model, &images, data, 14, true);
    struct course same = course_of(&model, &images, data, 8, false);
    struct course other = course_of(&model, &others, d->ops->dataset_new(d, &others), 11, false);
    for (int epoch = 0; epoch < 3; epoch++) {
        begin(&training, uniform(4, 1e-3F, 3e-2F));
        begin(&same, NULL);
        begin(&other, NULL);
        for (int step = 0; step < 4; step++) {
            struct course *evaluation = step == 3 ? &same : &other;
            const int read = evaluation->read;
            advance(&training, 1);
            model_check(&model, "step by step");
            d->ops->step_run(d, training.whole, 0);
            advance(evaluation, 1);
            const int n = evaluation->read - read;
            check("evaluation", "y of the head",
                  tensor_values(d, model.layers[2].head.y, n, (struct shape){CLASSES, 1, 1}),
                  evaluation->logits + read * CLASSES, (size_t)(n * CLASSES), 1e-5);
        }
        advance(&same, 1);
        check_results(&training, "training");
        check_results(&same, "evaluation of the same images");
        check_results(&other, "evaluation of others");
        model_check(&model, "after evaluation");
    }
}

/* Whole batches in two calls, the second so long that a backend may join steps. The losses of the
 * first are read while the second may be at work. */
static void many_steps_are_the_reference(void **state) {
    struct device *d = *state;
    enum { STEPS = 66, FIRST = 3, REST = STEPS - FIRST };
    const struct images images = images_new(STEPS * BATCH, MODEL_IMAGE, CLASSES);
    struct model model = model_small(BATCH);
    model_put(&model, d);
    struct course c =
        course_of(&model, &images, d->ops->dataset_new(d, &images), STEPS * BATCH, true);
    for (int epoch = 0; epoch < 2; epoch++) {
        begin(&c, uniform(STEPS, 1e-3F, 1e-2F));
        advance(&c, FIRST);
        advance(&c, REST);
        check("many steps", "first losses", losses(d, c.pass, 0, FIRST), c.losses, FIRST, 1e-5);
        check("many steps", "other losses", losses(d, c.pass, FIRST, REST), c.losses + FIRST, REST,
              1e-5);
        check_results(&c, "many steps");
        model_check(&model, "many steps");
    }
}

/* The learning rate of each step is that of the script, also within one call; with a rate of 0 no
 * parameter moves, but that Muon scales its own. */
static void the_rate_changes_in_mid_run(void **state) {
    struct device *d = *state;
    enum { STEPS = 70 };
    const struct images images = images_new(STEPS * BATCH, MODEL_IMAGE, CLASSES);
    struct model model = model_small(BATCH);
    double *schedule = zeros(STEPS);
    model_put(&model, d);
    struct course c =
        course_of(&model, &images, d->ops->dataset_new(d, &images), STEPS * BATCH, true);
    const struct slice parameters = {model.weights, 0};
    const size_t count = model.parameters.count, unscaled = model.adam.range[0].offset;
    for (int run = 0; run < 2; run++) {
        const double *before = download(d, parameters, count);
        for (int step = 0; step < STEPS; step++)
            schedule[step] = run == 1 ? 0 : step < 5 ? 3e-3 : step < 41 ? 3e-4 : 1e-5;
        begin(&c, schedule);
        advance(&c, STEPS);
        check_results(&c, "changing rate");
        model_check(&model, "changing rate");
        if (run == 1)
            check("rate 0", "parameters", download(d, parameters, count) + unscaled,
                  before + unscaled, count - unscaled, 0);
    }
}

/* Whatever a step left behind in a tensor, an upload or another step overwrites it, with what was
 * there when it ran. */
static void an_output_is_whole(void **state) {
    struct device *d = *state;
    enum { ALL = 5 * BATCH, IN = 4 * 3 * 4, OUT = BATCH * CLASSES };
    const struct images images = images_new(ALL, MODEL_IMAGE, CLASSES);
    const struct shape row = {CLASSES, 1, 1};
    const double *x = uniform(BATCH * IN, -1, 1), *other = uniform(OUT, -1, 1);
    double *want = zeros(OUT);
    struct model model = model_small(BATCH);
    model_put(&model, d);
    const struct head *head = &model.layers[2].head;
    struct course c = course_of(&model, &images, d->ops->dataset_new(d, &images), ALL, true);
    begin(&c, uniform(5, 1e-3F, 1e-2F));
    advance(&c, 4);
    d->ops->tensor_upload(d, head->y, floats(other, OUT), BATCH);
    check("upload", "y", tensor_values(d, head->y, BATCH, row), other, OUT, 0);

    const struct op ops[] = {{OP_LOAD, .images = model.layers[0].stage.x}, {OP_HEAD, .head = head}};
    d->ops->tensor_upload(d, head->x, floats(x, BATCH * IN), BATCH);
    run_ops(d, ops, 2, true, c.pass, BATCH);
    d->ops->upload(d, head->bias, floats(other, CLASSES), CLASSES);
    reference_linear_forward(want, x, model.parameters.values, head, BATCH);
    check("another step", "y", tensor_values(d, head->y, BATCH, row), want, OUT, 1e-5);
    check("another step", "logits", logits(d, c.pass, ALL, CLASSES) + c.read * CLASSES, want, OUT,
          1e-5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(steps_are_the_reference),
        TEST(many_steps_are_the_reference),
        TEST(the_rate_changes_in_mid_run),
        TEST(an_output_is_whole),
    };
    return test_backends(tests, COUNT(tests));
}
