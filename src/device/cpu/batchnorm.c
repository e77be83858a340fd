/* Batch normalisation with ReLU and max-pool, a channel at a time: a channel of a batch stays in
 * the cache while it is read for its mean, its variance and its result. Channels are what the
 * threads share out, and each sum has one order.
 *
 * The formulas are PyTorch's (batch_norm_cpu). Sums are made in float along a row, where there are
 * few hundred numbers on many lanes, and in double over the rows. With z the normalised, scaled and
 * shifted x, y = maxpool(relu(z)); z is made again where it is needed, which costs less than
 * keeping it. Loops over 16 floats are as long as a block is wide: what they write beyond a pixel
 * of a smaller block, the next pixel or clear_rest() overwrites. */
#include "cpu.h"

#include <math.h>

struct channel {
    float mean, scale, bias; /* of normalised() */
};

static inline float normalised(float x, struct channel s) {
    return (x - s.mean) * s.scale + s.bias;
}

/* ReLU that lets NaN through, as PyTorch's does. */
static inline float relu(float z) {
    return z <= 0 ? 0 : z;
}

static inline bool is_nan(float z) {
    return z != z;
}

/* best [16] = the largest z of a window, which NaN is when it is there, and at [16] its place in
 * row order, the first of equals. x is the window's first pixel. */
static inline void maximum(float best[BLOCK], int at[BLOCK], const float *x, size_t pitch,
                           int images, int pool, struct channel s) {
    for (int k = 0; k < pool * pool; k++) {
        const float *from = x + (size_t)(k / pool) * pitch + k % pool * images;
        for (int i = 0; i < BLOCK; i++) {
            const float z = normalised(from[i], s);
            const bool larger = k == 0 || z > best[i] || is_nan(z);
            best[i] = larger ? z : best[i];
            at[i] = larger ? k : at[i];
        }
    }
}

/* Row r of y. */
static inline void forward_row(float *y, const float *x, size_t pitch, int images, int columns,
                               int pool, struct channel s) {
    if (pool == 1) {
        for (int j = 0; j < columns * images; j++)
            y[j] = relu(normalised(x[j], s));
        return;
    }
    for (int column = 0; column < columns; column++) {
        float best[BLOCK];
        int at[BLOCK];
        maximum(best, at, x + column * pool * images, pitch, images, pool, s);
        for (int i = 0; i < BLOCK; i++)
            y[column * images + i] = relu(best[i]);
    }
}

/* mean = sum of x / m and variance = sum of (x - mean)^2 / m, over the m floats of a channel. */
static void moments(const struct tensor *x, int n, int c, double *mean, double *variance) {
    const double m = (double)n * x->h * x->w;
    double sum = 0, squares = 0;
    for (int block = 0; block < block_count(n); block++)
        for (int r = 0; r < x->h; r++) {
            const int b = block_images(n, block), length = x->w * b;
            const float *row = tensor_row(x, block, b, c, r);
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int j = 0; j < length; j++)
                part += row[j];
            sum += (double)part;
        }
    *mean = sum / m;
    const float centre = (float)*mean;
    for (int block = 0; block < block_count(n); block++)
        for (int r = 0; r < x->h; r++) {
            const int b = block_images(n, block), length = x->w * b;
            const float *row = tensor_row(x, block, b, c, r);
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int j = 0; j < length; j++)
                part += (row[j] - centre) * (row[j] - centre);
            squares += (double)part;
        }
    *variance = squares / m;
}

void CPU_SET(cpu_batchnorm_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                                    const struct batchnorm *norm, bool training, int n) {
    float *running_mean = slice_data(norm->running_mean);
    float *running_var = slice_data(norm->running_var);
    float *saved = slice_data(norm->saved);
    const int pool = norm->pool;
    tensor_read(x, n);
    tensor_write(y, n);
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        float mean = running_mean[c];
        float invstd = 1 / sqrtf(running_var[c] + norm->eps);
        if (training) {
            double exact_mean, variance, m = (double)n * norm->h * norm->w;
            moments(x, n, c, &exact_mean, &variance);
            saved[c] = mean = (float)exact_mean;
            saved[norm->c + c] = invstd = (float)(1 / sqrt(variance + (double)norm->eps));
            running_mean[c] = norm->momentum * mean + (1 - norm->momentum) * running_mean[c];
            running_var[c] = norm->momentum * (float)(variance * m / (m - 1)) +
                             (1 - norm->momentum) * running_var[c];
        }
        const struct channel s = {mean, invstd * slice_data(norm->weight)[c],
                                  slice_data(norm->bias)[c]};
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block);
            const size_t pitch = row_pitch(x->w, b), y_pitch = row_pitch(y->w, b);
            for (int r = 0; r < y->h; r++) {
                float *to = tensor_row(y, block, b, c, r);
                const float *from = tensor_row(x, block, b, c, r * pool);
                if (pool == 1) /* constants, so that loops are unrolled */
                    forward_row(to, from, pitch, b, y->w, 1, s);
                else if (pool == 2)
                    forward_row(to, from, pitch, b, y->w, 2, s);
                else
                    forward_row(to, from, pitch, b, y->w, pool, s);
                clear_rest(to, (size_t)(y->w * b), y_pitch);
            }
        }
    }
}

