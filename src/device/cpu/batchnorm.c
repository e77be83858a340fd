/* Batch normalisation with ReLU and max-pool; stage.c says in which order. Each sum has one order.
 *
 * The formulas are PyTorch's (batch_norm_cpu). Sums are made in float along a row, where there are
 * few numbers on many lanes, and in double over the rows. With v the normalised, scaled and shifted
 * z, y = maxpool(relu(v)); v is made again where it is needed, which costs less than keeping it.
 *
 * Loops run over whole vectors. Behind the end of a row they find zeros and may write what they
 * like, which clear_rest() takes away. Where there are windows they go pixel by pixel, and what a
 * vector writes beyond the images of a block the next pixel overwrites. */
#include "cpu.h"
#include "vector.h"

#include <math.h>

static inline vector normalised(vector z, struct channel s) {
    return (z - s.mean) * s.scale + s.bias;
}

/* Where ReLU is flat. NaN goes through, as in PyTorch. */
static inline mask is_flat(vector v) {
    return v <= 0;
}

static inline vector zero_where(mask m, vector v) {
    return (vector)(~m & (mask)v);
}

/* The largest v of a window, which NaN is when it is there, and its place in row order, the first
 * of equals. z is the window's first pixel. */
struct maximum {
    vector v;
    mask at;
};

static inline struct maximum maximum(const float *z, size_t pitch, int images, int pool,
                                     struct channel s) {
    struct maximum best = {normalised(load(z), s), {0}};
    for (int k = 1; k < pool * pool; k++) {
        const vector v = normalised(load(z + (size_t)(k / pool) * pitch + k % pool * images), s);
        const mask larger = (v > best.v) | (v != v);
        best.v = choose(larger, v, best.v);
        best.at = (larger & k) | (~larger & best.at);
    }
    return best;
}

/* A row of y; `length` floats. */
static inline void forward_row(float *y, const float *z, size_t length, size_t pitch, int images,
                               int pool, struct channel s) {
    if (pool == 1) {
        for (size_t j = 0; j < length; j += LANES) {
            const vector v = normalised(load(z + j), s);
            store(y + j, zero_where(is_flat(v), v));
        }
        return;
    }
    for (size_t j = 0; j < length; j += (size_t)images)
        for (size_t i = 0; i < (size_t)images; i += LANES) {
            const struct maximum best = maximum(z + j * (size_t)pool + i, pitch, images, pool, s);
            store(y + j + i, zero_where(is_flat(best.v), best.v));
        }
}

/* The rows go side by side: a sum waits for itself only. */
static inline double row_sums(const float *row, size_t pitch, size_t length, int count) {
    vector part[8] = {{0}};
    struct sum sum = {{0}, {0}};
    for (size_t j = 0; j < length; j += LANES)
        for (int r = 0; r < count; r++)
            part[r] += load(row + (size_t)r * pitch + j);
    for (int r = 0; r < count; r++)
        add_to(&sum, part[r]);
    return sum_of_lanes(sum);
}

double CPU_SET(cpu_sum)(const float *row, size_t pitch, size_t length, int count) {
    return count == 4 /* the network's; a constant, so that loops are unrolled */
               ? row_sums(row, pitch, length, 4)
               : row_sums(row, pitch, length, count);
}

double CPU_SET(cpu_squares)(const struct tensor *z, int n, int c, float mean) {
    struct sum squares = {{0}, {0}};
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(n, block);
        const size_t length = (size_t)(z->w * b), whole = length / LANES * LANES;
        for (int r = 0; r < z->h; r++) {
            const float *row = tensor_row(z, block, b, c, r);
            vector part = {0}, rest = spread(mean);
            for (size_t j = 0; j < whole; j += LANES)
                part += (load(row + j) - mean) * (load(row + j) - mean);
            for (size_t j = whole; j < length; j++)
                rest[j - whole] = row[j];
            add_to(&squares, part + (rest - mean) * (rest - mean));
        }
    }
    return sum_of_lanes(squares);
}

void CPU_SET(cpu_normalise)(struct tensor *y, const struct rows *rows, const struct tensor *z,
                            int c, int pool, struct channel s) {
    const int b = rows->images;
    const size_t pitch = row_pitch(z->w, b), length = (size_t)(y->w * b);
    for (int r = 0; r < rows->count / pool && rows->first / pool + r < y->h; r++) {
        float *to = tensor_row(y, rows->block, b, c, rows->first / pool + r);
        const float *from = rows->data + (size_t)c * rows->plane + (size_t)(r * pool) * pitch;
        if (pool == 1) /* constants, so that loops are unrolled */
            forward_row(to, from, length, pitch, b, 1, s);
        else if (pool == 2)
            forward_row(to, from, length, pitch, b, 2, s);
        else
            forward_row(to, from, length, pitch, b, pool, s);
        clear_rest(to, length, row_pitch(y->w, b));
    }
}

