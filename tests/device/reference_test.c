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
    const double step = 1e-5, smoothings[] = {0, 0.1, 1};
    const uint8_t labels[N] = {4, 0, 2};
    double *logits = uniform(N * CLASSES, -3, 3), *differences = zeros(N * CLASSES);
    double *dlogits = zeros(N * CLASSES), *unused = zeros(N * CLASSES);
    for (size_t s = 0; s < COUNT(smoothings); s++) {
        reference_cross_entropy(dlogits, logits, labels, CLASSES, smoothings[s], N);
        for (int i = 0; i < N * CLASSES; i++) {
            const double value = logits[i];
            double losses[2];
            for (int side = 0; side < 2; side++) {
                logits[i] = value + (side == 0 ? step : -step);
                losses[side] =
                    reference_cross_entropy(unused, logits, labels, CLASSES, smoothings[s], N);
            }
            differences[i] = (losses[0] - losses[1]) / (2 * step);
            logits[i] = value;
        }
        check("cross entropy", "dlogits", dlogits, differences, N * CLASSES, 1e-6);
    }
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
    struct adam adam = {.lr = 0.2,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 4,
                        .weight_decay = 0.5,
                        .ranges = 1,
                        .range = {{0, 1}}};
    reference_adam(&w, &m, &v, &three, &adam, 0.5, 1);
    check("Adam", "w", &w, (const double[]){2 - 0.1 * 4 / (4 + 4)}, 1, 1e-14);

    /* AdamW's, with lr times the decay off the weight before */
    w = 2, m = v = 0;
    adam.decoupled = true;
    reference_adam(&w, &m, &v, &three, &adam, 0.5, 1);
    check("AdamW", "w", &w, (const double[]){2 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 4)}, 1, 1e-14);

    /* SGD's second step: the buffer is 0.5 * 4 + 3 + 0.5 w */
    const struct sgd sgd = {
        .lr = 0.2, .momentum = 0.5, .weight_decay = 0.5, .ranges = 1, .range = {{0, 1}}};
    w = 2, m = 0;
    reference_sgd(&w, &m, &three, &sgd, 0.5);
    check("SGD", "w", &w, (const double[]){2 - 0.1 * (4 + 0.5 * 4)}, 1, 1e-14);
    reference_sgd(&w, &m, &three, &sgd, 0.5);
    check("SGD", "w", &w, (const double[]){1.4 - 0.1 * (3.7 + 0.5 * (2 + 3.7))}, 1, 1e-14);

    /* smoothed by 0.3, of two logits that are equal: log 2, whatever the targets 0.85 and 0.15 */
    double dlogits[2];
    const double loss =
        reference_cross_entropy(dlogits, (const double[]){7, 7}, (const uint8_t[]){1}, 2, 0.3, 1);
    check("smoothing", "loss", &loss, (const double[]){log(2)}, 1, 1e-14);
    check("smoothing", "dlogits", dlogits, (const double[]){0.35, -0.35}, 2, 1e-14);

    /* the average: a copy, then a step towards it */
    const struct average average = {.count = 1, .decay = 0.75};
    double mean = NAN;
    reference_average(&mean, &three, &average, 1);
    check("average", "copy", &mean, &three, 1, 0);
    reference_average(&mean, (const double[]){7}, &average, 2);
    check("average", "step", &mean, (const double[]){4}, 1, 1e-14);
}

/* The iterations take what X does to each of its singular vectors to f(f(f(f(f(s))))) of its
 * singular value s, with f(s) = 3.4445 s - 4.775 s^3 + 2.0315 s^5. Here X is, in its first step, of
 * 1.9 times a gradient that is diagonal but for a turn of the plane of its columns 1 and 3. */
static void reference_muon_moves_singular_values(void **state) {
    (void)state;
    enum { ROWS = 3, COLUMNS = 4 };
    const double values[ROWS] = {3, -0.5, 0.125}, lr = 0.25;
    const double length = sqrt(9 + 0.25 + 0.015625), c = 0.6, s = 0.8;
    double g[ROWS * COLUMNS] = {0}, m[ROWS * COLUMNS] = {0}, w[ROWS * COLUMNS],
                    want[ROWS * COLUMNS];
    double moved[ROWS], kept[ROWS * COLUMNS];
    const struct muon muon = {
        .lr = 0.5, .momentum = 0.9, .matrices = 1, .matrix = {{0, ROWS, COLUMNS}}};
    for (int i = 0; i < ROWS; i++) {
        moved[i] = values[i] / length;
        for (int k = 0; k < 5; k++)
            moved[i] *= 3.4445 - 4.775 * pow(moved[i], 2) + 2.0315 * pow(moved[i], 4);
    }
    for (int i = 0; i < ROWS * COLUMNS; i++) { /* twice as long as the square root of 3 */
        const int row = i / COLUMNS, column = i % COLUMNS;
        const double turned = row != 1 ? column == row : column == 1 ? c : column == 3 ? s : 0;
        g[i] = values[row] * turned;
        kept[i] = 0.1 * g[i];
        w[i] = i % 2 == 0 ? 1 : -1;
        want[i] = w[i] / 2 - lr * moved[row] * turned;
    }
    reference_muon(w, m, g, &muon, 0.5);
    check("Muon", "w", w, want, ROWS * COLUMNS, 1e-13);
    check("Muon", "momentum_buffer", m, kept, ROWS * COLUMNS, 1e-14);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(reference_gradients_are_the_finite_differences),
        TEST(reference_dlogits_are_the_finite_differences),
        TEST(reference_has_the_conventions_of_pytorch),
        TEST(reference_muon_moves_singular_values),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