/* dz = the gradient at z, from dy: the `pool` rows of one row of dy. */
static inline void backward_rows(float *dz, const float *dy, const float *x, size_t pitch,
                                 int images, int columns, int pool, struct channel s) {
    if (pool == 1) {
        for (int j = 0; j < columns * images; j++)
            dz[j] = normalised(x[j], s) <= 0 ? 0 : dy[j];
        return;
    }
    for (int column = 0; column < columns; column++) {
        float best[BLOCK], gradient[BLOCK];
        int at[BLOCK];
        const int first = column * pool * images;
        maximum(best, at, x + first, pitch, images, pool, s);
        for (int i = 0; i < BLOCK; i++)
            gradient[i] = best[i] <= 0 ? 0 : dy[column * images + i];
        for (int k = 0; k < pool * pool; k++) {
            float *to = dz + (size_t)(k / pool) * pitch + first + k % pool * images;
            for (int i = 0; i < BLOCK; i++)
                to[i] = at[i] == k ? gradient[i] : 0;
        }
    }
}

/* dz of channel c of a block; pixels that no window covers have none. */
static void backward_block(struct tensor *dx, const struct tensor *dy, const struct tensor *x,
                           int block, int b, int c, int pool, struct channel s) {
    const size_t pitch = row_pitch(x->w, b);
    for (int r = 0; r < dy->h; r++) {
        float *to = tensor_row(dx, block, b, c, r * pool);
        const float *from = tensor_row(x, block, b, c, r * pool);
        const float *gradient = tensor_row(dy, block, b, c, r);
        if (pool == 1) /* constants, so that loops are unrolled */
            backward_rows(to, gradient, from, pitch, b, dy->w, 1, s);
        else if (pool == 2)
            backward_rows(to, gradient, from, pitch, b, dy->w, 2, s);
        else
            backward_rows(to, gradient, from, pitch, b, dy->w, pool, s);
        for (int k = 0; k < pool; k++)
            clear_rest(to + (size_t)k * pitch, (size_t)(dy->w * pool * b), pitch);
    }
    for (int r = dy->h * pool; r < x->h; r++)
        clear_rest(tensor_row(dx, block, b, c, r), 0, pitch);
}

void CPU_SET(cpu_batchnorm_backward)(struct device *device, struct tensor *dx,
                                     const struct tensor *dy, const struct tensor *x,
                                     const struct batchnorm *norm, int n) {
    const float *saved = slice_data(norm->saved);
    const float *weight = slice_data(norm->weight), *bias = slice_data(norm->bias);
    float *dweight = slice_data(norm->dweight), *dbias = slice_data(norm->dbias);
    const double m = (double)n * norm->h * norm->w;
    tensor_read(dy, n);
    tensor_read(x, n);
    tensor_write(dx, n);
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const float mean = saved[c], invstd = saved[norm->c + c];
        const struct channel s = {mean, invstd * weight[c], bias[c]};
        double sum = 0, dot = 0; /* of dz, and of dz * (x - mean) */
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block), length = x->w * b;
            backward_block(dx, dy, x, block, b, c, norm->pool, s);
            for (int r = 0; r < x->h; r++) {
                const float *from = tensor_row(x, block, b, c, r);
                const float *dz = tensor_row(dx, block, b, c, r);
                float row_sum = 0, row_dot = 0;
#pragma omp simd reduction(+ : row_sum, row_dot)
                for (int j = 0; j < length; j++) {
                    row_sum += dz[j];
                    row_dot += dz[j] * (from[j] - mean);
                }
                sum += (double)row_sum;
                dot += (double)row_dot;
            }
        }
        dbias[c] = (float)sum;
        dweight[c] = (float)(dot * (double)invstd);

        /* dx = (dz - mean of dz - (x - mean) * dot / m * invstd^2) * invstd * weight */
        const float mean_dz = (float)(sum / m);
        const float slope = (float)(dot / m * (double)invstd * (double)invstd);
        const float gain = invstd * weight[c];
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block), length = x->w * b;
            for (int r = 0; r < x->h; r++) {
                const float *from = tensor_row(x, block, b, c, r);
                float *to = tensor_row(dx, block, b, c, r);
                for (int j = 0; j < length; j++)
                    to[j] = (to[j] - mean_dz - (from[j] - mean) * slope) * gain;
            }
        }
    }
}
