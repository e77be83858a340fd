/* What a backend puts off while a program runs is done before anybody can tell: a chain of Linear
 * layers, by programs and by direct calls. */
#include "harness.h"
#include "reference.h"

enum { CHAIN = 10, WIDTH = 6, N = 3, WEIGHTS = WIDTH * WIDTH, LAYER = WEIGHTS + WIDTH };

struct chain {
    struct device *d;
    int ring; /* of so many tensors each gradient has the next one */
    struct linear linear[CHAIN];
    struct tensor *x[CHAIN + 1], *dx[CHAIN + 1];
};

static const struct shape ROW = {WIDTH, 1, 1};

static void run_chain(void *context) {
    const struct chain *c = context;
    for (int i = 0; i < CHAIN; i++)
        c->d->ops->linear_forward(c->d, c->x[i + 1], c->x[i], &c->linear[i], N);
    for (int i = CHAIN - 1; i >= 0; i--) /* the last one over the chain's output */
        c->d->ops->linear_backward(c->d, i == 0 ? c->x[CHAIN] : c->dx[i % c->ring],
                                   c->dx[(i + 1) % c->ring], c->x[i], &c->linear[i], N);
}

static void run_forward(void *context) {
    const struct chain *c = context;
    c->d->ops->linear_forward(c->d, c->x[1], c->x[0], &c->linear[0], N);
}

static void a_chain_is_the_reference(void **state) {
    struct device *d = *state;
    for (int ring = 2; ring <= CHAIN + 1; ring += CHAIN - 1) {
        struct chain c = {.d = d, .ring = ring};
        const double *w = uniform(CHAIN * LAYER, -1, 1), *dy = uniform(N * WIDTH, -1, 1);
        double *x[CHAIN + 1] = {uniform(N * WIDTH, -1, 1)}, *dx = zeros(N * WIDTH);
        double *want = zeros(CHAIN * LAYER), *dz = zeros(N * WIDTH);
        struct block *weights = block_of(d, w, CHAIN * LAYER);
        struct block *gradients = block_of(d, NULL, CHAIN * LAYER);
        for (int i = 0; i <= CHAIN; i++) {
            c.x[i] = tensor_of(d, i == 0 ? x[0] : NULL, N, N, ROW);
            c.dx[i] = tensor_of(d, NULL, N, N, ROW);
            if (i == CHAIN)
                break;
            const size_t at = (size_t)i * LAYER;
            c.linear[i] = (struct linear){.in = WIDTH,
                                          .out = WIDTH,
                                          .weight = {weights, at},
                                          .bias = {weights, at + WEIGHTS},
                                          .dweight = {gradients, at},
                                          .dbias = {gradients, at + WEIGHTS}};
            x[i + 1] = zeros(N * WIDTH);
            reference_linear_forward(x[i + 1], x[i], w + at, w + at + WEIGHTS, &c.linear[i], N);
        }
        for (int j = 0; j < N * WIDTH; j++)
            dz[j] = dy[j];
        for (int i = CHAIN - 1; i >= 0; i--) {
            double *g = want + (size_t)i * LAYER;
            reference_linear_backward(dx, g, g + WEIGHTS, dz, x[i], w + (size_t)i * LAYER,
                                      &c.linear[i], N);
            for (int j = 0; j < N * WIDTH; j++)
                dz[j] = dx[j];
        }
        struct program program = {run_chain, &c, NULL};
        for (int run = 0; run < 4; run++) { /* as it is, recorded, replayed; and directly */
            d->ops->upload(d, (struct slice){gradients, 0}, floats(NULL, CHAIN * LAYER),
                           CHAIN * LAYER);
            d->ops->tensor_upload(d, c.dx[CHAIN % ring], floats(dy, N * WIDTH), N);
            if (run < 3)
                d->ops->repeat(d, &program, 1);
            else
                run_chain(&c);
            check("chain", "gradients", download(d, (struct slice){gradients, 0}, CHAIN * LAYER),
                  want, CHAIN * LAYER, 1e-5);
            check("chain", "dx", tensor_values(d, c.x[CHAIN], N, ROW), dx, N * WIDTH, 1e-5);
        }
    }
}

/* What a direct call writes, or an upload, is whole whatever a program left behind before. */
static void an_output_is_whole(void **state) {
    struct device *d = *state;
    const double *w = uniform(LAYER, -1, 1), *x = uniform(N * WIDTH, -1, 1);
    const double *other = uniform(N * WIDTH, -1, 1);
    double *want = zeros(N * WIDTH);
    struct block *weights = block_of(d, w, LAYER);
    struct chain c = {.d = d,
                      .linear[0] = {.in = WIDTH,
                                    .out = WIDTH,
                                    .weight = {weights, 0},
                                    .bias = {weights, WEIGHTS}},
                      .x = {tensor_of(d, x, N, N, ROW), tensor_of(d, NULL, N, N, ROW)}};
    struct program forward = {run_forward, &c, NULL};
    reference_linear_forward(want, x, w, w + WEIGHTS, &c.linear[0], N);
    d->ops->repeat(d, &forward, 4);
    d->ops->tensor_upload(d, c.x[1], floats(other, N * WIDTH), N);
    check("upload", "y", tensor_values(d, c.x[1], N, ROW), other, N * WIDTH, 0);
    d->ops->repeat(d, &forward, 4);
    run_forward(&c);
    d->ops->upload(d, c.linear[0].bias, floats(other, WIDTH), WIDTH);
    check("direct call", "y", tensor_values(d, c.x[1], N, ROW), want, N * WIDTH, 1e-5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_chain_is_the_reference),
        TEST(an_output_is_whole),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
