/* reference.c, which the backends are measured against, is itself measured: its gradients against
 * finite differences, and what these cannot see against results worked out by hand. */
#include "reference.h"

#include "layer.h"

/* A number that depends on the whole result of a layer: its gradient is that of the layer. */
static double objective(const struct layer *l, struct results *scratch) {
    forward_by_reference(l, true, scratch);
    double sum = 0;
    for (size_t i = 0; i < outputs(l); i++)
        sum += l->dy[i] * scratch->y[i];
    return sum;
}

static void check_gradient(const struct layer *l, const char *what, const double *gradient,
                           double *variable, size_t count) {
    const double step = 1e-5;
    struct results scratch = by_reference(l, true);
    double *differences = zeros(count);
    for (size_t i = 0; i < count; i++) {
        const double value = variable[i];
        variable[i] = value + step;
        differences[i] = objective(l, &scratch);
        variable[i] = value - step;
        differences[i] = (differences[i] - objective(l, &scratch)) / (2 * step);
        variable[i] = value;
    }
    check(l->label, what, gradient, differences, count, 1e-6);
}

static void check_gradients(const struct layer *l) {
    const struct results r = by_reference(l, true);
    check_gradient(l, "dx", r.dx, l->x, inputs(l));
    check_gradient(l, "dweight", r.dweight, l->weight, l->weights);
    check_gradient(l, "dbias", r.dbias, l->bias, l->biases);
}

static void reference_gradients_are_the_finite_differences(void **state) {
    (void)state;
    static const struct conv_case convs[] = {
        {2, 3, 3, 1, 5, 4, 2}, {3, 2, 2, 3, 3, 4, 2}, {1, 2, 5, 0, 6, 5, 1}, {2, 2, 1, 0, 3, 2, 2}};
    static const struct norm_case norms[] = {{2, 4, 5, 1, 2, PLAIN, 1e-5F, 0.1F},
                                             {3, 5, 4, 2, 2, PLAIN, 1e-1F, 0.1F},
                                             {2, 6, 7, 3, 2, PLAIN, 1e-5F, 0.1F}};
    static const struct linear_case linears[] = {{{2, 2, 2}, 3, 4}, {{1, 1, 1}, 1, 1}};
    for (size_t i = 0; i < COUNT(convs); i++) {
        struct layer l = conv_layer(&convs[i]);
        check_gradients(&l);
    }
    for (size_t i = 0; i < COUNT(norms); i++) {
        struct layer l = norm_layer(&norms[i]);
        l.x = separated(inputs(&l), 0.05); /* no kink of ReLU or max-pool within a step */
        check_gradients(&l);
    }
    for (size_t i = 0; i < COUNT(linears); i++) {
        struct layer l = linear_layer(&linears[i]);
        check_gradients(&l);
    }
}

static void reference_dlogits_are_the_finite_differences(void **state) {
    (void)state;
    enum { N = 3, CLASSES = 5 };
    const double step = 1e-5;
    const uint8_t labels[N] = {4, 0, 2};
    uint8_t predicted[N];
    double *logits = uniform(N * CLASSES, -3, 3), *differences = zeros(N * CLASSES);
    double *dlogits = zeros(N * CLASSES), *unused = zeros(N * CLASSES);
    reference_cross_entropy(dlogits, predicted, logits, labels, CLASSES, N);
    for (int i = 0; i < N * CLASSES; i++) {
        const double value = logits[i];
        logits[i] = value + step;
        differences[i] = reference_cross_entropy(unused, predicted, logits, labels, CLASSES, N);
        logits[i] = value - step;
        differences[i] -= reference_cross_entropy(unused, predicted, logits, labels, CLASSES, N);
        differences[i] /= 2 * step;
        logits[i] = value;
    }
    check("cross entropy", "dlogits", dlogits, differences, N * CLASSES, 1e-6);
}

/* What finite differences cannot see, worked out by hand. */
static void reference_has_the_conventions_of_pytorch(void **state) {
    (void)state;
    /* a cross-correlation: the kernel is not turned */
    const double image[4] = {1, 2, 3, 4}, kernel[4] = {1, 10, 100, 1000}, half = 0.5;
    double y[9];
    struct conv2d conv = {.in = 1, .out = 1, .kernel = 2, .pad = 1, .h = 2, .w = 2};
    reference_conv2d_forward(y, image, kernel, &half, &conv, 1);
    const double products[9] = {1000.5, 2100.5, 200.5, 3010.5, 4321.5, 402.5, 30.5, 43.5, 4.5};
    check("convolution", "y", y, products, 9, 1e-15);

    /* biased variance 4 to normalise, unbiased variance 8 and the rest of the old to keep */
    const double pair[2] = {1, 5}, one = 1, three = 3;
    double mean = 10, var = 20;
    struct batchnorm norm = {.c = 1, .h = 1, .w = 2, .pool = 1, .eps = 12, .momentum = 0.25F};
    reference_batchnorm_forward(y, &mean, &var, pair, &one, &three, &norm, true, 1);
    check("batchnorm", "y", y, (const double[]){3 - 0.5, 3 + 0.5}, 2, 1e-15);
    check("batchnorm", "running_mean", &mean, (const double[]){0.75 * 10 + 0.25 * 3}, 1, 1e-15);
    check("batchnorm", "running_var", &var, (const double[]){0.75 * 20 + 0.25 * 8}, 1, 1e-15);

    /* Adam's first step: lr * g / (|g| + eps), with the weight's decay in g */
    double w = 2, m = 0, v = 0;
    struct adam adam = {1, 0.1, 0.9, 0.999, 4, 0.5, NULL, NULL, NULL, NULL};
    reference_adam(&w, &m, &v, &three, &adam, 1);
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