/* dv = the gradient at v, from a row of dy: the `pool` rows of its windows. */
static inline void unpool_row(float *dv, const float *dy, const float *z, size_t length,
                              size_t pitch, int images, int pool, struct channel s) {
    for (size_t j = 0; j < length; j += (size_t)images) {
        const size_t first = j * (size_t)pool;
        vector gradient[BLOCK / LANES] = {{0}};
        mask at[BLOCK / LANES] = {{0}};
        for (int i = 0; i < BLOCK / LANES; i++) {
            const struct maximum best = maximum(z + first + i * LANES, pitch, images, pool, s);
            gradient[i] = zero_where(is_flat(best.v), load(dy + j + i * LANES));
            at[i] = best.at;
        }
        for (int k = 0; k < pool * pool; k++) { /* a pixel is whole before the next one is begun */
            float *to = dv + first + (size_t)(k / pool) * pitch + (size_t)(k % pool * images);
            for (int i = 0; i < BLOCK / LANES; i++)
                store(to + i * LANES, zero_where(at[i] != k, gradient[i]));
        }
    }
}

/* dv of channel c of a block; pixels that no window covers have none. */
static void unpool(struct tensor *dv, const struct tensor *dy, const struct tensor *z, int block,
                   int b, int c, int pool, struct channel s) {
    const size_t pitch = row_pitch(z->w, b), length = (size_t)(dy->w * b);
    for (int r = 0; r < dy->h; r++) {
        float *to = tensor_row(dv, block, b, c, r * pool);
        const float *from = tensor_row(z, block, b, c, r * pool);
        const float *gradient = tensor_row(dy, block, b, c, r);
        if (pool == 2) /* a constant, so that loops are unrolled */
            unpool_row(to, gradient, from, length, pitch, b, 2, s);
        else
            unpool_row(to, gradient, from, length, pitch, b, pool, s);
        for (int k = 0; k < pool; k++)
            clear_rest(to + (size_t)k * pitch, length * (size_t)pool, pitch);
    }
    for (int r = dy->h * pool; r < z->h; r++)
        clear_rest(tensor_row(dv, block, b, c, r), 0, pitch);
}

/* A vector of dv: of the windows' gradients, or without a pool of dy where ReLU is not flat. */
static inline vector gradient_at_z(const float *d, const float *z, bool pooled, struct channel s) {
    return pooled ? load(d) : zero_where(is_flat(normalised(load(z), s)), load(d));
}

void CPU_SET(cpu_batchnorm_backward)(struct host *host, struct tensor *dz, const struct tensor *dy,
                                     const struct tensor *z, const struct batchnorm *norm, int n) {
    const float *saved = slice_data(norm->saved);
    const float *weight = slice_data(norm->weight), *bias = slice_data(norm->bias);
    float *dweight = slice_data(norm->dweight), *dbias = slice_data(norm->dbias);
    const double m = (double)n * norm->h * norm->w;
    const bool pooled = norm->pool > 1;
    const struct tensor *d = pooled ? dz : dy; /* dz keeps dv meanwhile if there are windows */
#pragma omp parallel for num_threads(host->base.threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const float mean = saved[c], invstd = saved[norm->c + c];
        const struct channel s = {mean, invstd * weight[c], bias[c]};
        struct sum sums = {{0}, {0}}, dots = {{0}, {0}}; /* of dv, and of dv * (z - mean) */
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block);
            const size_t length = (size_t)(z->w * b);
            if (pooled)
                unpool(dz, dy, z, block, b, c, norm->pool, s);
            for (int r = 0; r < z->h; r++) {
                const float *from = tensor_row(z, block, b, c, r);
                const float *gradient = tensor_row(d, block, b, c, r);
                vector row_sum = {0}, row_dot = {0};
                for (size_t j = 0; j < length; j += LANES) {
                    const vector dv = gradient_at_z(gradient + j, from + j, pooled, s);
                    row_sum += dv;
                    row_dot += dv * (load(from + j) - mean);
                }
                add_to(&sums, row_sum);
                add_to(&dots, row_dot);
            }
        }
        const double sum = sum_of_lanes(sums), dot = sum_of_lanes(dots);
        dbias[c] = (float)sum;
        dweight[c] = (float)(dot * (double)invstd);

        /* dz = (dv - mean of dv - (z - mean) * dot / m * invstd^2) * invstd * weight */
        const float mean_dv = (float)(sum / m);
        const float slope = (float)(dot / m * (double)invstd * (double)invstd);
        const float gain = invstd * weight[c];
        for (int block = 0; block < block_count(n); block++) {
            const int b = block_images(n, block);
            const size_t length = (size_t)(z->w * b);
            for (int r = 0; r < z->h; r++) {
                const float *from = tensor_row(z, block, b, c, r);
                const float *gradient = tensor_row(d, block, b, c, r);
                float *to = tensor_row(dz, block, b, c, r);
                for (size_t j = 0; j < length; j += LANES) {
                    const vector dv = gradient_at_z(gradient + j, from + j, pooled, s);
                    store(to + j, (dv - mean_dv - (load(from + j) - mean) * slope) * gain);
                }
                clear_rest(to, length, row_pitch(z->w, b));
            }
        }
    }
}
