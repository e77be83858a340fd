/* Batch normalisation with ReLU and max-pool, a channel at a time: a channel of a batch stays in
 * the cache while it is read for its mean, its variance and its result. Channels are what the
 * threads share out, and each sum has one order.
 *
 * The formulas are PyTorch's (batch_norm_cpu). Sums are made in float along a row, where there are
 * few numbers on many lanes, and in double over the rows. With z the normalised, scaled and shifted
 * x, y = maxpool(relu(z)); z is made again where it is needed, which costs less than keeping it.
 *
 * Loops run over whole vectors. Behind the end of a row they find zeros and may write what they
 * like, which clear_rest() takes away. Where there are windows they go pixel by pixel, and what a
 * vector writes beyond the images of a block the next pixel overwrites. */
#include "cpu.h"
#include "vector.h"

#include <math.h>

struct channel {
    float mean, scale, bias; /* of normalised() */
};

static inline vector normalised(vector x, struct channel s) {
    return (x - s.mean) * s.scale + s.bias;
}

/* Where ReLU is flat. NaN goes through, as in PyTorch. */
static inline mask is_flat(vector z) {
    return z <= 0;
}

static inline vector zero_where(mask m, vector v) {
    return (vector)(~m & (mask)v);
}

/* The largest z of a window, which NaN is when it is there, and its place in row order, the first
 * of equals. x is the window's first pixel. */
struct maximum {
    vector z;
    mask at;
};

static inline struct maximum maximum(const float *x, size_t pitch, int images, int pool,
                                     struct channel s) {
    struct maximum best = {normalised(load(x), s), {0}};
    for (int k = 1; k < pool * pool; k++) {
        const vector z = normalised(load(x + (size_t)(k / pool) * pitch + k % pool * images), s);
        const mask larger = (z > best.z) | (z != z);
        best.z = choose(larger, z, best.z);
        best.at = (larger & k) | (~larger & best.at);
    }
    return best;
}

/* A row of y; `length` floats. */
static inline void forward_row(float *y, const float *x, size_t length, size_t pitch, int images,
                               int pool, struct channel s) {
    if (pool == 1) {
        for (size_t j = 0; j < length; j += LANES) {
            const vector z = normalised(load(x + j), s);
            store(y + j, zero_where(is_flat(z), z));
        }
        return;
    }
    for (size_t j = 0; j < length; j += (size_t)images)
        for (size_t i = 0; i < (size_t)images; i += LANES) {
            const struct maximum best = maximum(x + j * (size_t)pool + i, pitch, images, pool, s);
            store(y + j + i, zero_where(is_flat(best.z), best.z));
        }
}

/* mean = sum of x / m and variance = sum of (x - mean)^2 / m, over the m floats of a channel. */
static void moments(const struct tensor *x, int n, int c, double *mean, double *variance) {
    const double m = (double)n * x->h * x->w;
    double sum = 0, squares = 0;
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(n, block);
        const size_t length = (size_t)(x->w * b);
        for (int r = 0; r < x->h; r++) {
            const float *row = tensor_row(x, block, b, c, r);
            vector part = {0};
            for (size_t j = 0; j < length; j += LANES)
                part += load(row + j);
            sum += sum_of_lanes(part);
        }
    }
    *mean = sum / m;
    const float centre = (float)*mean;
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(n, block);
        const size_t length = (size_t)(x->w * b), whole = length / LANES * LANES;
        for (int r = 0; r < x->h; r++) {
            const float *row = tensor_row(x, block, b, c, r);
            vector part = {0}, rest = spread(centre);
            for (size_t j = 0; j < whole; j += LANES)
                part += (load(row + j) - centre) * (load(row + j) - centre);
            for (size_t j = whole; j < length; j++)
                rest[j - whole] = row[j];
            squares += sum_of_lanes(part + (rest - centre) * (rest - centre));
        }
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
            const size_t pitch = row_pitch(x->w, b), length = (size_t)(y->w * b);
            for (int r = 0; r < y->h; r++) {
                float *to = tensor_row(y, block, b, c, r);
                const float *from = tensor_row(x, block, b, c, r * pool);
                if (pool == 1) /* constants, so that loops are unrolled */
                    forward_row(to, from, length, pitch, b, 1, s);
                else if (pool == 2)
                    forward_row(to, from, length, pitch, b, 2, s);
                else
                    forward_row(to, from, length, pitch, b, pool, s);
                clear_rest(to, length, row_pitch(y->w, b));
            }
        }
    }
}

