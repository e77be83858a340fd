/* Batch normalisation with ReLU and max-pool, a channel at a time: each channel's statistics are
 * its own, so channels are what the threads share out, and each sum has one order.
 *
 * The formulas are PyTorch's (batch_norm_cpu): sums in double, the rest in float. With z the
 * normalised, scaled and shifted x, y = maxpool(relu(z)); z is made again where it is needed, which
 * costs less than keeping it. */
#include "openblas.h"

#include <math.h>
#include <string.h>

/* One channel of a batch. */
struct channel {
    int h, w, pool;
    size_t plane;            /* h * w */
    float mean, scale, bias; /* of normalised() */
};

static struct channel channel_of(const struct batchnorm *norm, int c, float mean, float invstd) {
    struct channel s = {.h = norm->h, .w = norm->w, .pool = norm->pool};
    s.plane = (size_t)norm->h * (size_t)norm->w;
    s.scale = invstd * slice_data(norm->weight)[c];
    s.mean = mean;
    s.bias = slice_data(norm->bias)[c];
    return s;
}

static inline float normalised(float x, const struct channel *s) {
    return (x - s->mean) * s->scale + s->bias;
}

/* ReLU that lets NaN through, as PyTorch's does. */
static inline float relu(float z) {
    return z <= 0 ? 0 : z;
}

/* y [h/pool][w/pool] = the largest z of each window, which NaN is when it is there. Column by
 * column in the innermost loop, so that it can be vectorised. */
static inline void maximums(float *y, const float *x, const struct channel *s, int pool) {
    const int columns = s->w / pool;
    for (int row = 0; row < s->h / pool; row++, y += columns)
        for (int k = 0; k < pool * pool; k++) {
            const float *from = x + (row * pool + k / pool) * s->w + k % pool;
            for (int i = 0; i < columns; i++) {
                const float z = normalised(from[i * pool], s);
                y[i] = k == 0 || z > y[i] || isnan(z) ? z : y[i];
            }
        }
}

/* Where in the plane the first largest z of the window at output [row][column] is. */
static size_t first_maximum(const float *x, const struct channel *s, int row, int column) {
    const size_t corner = (size_t)(row * s->pool) * (size_t)s->w + (size_t)(column * s->pool);
    size_t at = corner;
    float largest = normalised(x[corner], s);
    for (int dy = 0; dy < s->pool; dy++)
        for (int dx = 0; dx < s->pool; dx++) {
            const size_t here = corner + (size_t)dy * (size_t)s->w + (size_t)dx;
            const float z = normalised(x[here], s);
            if (z > largest || isnan(z)) {
                largest = z;
                at = here;
            }
        }
    return at;
}

/* mean = sum of x / m and variance = sum of (x - mean)^2 / m, over the m floats of a channel. */
static void moments(const struct tensor *x, int n, size_t channel, size_t plane, double *mean,
                    double *variance) {
    const double m = (double)n * (double)plane;
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        const float *p = x->data + (size_t)i * x->image + channel * plane;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < plane; j++)
            sum += (double)p[j];
    }
    *mean = sum / m;
    for (int i = 0; i < n; i++) {
        const float *p = x->data + (size_t)i * x->image + channel * plane;
#pragma omp simd reduction(+ : squares)
        for (size_t j = 0; j < plane; j++)
            squares += ((double)p[j] - *mean) * ((double)p[j] - *mean);
    }
    *variance = squares / m;
}

