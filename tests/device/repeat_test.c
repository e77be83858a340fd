/* Steps: a Linear layer is trained and evaluated by programs that are repeated. */
#include "images.h"
#include "reference.h"

enum { TRAIN = 14, HELD_OUT = 9, BATCH = 4, CLASSES = 10, PIXELS = 3 * 5 * 4 };
enum { PARAMETERS = CLASSES * PIXELS + CLASSES };

struct model {
    struct device *d;
    struct linear linear;
    struct adam adam;
    struct tensor *x, *dx, *logits, *dlogits;
};

/* The context of a program: a step over the next n images, training or evaluation. */
struct step {
    struct model *model;
    struct loader *loader;
    bool training;
    int n;
};

static void run_step(void *context) {
    const struct step *s = context;
    struct model *model = s->model;
    struct device *d = model->d;
    d->ops->load_batch(d, model->x, s->loader, s->n);
    d->ops->linear_forward(d, model->logits, model->x, &model->linear, s->n);
    d->ops->cross_entropy(d, s->training ? model->dlogits : NULL, model->logits, s->loader, s->n);
    if (!s->training)
        return;
    d->ops->linear_backward(d, model->dx, model->dlogits, model->x, &model->linear, s->n);
    d->ops->adam_step(d, &model->adam);
}

/* The same by the reference: `w` holds weights and biases. Returns the loss. */
struct twin {
    struct linear linear;
    struct adam adam;
    double *w, *m, *v;
    int64_t steps;
};

static double twin_step(struct twin *twin, uint8_t *predicted, const struct images *images,
                        const uint32_t *order, int n, bool training) {
    const size_t weights = CLASSES * PIXELS;
    double logits[BATCH * CLASSES], dlogits[BATCH * CLASSES], dx[BATCH * PIXELS], dw[PARAMETERS];
    uint8_t labels[BATCH];
    const double *x = pixels_of(images, order, n);
    for (int i = 0; i < n; i++)
        labels[i] = record_of(images, order[i])[0];
    reference_linear_forward(logits, x, twin->w, twin->w + weights, &twin->linear, n);
    double loss = reference_cross_entropy(dlogits, predicted, logits, labels, CLASSES, n);
    reference_linear_backward(dx, dw, dw + weights, dlogits, x, twin->w, &twin->linear, n);
    if (training)
        reference_adam(twin->w, twin->m, twin->v, dw, &twin->adam, ++twin->steps);
    return loss;
}

static const struct shape SHAPE = {3, 5, 4};

static struct model model_of(struct device *d, const double *w) {
    const struct shape row = {CLASSES, 1, 1};
    const struct adam numbers = {
        .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-3};
    const struct adam adam = adam_of(d, numbers, w, PARAMETERS);
    return (struct model){.d = d,
                          .adam = adam,
                          .linear = {.in = PIXELS,
                                     .out = CLASSES,
                                     .weight = {adam.parameters, 0},
                                     .bias = {adam.parameters, CLASSES * PIXELS},
                                     .dweight = {adam.gradients, 0},
                                     .dbias = {adam.gradients, CLASSES * PIXELS}},
                          .x = tensor_of(d, NULL, BATCH, BATCH, SHAPE),
                          .dx = tensor_of(d, NULL, BATCH, BATCH, SHAPE),
                          .logits = tensor_of(d, NULL, BATCH, BATCH, row),
                          .dlogits = tensor_of(d, NULL, BATCH, BATCH, row)};
}

/* Whole batches in two calls, the second so long that a backend may join steps. */
static void repeat_runs_many_steps(void **state) {
    struct device *d = *state;
    enum { STEPS = 66, FIRST = 3 };
    struct images images = images_new(STEPS * BATCH, SHAPE, CLASSES);
    struct loader *loader = loader_of(d, &images);
    double *w = uniform(PARAMETERS, -0.1F, 0.1F), loss[STEPS];
    struct model model = model_of(d, w);
    struct step step = {&model, loader, true, BATCH};
    struct program program = {run_step, &step, NULL};
    struct twin twin = {model.linear, model.adam, w, zeros(PARAMETERS), zeros(PARAMETERS), 0};
    for (int pass = 0; pass < 2; pass++) {
        const uint32_t *order = shuffled(STEPS * BATCH);
        uint8_t predicted[STEPS * BATCH];
        rewind_to(d, loader, order, STEPS * BATCH);
        d->ops->repeat(d, &program, FIRST);
        d->ops->repeat(d, &program, STEPS - FIRST);
        for (int i = 0; i < STEPS; i++)
            loss[i] =
                twin_step(&twin, predicted + i * BATCH, &images, order + i * BATCH, BATCH, true);
        check("many steps", "first losses", losses(d, loader, 0, FIRST), loss, FIRST, 1e-5);
        check("many steps", "losses", losses(d, loader, FIRST, STEPS - FIRST), loss + FIRST,
              STEPS - FIRST, 1e-5);
        check("many steps", "all losses", losses(d, loader, 0, STEPS), loss, STEPS, 1e-5);
        check_predictions(d, loader, "many steps", predicted, STEPS * BATCH);
        check("many steps", "w", download(d, (struct slice){model.adam.parameters, 0}, PARAMETERS),
              w, PARAMETERS, 1e-5);
    }
}

