/* The optimisers of device.h as both backends on the CPU compute them. They stand in a header so
 * that each backend compiles them for its own instruction sets. The factors of a step are computed
 * in double, then rounded to float. */
#pragma once

#include "host.h"

#include <string.h>

/* The number of the step whose images were loaded last, from 1. */
static inline double step_number(const struct pass *pass) {
    return (double)(pass->script.steps_before + pass->steps);
}

/* A learning rate in that step. */
static inline double scheduled(double lr, const struct pass *pass) {
    return lr * pass->script.schedule[pass->steps - 1];
}

/* Adam (Kingma and Ba, 2014), in one pass over the parameters:
 *
 *     g = g + weight_decay w                   or, decoupled: w = w - lr weight_decay w
 *     m = m + (1 - beta1) (g - m)
 *     v = beta2 v + (1 - beta2) g^2
 *     w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps) */
static inline void host_adam(struct host *host, const struct adam *adam, const struct pass *pass) {
    const double t = step_number(pass), lr = scheduled(adam->lr, pass);
    const float step_size = (float)(lr / (1 - pow(adam->beta1, t)));
    const float correction = (float)sqrt(1 - pow(adam->beta2, t));
    const float decay = adam->decoupled ? 0 : (float)adam->weight_decay, eps = (float)adam->eps;
    const float keep = adam->decoupled ? (float)(1 - lr * adam->weight_decay) : 1;
    const float rest1 = (float)(1 - adam->beta1);
    const float beta2 = (float)adam->beta2, rest2 = (float)(1 - adam->beta2);
    for (int r = 0; r < adam->ranges; r++) {
        const size_t first = adam->range[r].offset, count = adam->range[r].count;
        float *restrict w = adam->parameters->data + first;
        float *restrict m = adam->exp_avg->data + first;
        float *restrict v = adam->exp_avg_sq->data + first;
        const float *restrict dw = adam->gradients->data + first;
#pragma omp parallel for simd num_threads(host->base.threads) schedule(static) if (count > 1024)
        for (size_t i = 0; i < count; i++) {
            const float g = dw[i] + decay * w[i];
            m[i] += rest1 * (g - m[i]);
            v[i] = beta2 * v[i] + rest2 * g * g;
            w[i] = keep * w[i] - step_size * (m[i] / (sqrtf(v[i]) / correction + eps));
        }
    }
}

/*     g = g + weight_decay w
 *     m = momentum m + g
 *     w = w - lr (g + momentum m) */
static inline void host_sgd(struct host *host, const struct sgd *sgd, const struct pass *pass) {
    const float lr = (float)scheduled(sgd->lr, pass);
    const float momentum = (float)sgd->momentum, decay = (float)sgd->weight_decay;
    for (int r = 0; r < sgd->ranges; r++) {
        const size_t first = sgd->range[r].offset, count = sgd->range[r].count;
        float *restrict w = sgd->parameters->data + first;
        float *restrict m = sgd->momentum_buffer->data + first;
        const float *restrict dw = sgd->gradients->data + first;
#pragma omp parallel for simd num_threads(host->base.threads) schedule(static) if (count > 1024)
        for (size_t i = 0; i < count; i++) {
            const float g = dw[i] + decay * w[i];
            m[i] = momentum * m[i] + g;
            w[i] -= lr * (g + momentum * m[i]);
        }
    }
}

/* ---- Muon ---- */

typedef double square[MOST_ROWS][MOST_ROWS];

/* c = a b, of which the first n rows and columns count; c may be a, but not b. */
static inline void square_product(square c, square a, square b, int n) {
    for (int i = 0; i < n; i++) {
        double sum[MOST_ROWS] = {0};
        for (int k = 0; k < n; k++)
            for (int j = 0; j < n; j++)
                sum[j] += a[i][k] * b[k][j];
        memcpy(c[i], sum, sizeof sum);
    }
}

/* The sum of a [count] times b [count]: 16 sums in float, and these in double. */
static inline double dot(const float *a, const float *b, int count) {
    enum { LANES = 16 };
    float lanes[LANES] = {0};
    double sum = 0;
    int i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] += a[i + k] * b[i + k];
    for (; i < count; i++)
        sum += (double)(a[i] * b[i]);
    for (int k = 0; k < LANES; k++)
        sum += (double)lanes[k];
    return sum;
}