void openblas_batchnorm_forward(struct device *device, struct tensor *y, const struct tensor *x,
                                const struct batchnorm *norm, bool training, int n) {
    float *running_mean = slice_data(norm->running_mean);
    float *running_var = slice_data(norm->running_var);
    float *saved = slice_data(norm->saved);
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const size_t plane = (size_t)norm->h * (size_t)norm->w;
        float mean = running_mean[c];
        float invstd = 1 / sqrtf(running_var[c] + norm->eps);
        if (training) {
            double exact_mean, variance, m = (double)n * (double)plane;
            moments(x, n, (size_t)c, plane, &exact_mean, &variance);
            saved[c] = mean = (float)exact_mean;
            saved[norm->c + c] = invstd = (float)(1 / sqrt(variance + (double)norm->eps));
            running_mean[c] = norm->momentum * mean + (1 - norm->momentum) * running_mean[c];
            running_var[c] = norm->momentum * (float)(variance * m / (m - 1)) +
                             (1 - norm->momentum) * running_var[c];
        }
        const struct channel s = channel_of(norm, c, mean, invstd);
        const size_t pooled = (size_t)(s.h / s.pool) * (size_t)(s.w / s.pool);
        for (int i = 0; i < n; i++) {
            const float *from = x->data + (size_t)i * x->image + (size_t)c * plane;
            float *to = y->data + (size_t)i * y->image + (size_t)c * pooled;
            if (s.pool == 2) /* the network's; a constant, so that the loop can be unrolled */
                maximums(to, from, &s, 2);
            else
                maximums(to, from, &s, s.pool);
            for (size_t j = 0; j < pooled; j++)
                to[j] = relu(to[j]);
        }
    }
}

/* dz [plane] = the gradient at z of one image's channel, from dy. */
static void unpool(float *dz, const float *dy, const float *x, const struct channel *s) {
    if (s->pool == 1) {
        for (size_t j = 0; j < s->plane; j++)
            dz[j] = normalised(x[j], s) <= 0 ? 0 : dy[j];
        return;
    }
    memset(dz, 0, s->plane * sizeof *dz);
    for (int row = 0; row < s->h / s->pool; row++)
        for (int column = 0; column < s->w / s->pool; column++, dy++) {
            const size_t at = first_maximum(x, s, row, column);
            dz[at] = normalised(x[at], s) <= 0 ? 0 : *dy;
        }
}

void openblas_batchnorm_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                                 const struct tensor *x, const struct batchnorm *norm, int n) {
    const float *saved = slice_data(norm->saved);
    const float *weight = slice_data(norm->weight);
    float *dweight = slice_data(norm->dweight), *dbias = slice_data(norm->dbias);
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const float mean = saved[c], invstd = saved[norm->c + c];
        const struct channel s = channel_of(norm, c, mean, invstd);
        const double m = (double)n * (double)s.plane;
        const size_t pooled = (size_t)(s.h / s.pool) * (size_t)(s.w / s.pool);
        double sum = 0, dot = 0; /* of dz, and of dz * (x - mean) */
        for (int i = 0; i < n; i++) {
            const float *p = x->data + (size_t)i * x->image + (size_t)c * s.plane;
            float *dz = dx->data + (size_t)i * dx->image + (size_t)c * s.plane;
            unpool(dz, dy->data + (size_t)i * dy->image + (size_t)c * pooled, p, &s);
#pragma omp simd reduction(+ : sum, dot)
            for (size_t j = 0; j < s.plane; j++) {
                sum += (double)dz[j];
                dot += (double)dz[j] * (double)(p[j] - mean);
            }
        }
        dbias[c] = (float)sum;
        dweight[c] = (float)(dot * (double)invstd);

        /* dx = (dz - mean of dz - (x - mean) * dot / m * invstd^2) * invstd * weight */
        const float mean_dz = (float)(sum / m);
        const float slope = (float)(dot / m * (double)invstd * (double)invstd);
        const float gain = invstd * weight[c];
        for (int i = 0; i < n; i++) {
            const float *p = x->data + (size_t)i * x->image + (size_t)c * s.plane;
            float *dz = dx->data + (size_t)i * dx->image + (size_t)c * s.plane;
            for (size_t j = 0; j < s.plane; j++)
                dz[j] = (dz[j] - mean_dz - (p[j] - mean) * slope) * gain;
        }
    }
}