/* dz = the gradient at z, from a row of dy: the `pool` rows of its windows. */
static inline void unpool_row(float *dz, const float *dy, const float *x, size_t length,
                              size_t pitch, int images, int pool, struct channel s) {
    for (size_t j = 0; j < length; j += (size_t)images) {
        const size_t first = j * (size_t)pool;
        vector gradient[BLOCK / LANES] = {{0}};
        mask at[BLOCK / LANES] = {{0}};
        for (int i = 0; i < BLOCK / LANES; i++) {
            const struct maximum best = maximum(x + first + i * LANES, pitch, images, pool, s);
            gradient[i] = zero_where(is_flat(best.z), load(dy + j + i * LANES));
            at[i] = best.at;
        }
        for (int k = 0; k < pool * pool; k++) { /* a pixel is whole before the next one is begun */
            float *to = dz + first + (size_t)(k / pool) * pitch + (size_t)(k % pool * images);
            for (int i = 0; i < BLOCK / LANES; i++)
                store(to + i * LANES, zero_where(at[i] != k, gradient[i]));
        }
    }
}

/* dz of channel c of a block; pixels that no window covers have none. */
static void unpool(struct tensor *dz, const struct tensor *dy, const struct tensor *x, int block,
                   int b, int c, int pool, struct channel s) {
    const size_t pitch = row_pitch(x->w, b), length = (size_t)(dy->w * b);
    for (int r = 0; r < dy->h; r++) {
        float *to = tensor_row(dz, block, b, c, r * pool);
        const float *from = tensor_row(x, block, b, c, r * pool);
        const float *gradient = tensor_row(dy, block, b, c, r);
        if (pool == 2) /* a constant, so that loops are unrolled */
            unpool_row(to, gradient, from, length, pitch, b, 2, s);
        else
            unpool_row(to, gradient, from, length, pitch, b, pool, s);
        for (int k = 0; k < pool; k++)
            clear_rest(to + (size_t)k * pitch, length * (size_t)pool, pitch);
    }
    for (int r = dy->h * pool; r < x->h; r++)
        clear_rest(tensor_row(dz, block, b, c, r), 0, pitch);
}

/* A vector of dz: of the windows' gradients, or without a pool of dy where ReLU is not flat. */
static inline vector gradient_at_z(const float *d, const float *x, bool pooled, struct channel s) {
    return pooled ? load(d) : zero_where(is_flat(normalised(load(x), s)), load(d));
}

void CPU_SET(cpu_batchnorm_backward)(struct device *device, struct tensor *dx,
                                     const struct tensor *dy, const struct tensor *x,
                                     const struct batchnorm *norm, int n) {
    const float *saved = slice_data(norm->saved);
    const float *weight = slice_data(norm->weight), *bias = slice_data(norm->bias);
    float *dweight = slice_data(norm->dweight), *dbias = slice_data(norm->dbias);
    const double m = (double)n * norm->h * norm->w;
    const bool pooled = norm->pool > 1;
    tensor_read(dy, n);
    tensor_read(x, n);
    tensor_write(dx, n);
    const struct tensor *d = pooled ? dx : dy; /* dx keeps dz meanwhile if there are windows */
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const float mean = saved[c], invstd = saved[norm->c + c];
        const struct channel s = {mean, invstd * weight[c], bias[c]};
        double sum = 0, dot = 0; /* of dz, and of dz * (x - mean) */
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block);
            const size_t length = (size_t)(x->w * b);
            if (pooled)
                unpool(dx, dy, x, block, b, c, norm->pool, s);
            for (int r = 0; r < x->h; r++) {
                const float *from = tensor_row(x, block, b, c, r);
                const float *gradient = tensor_row(d, block, b, c, r);
                vector row_sum = {0}, row_dot = {0};
                for (size_t j = 0; j < length; j += LANES) {
                    const vector dz = gradient_at_z(gradient + j, from + j, pooled, s);
                    row_sum += dz;
                    row_dot += dz * (load(from + j) - mean);
                }
                sum += sum_of_lanes(row_sum);
                dot += sum_of_lanes(row_dot);
            }
        }
        dbias[c] = (float)sum;
        dweight[c] = (float)(dot * (double)invstd);

        /* dx = (dz - mean of dz - (x - mean) * dot / m * invstd^2) * invstd * weight */
        const float mean_dz = (float)(sum / m);
        const float slope = (float)(dot / m * (double)invstd * (double)invstd);
        const float gain = invstd * weight[c];
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block);
            const size_t length = (size_t)(x->w * b);
            for (int r = 0; r < x->h; r++) {
                const float *from = tensor_row(x, block, b, c, r);
                const float *gradient = tensor_row(d, block, b, c, r);
                float *to = tensor_row(dx, block, b, c, r);
                for (size_t j = 0; j < length; j += LANES) {
                    const vector dz = gradient_at_z(gradient + j, from + j, pooled, s);
                    store(to + j, (dz - mean_dz - (load(from + j) - mean) * slope) * gain);
                }
                clear_rest(to, length, row_pitch(x->w, b));
            }
        }
    }
}