/* q = the matrix by which the five iterations multiply X, whose A = X X^T is `a` (overwritten) if X
 * has not been divided by its norm. Each one multiplies X by B = 3.4445 - 4.775 A + 2.0315 A A, a
 * polynomial in A, so that X's next A is B A B, and X itself, which is wide, is never needed; but A
 * has X's singular values squared, which takes double. */
static inline void newton_schulz(square q, square a, int n) {
    double norm = 0;
    for (int i = 0; i < n; i++)
        norm += a[i][i];
    norm = fmax(sqrt(norm), 1e-7);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            a[i][j] /= norm * norm;
            q[i][j] = i == j ? 1 / norm : 0;
        }
    for (int iteration = 0; iteration < 5; iteration++) {
        square b, ab;
        square_product(b, a, a, n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                b[i][j] = 2.0315 * b[i][j] - 4.775 * a[i][j] + (i == j ? 3.4445 : 0);
        square_product(q, q, b, n); /* as b q: both are polynomials in A */
        square_product(ab, a, b, n);
        square_product(a, b, ab, n);
    }
}

/* One matrix; x [rows][columns] is working memory. */
static inline void muon_matrix(float *restrict x, const struct muon *muon, const struct matrix *of,
                               float lr) {
    const int rows = of->rows, columns = of->columns;
    const size_t count = (size_t)rows * (size_t)columns;
    const float momentum = (float)muon->momentum, rest = (float)(1 - muon->momentum);
    float *restrict w = muon->parameters->data + of->offset;
    float *restrict m = muon->momentum_buffer->data + of->offset;
    const float *restrict dw = muon->gradients->data + of->offset;
    square a, q;
    require(1 <= rows && rows <= columns && rows <= MOST_ROWS);
    for (size_t i = 0; i < count; i++) {
        m[i] += rest * (dw[i] - m[i]);
        x[i] = dw[i] + momentum * (m[i] - dw[i]);
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j <= i; j++)
            a[i][j] = a[j][i] = dot(x + i * columns, x + j * columns, columns);
    newton_schulz(q, a, rows);
    const double norm = sqrt(dot(w, w, (int)count));
    const float scale = norm > 0 ? (float)(sqrt(rows) / norm) : 1;
    for (int i = 0; i < rows; i++) {
        float *to = w + i * columns;
        for (int k = 0; k < columns; k++)
            to[k] *= scale;
        for (int j = 0; j < rows; j++) {
            const float factor = lr * (float)q[i][j];
            for (int k = 0; k < columns; k++)
                to[k] -= factor * x[j * columns + k];
        }
    }
}

/* A matrix is one thread's, so that its sums have one order. */
static inline void host_muon(struct host *host, const struct muon *muon, const struct pass *pass) {
    const float lr = (float)scheduled(muon->lr, pass);
    size_t offset[MOST_MATRICES], room = 0;
    for (int k = 0; k < muon->matrices; k++) {
        offset[k] = room;
        room += (size_t)muon->matrix[k].rows * (size_t)muon->matrix[k].columns;
    }
    float *x = host_scratch(host, HOST_OP, room);
#pragma omp parallel for num_threads(host->base.threads) schedule(dynamic)
    for (int k = muon->matrices - 1; k >= 0; k--) /* the largest of a network come last */
        muon_matrix(x + offset[k], muon, &muon->matrix[k], lr);
}

static inline void host_average(struct host *host, const struct average *average,
                                const struct pass *pass) {
    const bool is_first = pass->script.steps_before + pass->steps == 1;
    const float rest = (float)(1 - average->decay);
    const float *restrict of = average->of->data;
    float *restrict to = average->average->data;
#pragma omp parallel for simd num_threads(host->base.threads) schedule(static)
    for (size_t i = 0; i < average->count; i++)
        to[i] = is_first ? of[i] : to[i] + rest * (of[i] - to[i]);
}

/* For a backend's table of kernels. */
#define HOST_OPTIMIZERS                                                                            \
    .adam = host_adam, .sgd = host_sgd, .muon = host_muon, .average = host_average
