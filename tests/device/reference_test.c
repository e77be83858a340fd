/* reference.c, which the backends are measured against, is itself measured: its gradients against
 * finite differences, and what these cannot see against results worked out by hand. */
#include "reference.h"

#include "model.h"

#include <math.h>

/* A layer with room for its outputs; `dz` is a gradient of z that comes from elsewhere. */
struct subject {
    struct model model;
    double *z, *y, *dz;
    size_t zs, ys;
};

/* A number that depends on the whole results of the layer: its gradient is that of the layer. */
static double objective(const struct subject *s) {
    const struct layer *l = &s->model.layers[0];
    const double *w = s->model.parameters.values;
    double sum = 0;
    if (l->is_head) {
        reference_linear_forward(s->y, l->x, w, &l->head, l->n);
    } else { /* moves the running statistics, which training does not read */
        reference_conv2d_forward(s->z, l->x, w, &l->stage.conv, l->n);
        reference_batchnorm_forward(s->y, s->model.statistics.values, s->z, w, &l->stage.norm, true,
                                    l->n);
    }
    for (size_t i = 0; i < s->zs; i++)
        sum += s->dz[i] * s->z[i];
    for (size_t i = 0; i < s->ys; i++)
        sum += l->dy[i] * s->y[i];
    return sum;
}

static void check_gradient(const struct subject *s, const char *what, const double *gradient,
                           double *variable, size_t count) {
    const double step = 1e-5;
    double *differences = zeros(count);
    for (size_t i = 0; i < count; i++) {
        const double value = variable[i];
        variable[i] = value + step;
        differences[i] = objective(s);
        variable[i] = value - step;
        differences[i] = isnan(value) ? NAN : (differences[i] - objective(s)) / (2 * step);
        variable[i] = value;
    }
    check(s->model.layers[0].label, what, gradient, differences, count, 1e-7);
}

/* The parameters all at once; what lies between them is NaN, as are its gradients. */
static void check_gradients(const struct model *model) {
    const struct layer *l = &model->layers[0];
    const size_t xs = (size_t)l->n * volume(l->in), count = model->parameters.count;
    struct subject s = {.model = *model,
                        .zs = (size_t)l->n * volume(l->between),
                        .ys = (size_t)l->n * volume(l->out)};
    double *w = model->parameters.values, *g = doubles(floats(NULL, count), count);
    double *dx = zeros(xs), *dz = zeros(s.zs);
    s.z = zeros(s.zs), s.y = zeros(s.ys), s.dz = uniform(s.zs, -1, 1);
    objective(&s);
    if (l->is_head) {
        reference_linear_backward(dx, g, l->dy, l->x, w, &l->head, l->n);
    } else {
        reference_batchnorm_decide(l->dy, s.z, w, &l->stage.norm, l->n);
        reference_batchnorm_backward(dz, g, l->dy, s.z, w, &l->stage.norm, l->n);
        for (size_t i = 0; i < s.zs; i++)
            dz[i] += s.dz[i];
        reference_conv2d_backward(dx, g, dz, l->x, w, &l->stage.conv, l->n);
    }
    check_gradient(&s, "dx", dx, l->x, xs);
    check_gradient(&s, "gradients", g, w, count);
}

static void reference_gradients_are_the_finite_differences(void **state) {
    (void)state;
    static const struct stage_case stages[] = {
        {2, 3, 3, 1, 5, 4, 2, 1, PLAIN, 1e-5F, 0.1F}, {3, 2, 2, 3, 3, 4, 2, 1, PLAIN, 1e-5F, 0.1F},
        {1, 2, 5, 0, 6, 5, 1, 1, PLAIN, 1, 0.1F},     {2, 2, 1, 0, 3, 2, 2, 1, PLAIN, 1e-5F, 0.1F},
        {2, 2, 1, 0, 4, 5, 2, 1, PLAIN, 1e-5F, 0.1F}, {2, 3, 1, 0, 5, 4, 2, 2, PLAIN, 1e-1F, 0.1F},
        {2, 2, 1, 0, 6, 7, 2, 3, PLAIN, 1e-5F, 0.1F}};
    static const struct head_case heads[] = {{{2, 2, 2}, 3, 4}, {{1, 1, 1}, 1, 1}};
    for (size_t i = 0; i < COUNT(stages) + COUNT(heads); i++) {
        struct model model = {0};
        if (i < COUNT(stages))
            model_stage(&model, &stages[i]);
        else
            model_head(&model, &heads[i - COUNT(stages)]);
        check_gradients(&model);
    }
}