static void run_loss(void *context) {
    const struct step *s = context;
    struct device *d = s->model->d;
    d->ops->cross_entropy(d, NULL, s->model->logits, s->loader, s->n);
}

/* A step that loads no batch has the one that was loaded last. */
static void repeat_keeps_the_batch(void **state) {
    struct device *d = *state;
    enum { TIMES = 4 };
    struct images images = images_new(2 * BATCH, SHAPE, CLASSES);
    struct loader *loader = loader_of(d, &images);
    struct model model = model_of(d, uniform(PARAMETERS, -1, 1));
    struct step step = {&model, loader, false, BATCH};
    struct program program = {run_loss, &step, NULL};
    rewind_to(d, loader, shuffled(2 * BATCH), 2 * BATCH);
    d->ops->load_batch(d, model.x, loader, BATCH);
    d->ops->linear_forward(d, model.logits, model.x, &model.linear, BATCH);
    d->ops->repeat(d, &program, TIMES);
    d->ops->load_batch(d, model.x, loader, BATCH);
    d->ops->linear_forward(d, model.logits, model.x, &model.linear, BATCH);
    d->ops->repeat(d, &program, TIMES);
    const double *loss = losses(d, loader, 0, 2 * TIMES);
    for (int i = 0; i < 2 * TIMES; i++)
        assert_true(loss[i] == loss[i / TIMES * TIMES]);
    assert_true(loss[0] != loss[TIMES]);
}

static void repeat_runs_steps(void **state) {
    struct device *d = *state;
    struct images train = images_new(TRAIN, SHAPE, CLASSES),
                  test = images_new(HELD_OUT, SHAPE, CLASSES);
    struct loader *loader = loader_of(d, &train), *test_loader = loader_of(d, &test);
    double *w = uniform(PARAMETERS, -0.1F, 0.1F);
    struct model model = model_of(d, w);
    const struct adam adam = model.adam;
    struct step steps[] = {{&model, loader, true, BATCH},
                           {&model, loader, true, TRAIN % BATCH},
                           {&model, test_loader, false, BATCH}};
    struct program whole = {run_step, &steps[0], NULL}, rest = {run_step, &steps[1], NULL};
    struct program evaluation = {run_step, &steps[2], NULL};
    struct twin twin = {model.linear, adam, w, zeros(PARAMETERS), zeros(PARAMETERS), 0};

    for (int pass = 0; pass < 3; pass++) {
        const uint32_t *order = shuffled(TRAIN), *test_order = shuffled(HELD_OUT);
        rewind_to(d, loader, order, TRAIN);
        rewind_to(d, test_loader, test_order, HELD_OUT - 1);
        d->ops->repeat(d, &whole, 2);
        d->ops->repeat(d, &whole, 0);
        d->ops->repeat(d, &evaluation, 1); /* with the model as it is after two steps */
        d->ops->repeat(d, &whole, 1);
        d->ops->repeat(d, &rest, 1);
        d->ops->repeat(d, &evaluation, 1);

        double loss[4], test_loss[2];
        uint8_t predicted[TRAIN], test_predicted[HELD_OUT - 1];
        for (int step = 0; step < 4; step++) {
            const int at = step * BATCH, n = step < 3 ? BATCH : TRAIN % BATCH;
            loss[step] = twin_step(&twin, predicted + at, &train, order + at, n, true);
            if (step % 2 == 1) {
                const int test_at = step / 2 * BATCH;
                test_loss[step / 2] = twin_step(&twin, test_predicted + test_at, &test,
                                                test_order + test_at, BATCH, false);
            }
        }
        check("repeat", "loss", losses(d, loader, 0, 4), loss, 4, 1e-5);
        check("repeat", "loss of the test", losses(d, test_loader, 0, 2), test_loss, 2, 1e-5);
        check_predictions(d, loader, "repeat", predicted, TRAIN);
        check_predictions(d, test_loader, "repeat", test_predicted, HELD_OUT - 1);
        check("repeat", "w", download(d, (struct slice){adam.parameters, 0}, PARAMETERS), w,
              PARAMETERS, 1e-5);

        /* of the last step there are the logits; without a program it is the same */
        const struct shape row = {CLASSES, 1, 1};
        const double *logits = tensor_values(d, model.logits, BATCH, row);
        rewind_to(d, test_loader, test_order + BATCH, BATCH);
        run_step(&steps[2]);
        check("repeat", "loss of a direct call", losses(d, test_loader, 0, 1), &test_loss[1], 1,
              1e-5);
        check("repeat", "logits", tensor_values(d, model.logits, BATCH, row), logits,
              BATCH * CLASSES, 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(repeat_runs_steps),
        TEST(repeat_runs_many_steps),
        TEST(repeat_keeps_the_batch),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