static void reference_dlogits_are_the_finite_differences(void **state) {
    (void)state;
    enum { N = 3, CLASSES = 5 };
    const double step = 1e-5;
    const uint8_t labels[N] = {4, 0, 2};
    double *logits = uniform(N * CLASSES, -3, 3), *differences = zeros(N * CLASSES);
    double *dlogits = zeros(N * CLASSES), *unused = zeros(N * CLASSES);
    reference_cross_entropy(dlogits, logits, labels, CLASSES, N);
    for (int i = 0; i < N * CLASSES; i++) {
        const double value = logits[i];
        logits[i] = value + step;
        differences[i] = reference_cross_entropy(unused, logits, labels, CLASSES, N);
        logits[i] = value - step;
        differences[i] -= reference_cross_entropy(unused, logits, labels, CLASSES, N);
        differences[i] /= 2 * step;
        logits[i] = value;
    }
    check("cross entropy", "dlogits", dlogits, differences, N * CLASSES, 1e-6);
}

/* What finite differences cannot see, worked out by hand. */
static void reference_has_the_conventions_of_pytorch(void **state) {
    (void)state;
    /* a cross-correlation: the kernel is not turned */
    const double image[4] = {1, 2, 3, 4}, kernel_and_bias[5] = {1, 10, 100, 1000, 0.5};
    double y[9];
    struct conv2d conv = {
        .in = 1, .out = 1, .kernel = 2, .pad = 1, .h = 2, .w = 2, .bias = {NULL, 4}};
    reference_conv2d_forward(y, image, kernel_and_bias, &conv, 1);
    const double products[9] = {1000.5, 2100.5, 200.5, 3010.5, 4321.5, 402.5, 30.5, 43.5, 4.5};
    check("convolution", "y", y, products, 9, 1e-15);

    /* biased variance 4 to normalise, unbiased variance 8 and the rest of the old to keep */
    const double pair[2] = {1, 5}, one_and_three[2] = {1, 3}, three = 3;
    double running[2] = {10, 20};
    struct batchnorm norm = {.c = 1,
                             .h = 1,
                             .w = 2,
                             .pool = 1,
                             .eps = 12,
                             .momentum = 0.25F,
                             .bias = {NULL, 1},
                             .running_var = {NULL, 1}};
    reference_batchnorm_forward(y, running, pair, one_and_three, &norm, true, 1);
    check("batchnorm", "y", y, (const double[]){3 - 0.5, 3 + 0.5}, 2, 1e-15);
    check("batchnorm", "running statistics", running,
          (const double[]){0.75 * 10 + 0.25 * 3, 0.75 * 20 + 0.25 * 8}, 2, 1e-15);

    /* Adam's first step: lr * g / (|g| + eps), with the weight's decay in g */
    double w = 2, m = 0, v = 0;
    struct adam adam = {1, 0.9, 0.999, 4, 0.5, NULL, NULL, NULL, NULL};
    reference_adam(&w, &m, &v, &three, &adam, 0.1, 1);
    check("Adam", "w", &w, (const double[]){2 - 0.1 * 4 / (4 + 4)}, 1, 1e-14);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(reference_gradients_are_the_finite_differences),
        TEST(reference_dlogits_are_the_finite_differences),
        TEST(reference_has_the_conventions_of_pytorch),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
