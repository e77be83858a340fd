/* Our own kernels: all that is neither a matrix product nor a convolution, but for the gradient of
 * its weights. See kernels.h for what each computes; the formulas are PyTorch's, as told in
 * src/device/openblas.
 *
 * Written in what C and CUDA C++ have in common, so that the tests can run them on a CPU.
 *
 * Sums over a batch are in double and have one order, whatever order the blocks run in: each block
 * leaves its part in memory, and the blocks of the next kernel, or the last one of this, add up the
 * parts. */
#include "kernels.h"

#ifdef __cplusplus
#    define KERNEL extern "C" __global__ void __launch_bounds__(KERNEL_BLOCK, 1)
#else
#    define KERNEL __global__ void
#endif

/* Whether all other of the `blocks` blocks that call this with the same counter have done so, and
 * may have their results read; true in one of them. The counter is 0 again then. */
static __device__ bool is_last_block(unsigned *done, unsigned blocks) {
    __shared__ bool last;
    __threadfence(); /* this thread's results, before the block is counted */
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1u) == blocks - 1;
        if (last)
            *done = 0;
    }
    __syncthreads();
    if (last)
        __threadfence(); /* the others' results, after they were counted */
    return last;
}

/* The sums of `a` and `b` over the threads of this block, in all of them: of 16 rows of 16, which
 * is the fewest steps one after the other. */
static __device__ void sum_block(double *a, double *b) {
    enum { ROWS = 16, COLUMNS = KERNEL_BLOCK / ROWS };
    __shared__ double parts[2][KERNEL_BLOCK], sums[2][COLUMNS];
    const unsigned t = threadIdx.x, which = t / COLUMNS, column = t % COLUMNS;
    double sum = 0;
    parts[0][t] = *a;
    parts[1][t] = *b;
    __syncthreads();
    if (which < 2) {
        for (int row = 0; row < ROWS; row++)
            sum += parts[which][row * COLUMNS + column];
        sums[which][column] = sum;
    }
    __syncthreads();
    *a = *b = 0;
    for (int k = 0; k < COLUMNS; k++) {
        *a += sums[0][k];
        *b += sums[1][k];
    }
}

/* In the kernels that sum over channels a block has channel blockIdx.x of some of the images, and
 * leaves, or adds up, the sums of that channel. */
static __device__ int first_image(int n) {
    return (int)((unsigned)n * blockIdx.y / gridDim.y);
}

static __device__ int end_image(int n) {
    return (int)((unsigned)n * (blockIdx.y + 1) / gridDim.y);
}

static __device__ void leave_sums(struct partial_sums *partial, double a, double b) {
    sum_block(&a, &b);
    if (threadIdx.x == 0) {
        partial->sums[blockIdx.x][blockIdx.y][0] = a;
        partial->sums[blockIdx.x][blockIdx.y][1] = b;
    }
}

static __device__ void add_up_sums(double *a, double *b, const struct partial_sums *partial) {
    /* volatile: within a kernel other blocks have written it */
    volatile const double *part = partial->sums[blockIdx.x][threadIdx.x % KERNEL_SPLITS];
    *a = threadIdx.x < gridDim.y ? part[0] : 0;
    *b = threadIdx.x < gridDim.y ? part[1] : 0;
    sum_block(a, b);
}

/* Whether this thread writes what all blocks of the channel have found. */
static __device__ bool writes_channel(void) {
    return blockIdx.y == 0 && threadIdx.x == 0;
}

/* ---- data ---- */

/* Which of `count` pixels in a line is seen at `at`, -1 if none is. */
static __device__ int pixel_at(int at, int count, bool reflected) {
    if (at >= 0 && at < count)
        return at;
    if (!reflected)
        return -1;
    return at < 0 ? -at : 2 * (count - 1) - at;
}

KERNEL load_batch(const struct load_args a) {
    const int64_t next = a.pass.cursor->next;
    const struct view view = a.pass.views[next + blockIdx.x];
    const int h = a.pass.h, w = a.pass.w, pixels = a.pass.c * h * w;
    const uint8_t *image = a.pass.records + (int64_t)view.image * (1 + pixels) + 1;
    float *x = a.x + (int64_t)blockIdx.x * pixels;
    for (int i = (int)(blockIdx.y * KERNEL_BLOCK + threadIdx.x); i < pixels;
         i += (int)gridDim.y * KERNEL_BLOCK) {
        const int j = view.mirrored ? w - 1 - i % w : i % w;
        const int row = pixel_at(i / w % h - view.down, h, view.reflected);
        const int column = pixel_at(j - view.right, w, view.reflected);
        const bool is_there = row >= 0 && column >= 0;
        const uint8_t pixel = is_there ? image[(i / (h * w) * h + row) * w + column] : 0;
        x[i] = ((float)pixel / 255.0f - 0.5f) / 0.5f;
    }
    if (is_last_block(&a.pass.cursor->blocks, gridDim.x * gridDim.y) && threadIdx.x == 0) {
        a.pass.cursor->next = next + a.n;
        a.pass.cursor->steps++;
    }
}

/* ---- bias gradients ---- */

KERNEL bias_gradients(const struct bias_args a) {
    int job = 0, channel = (int)blockIdx.x;
    while (channel >= a.job[job].c)
        channel -= a.job[job++].c;
    const struct bias_gradient of = a.job[job];
    const int end = end_image(a.n);
    double sum = 0, none = 0;
    for (int i = first_image(a.n); i < end; i++) {
        const float *dy = of.dy + ((int64_t)i * of.c + channel) * of.plane;
        for (int j = threadIdx.x; j < of.plane; j += KERNEL_BLOCK)
            sum += (double)dy[j];
    }
    leave_sums(a.partial, sum, none);
    if (!is_last_block(&a.partial->done[blockIdx.x], gridDim.y))
        return;
    add_up_sums(&sum, &none, a.partial);
    if (threadIdx.x == 0)
        of.dbias[channel] = (float)sum;
}

/* ---- weight gradient ---- */

/* Some rows of an image's output pixels, and the channels that a block has. */
struct tile {
    int64_t image;
    int row, rows;
    int in, ins, out, outs;
};

/* Copying one by one would wait for each float; so a thread has several on their way at a time. */
enum { WARP = 32, WARPS = KERNEL_BLOCK / WARP, AHEAD = 8 };

/* xs [ins][a->rows + kernel - 1][a->pitch] = the pixels of x that a tile comes from. */
static __device__ void stage_x(float *xs, const struct weight_args *a, const struct tile *t,
                               int w) {
    const float *x = a->x + (t->image * a->in + t->in) * a->h * a->w;
    const int x_rows = a->rows + a->kernel - 1, lane = (int)threadIdx.x % WARP;
    for (int c = (int)threadIdx.x / WARP; c < t->ins; c += WARPS)
        for (int j = lane; j < w + a->kernel - 1; j += WARP)
            for (int r = 0; r < x_rows; r += AHEAD) {
                float ahead[AHEAD];
                for (int k = 0; k < AHEAD; k++) {
                    const int y = t->row + r + k - a->pad, at = j - a->pad;
                    const bool is_there = y >= 0 && y < a->h && at >= 0 && at < a->w;
                    ahead[k] = is_there ? x[(c * a->h + y) * a->w + at] : 0;
                }
                for (int k = 0; k < AHEAD && r + k < x_rows; k++)
                    xs[(c * x_rows + r + k) * a->pitch + j] = ahead[k];
            }
}

/* dys [KERNEL_OUTS][KERNEL_TILE][KERNEL_OUT] = its gradients: those of a pixel stand together. */
static __device__ void stage_dy(float *dys, const struct weight_args *a, const struct tile *t,
                                int h, int w) {
    const float *dy = a->dy + ((t->image * a->out + t->out) * h + t->row) * w;
    const int lane = (int)threadIdx.x % WARP;
    for (int c = (int)threadIdx.x / WARP; c < t->outs; c += WARPS)
        for (int j = lane; j < w; j += WARP)
            for (int r = 0; r < t->rows; r += AHEAD) {
                float ahead[AHEAD];
                float *to = dys + c / KERNEL_OUT * KERNEL_TILE * KERNEL_OUT + c % KERNEL_OUT;
                for (int k = 0; k < AHEAD; k++)
                    ahead[k] = r + k < t->rows ? dy[(c * h + r + k) * w + j] : 0;
                for (int k = 0; k < AHEAD && r + k < t->rows; k++)
                    to[((r + k) * w + j) * KERNEL_OUT] = ahead[k];
            }
}

/* The tiles of all images are shared among the blocks of a column, blockIdx.y. A thread has a tap,
 * a place in the kernels, of KERNEL_IN input and KERNEL_OUT output channels: so a float that it
 * reads from the shared memory, which is what takes the time, is good for several multiplications.
 * Where there are fewer of these tasks than threads, several threads share the columns of the
 * tiles. Channels that there are not, to make up a group, are computed from whatever lies there,
 * and not written. */
KERNEL weight_gradient(const struct weight_args a) {
    enum { SUMS = KERNEL_IN * KERNEL_OUT };
    __shared__ __align__(16) float shared[KERNEL_ROOM];
    float *dys = shared, *xs = shared + KERNEL_ROOM - KERNEL_X;
    const int h = a.h + 2 * a.pad - a.kernel + 1, w = a.w + 2 * a.pad - a.kernel + 1;
    const int down = (h + a.rows - 1) / a.rows;                  /* tiles of an image */
    const int in = a.ins * KERNEL_IN, out = a.outs * KERNEL_OUT; /* channels of a block */
    const int wide = (a.in + in - 1) / in;
    struct tile t = {.in = (int)blockIdx.x % wide * in, .out = (int)blockIdx.x / wide * out};
    t.ins = a.in - t.in < in ? a.in - t.in : in;
    t.outs = a.out - t.out < out ? a.out - t.out : out;

    const int area = a.kernel * a.kernel, tasks = area * a.ins * a.outs;
    const int task = (int)threadIdx.x % tasks;
    const int share = (int)threadIdx.x / tasks, shares = KERNEL_BLOCK / tasks;
    const int tap = task % area, c = task / area % a.ins * KERNEL_IN;
    const int k = task / area / a.ins * KERNEL_OUT, plane = (a.rows + a.kernel - 1) * a.pitch;
    const float *tapped = xs + c * plane + tap / a.kernel * a.pitch + tap % a.kernel;
    const float *gradients = dys + k * KERNEL_TILE;

    const unsigned tiles = (unsigned)(a.n * down);
    const int end = (int)(tiles * (blockIdx.y + 1) / gridDim.y);
    float sums[KERNEL_IN][KERNEL_OUT] = {{0}};
    for (int i = (int)(tiles * blockIdx.y / gridDim.y); i < end; i++) {
        t.image = i / down;
        t.row = i % down * a.rows;
        t.rows = h - t.row < a.rows ? h - t.row : a.rows;
        __syncthreads(); /* the tile before has been read */
        stage_x(xs, &a, &t, w);
        stage_dy(dys, &a, &t, h, w);
        __syncthreads();
        for (int r = 0; r < t.rows; r++)
            for (int j = share < shares ? share : w; j < w; j += shares)
                for (int m = 0; m < KERNEL_IN; m++) {
                    const float value = tapped[m * plane + r * a.pitch + j];
                    const float *gradient = gradients + (r * w + j) * KERNEL_OUT;
                    for (int n = 0; n < KERNEL_OUT; n++)
                        sums[m][n] += gradient[n] * value;
                }
    }
    if (shares > 1) { /* the first one adds up */
        __syncthreads();
        for (int i = 0; i < SUMS && share < shares; i++)
            shared[(share * SUMS + i) * tasks + task] = sums[i / KERNEL_OUT][i % KERNEL_OUT];
        __syncthreads();
        for (int j = 1; j < shares && share == 0; j++)
            for (int i = 0; i < SUMS; i++)
                sums[i / KERNEL_OUT][i % KERNEL_OUT] += shared[(j * SUMS + i) * tasks + task];
    }
    if (share > 0)
        return;
    const int64_t first = ((int64_t)blockIdx.y * a.out + t.out + k) * a.in + t.in + c;
    float *partial = a.partial + first * area + tap;
    for (int m = 0; m < KERNEL_IN && c + m < t.ins; m++)
        for (int n = 0; n < KERNEL_OUT && k + n < t.outs; n++)
            partial[(n * a.in + m) * area] = sums[m][n];
}

KERNEL sum_partial(const struct sum_args a) {
    enum { ROWS = KERNEL_BLOCK / KERNEL_ADDED };
    __shared__ double sums[ROWS][KERNEL_ADDED];
    const int column = (int)threadIdx.x % KERNEL_ADDED, row = (int)threadIdx.x / KERNEL_ADDED;
    const int64_t i = (int64_t)blockIdx.x * KERNEL_ADDED + column;
    double sum = 0;
    for (int part = row; part < a.parts && i < a.count; part += ROWS)
        sum += (double)a.partial[part * (int64_t)a.count + i];
    sums[row][column] = sum;
    __syncthreads();
    if (row > 0 || i >= a.count)
        return;
    for (int other = 1; other < ROWS; other++)
        sum += sums[other][column];
    a.to[i] = (float)sum;
}

/* ---- batch normalisation with ReLU and max-pool ---- */

/* One image of this block's channel. */
static __device__ const float *plane_of(const struct norm_args *a, int image) {
    return a->x + ((int64_t)image * a->c + blockIdx.x) * a->h * a->w;
}

KERNEL batch_sums(const struct norm_args a) {
    const float addend = a.addend[blockIdx.x];
    const int end = end_image(a.n);
    double sum = 0, squares = 0;
    for (int i = first_image(a.n); i < end; i++) {
        const float *x = plane_of(&a, i);
        for (int j = threadIdx.x; j < a.h * a.w; j += KERNEL_BLOCK) {
            const double value = (double)(x[j] + addend);
            sum += value;
            squares += value * value; /* of a float: exact, so little is lost to cancellation */
        }
    }
    leave_sums(a.partial, sum, squares);
}

/* The numbers of this block's channel. The kernels of the forward and the backward pass make z, the
 * normalised, scaled and shifted x, by the same operations, so both see the same maximums. */
struct channel {
    float addend, mean, gain, bias;
};

static __device__ struct channel channel_of(const struct norm_args *a, float mean, float invstd) {
    struct channel s;
    s.addend = a->addend[blockIdx.x];
    s.mean = mean;
    s.gain = invstd * a->weight[blockIdx.x];
    s.bias = a->bias[blockIdx.x];
    return s;
}

static __device__ float centred(float x, const struct channel *s) {
    return x + s->addend - s->mean;
}

static __device__ float normalised(float x, const struct channel *s) {
    return fmaf(centred(x, s), s->gain, s->bias);
}

/* The largest z of a window whose first pixel is `x`, and where it is: the first of equals; NaN
 * counts as the largest. */
static __device__ float window_maximum(const float *x, int *at, const struct channel *s, int w,
                                       int pool) {
    float largest = normalised(x[0], s);
    *at = 0;
    for (int k = 1; k < pool * pool; k++) {
        const int here = k / pool * w + k % pool;
        const float z = normalised(x[here], s);
        if (z > largest || isnan(z)) {
            largest = z;
            *at = here;
        }
    }
    return largest;
}

/* The mean and 1/sqrt(variance + eps) of the batch; one thread keeps them. */
static __device__ void batch_statistics(float *mean, float *invstd, const struct norm_args *a) {
    const double m = (double)a->n * a->h * a->w;
    double sum, squares;
    add_up_sums(&sum, &squares, a->partial);
    sum /= m;
    double variance = squares / m - sum * sum;
    variance = variance < 0 ? 0 : variance;
    *mean = (float)sum;
    *invstd = (float)(1 / sqrt(variance + (double)a->eps));
    if (writes_channel()) {
        const unsigned c = blockIdx.x;
        const float unbiased = (float)(variance * m / (m - 1));
        a->mean[c] = *mean;
        a->invstd[c] = *invstd;
        a->running_mean[c] = a->momentum * *mean + (1 - a->momentum) * a->running_mean[c];
        a->running_var[c] = a->momentum * unbiased + (1 - a->momentum) * a->running_var[c];
    }
}

KERNEL normalise(const struct norm_args a) {
    const int pool = a.pool, w = a.w, columns = w / pool, pooled = a.h / pool * columns;
    const int end = end_image(a.n);
    float mean, invstd;
    if (a.training) {
        batch_statistics(&mean, &invstd, &a);
    } else {
        mean = a.running_mean[blockIdx.x];
        invstd = 1 / sqrtf(a.running_var[blockIdx.x] + a.eps);
    }
    const struct channel s = channel_of(&a, mean, invstd);
    for (int i = first_image(a.n); i < end; i++) {
        const float *x = plane_of(&a, i);
        float *y = a.y + ((int64_t)i * a.c + blockIdx.x) * pooled;
        for (int j = threadIdx.x; j < pooled; j += KERNEL_BLOCK) {
            const float *corner = x + (j / columns * w + j % columns) * pool;
            int at;
            const float z = window_maximum(corner, &at, &s, w, pool);
            y[j] = z <= 0 ? 0 : z; /* lets NaN through */
        }
    }
}

KERNEL gradient_sums(const struct norm_args a) {
    const struct channel s = channel_of(&a, a.mean[blockIdx.x], a.invstd[blockIdx.x]);
    const int pool = a.pool, w = a.w, columns = w / pool, pooled = a.h / pool * columns;
    const int end = end_image(a.n);
    double sum = 0, dot = 0;
    for (int i = first_image(a.n); i < end; i++) {
        const float *x = plane_of(&a, i);
        const float *dy = a.dy + ((int64_t)i * a.c + blockIdx.x) * pooled;
        for (int j = threadIdx.x; j < pooled; j += KERNEL_BLOCK) {
            const float *corner = x + (j / columns * w + j % columns) * pool;
            int at;
            const float z = window_maximum(corner, &at, &s, w, pool);
            const double dz = z <= 0 ? 0 : (double)dy[j];
            sum += dz;
            dot += dz * (double)centred(corner[at], &s);
        }
    }
    leave_sums(a.partial, sum, dot);
}

/* dx = (dz - mean of dz - (x - mean) * mean of dz (x - mean) * invstd^2) * invstd * weight. A
 * thread has a window; those that are cut off at the right and the bottom edge are not pooled. */
KERNEL normalise_gradient(const struct norm_args a) {
    const unsigned c = blockIdx.x;
    const struct channel s = channel_of(&a, a.mean[c], a.invstd[c]);
    const int pool = a.pool, h = a.h, w = a.w, end = end_image(a.n);
    const int across = (w + pool - 1) / pool, down = (h + pool - 1) / pool;
    const double m = (double)a.n * h * w, invstd = (double)a.invstd[c];
    double sum, dot;
    add_up_sums(&sum, &dot, a.partial);
    if (writes_channel()) {
        a.dbias[c] = (float)sum;
        a.dweight[c] = (float)(dot * invstd);
    }
    const float mean_dz = (float)(sum / m), slope = (float)(dot / m * invstd * invstd);
    for (int i = first_image(a.n); i < end; i++) {
        const int64_t image = (int64_t)i * a.c + c;
        const float *x = plane_of(&a, i), *dy = a.dy + image * (h / pool) * (w / pool);
        float *dx = a.dx + image * h * w;
        for (int j = threadIdx.x; j < across * down; j += KERNEL_BLOCK) {
            const int row = j / across, column = j % across, corner = (row * w + column) * pool;
            int at = -1;
            float gradient = 0;
            if (row < h / pool && column < w / pool &&
                !(window_maximum(x + corner, &at, &s, w, pool) <= 0))
                gradient = dy[row * (w / pool) + column];
            for (int k = 0; k < pool * pool; k++) {
                const int here = k / pool * w + k % pool;
                if (row * pool + k / pool >= h || column * pool + k % pool >= w)
                    continue;
                const float dz = here == at ? gradient : 0;
                dx[corner + here] = (dz - mean_dz - centred(x[corner + here], &s) * slope) * s.gain;
            }
        }
    }
}

/* ---- loss ---- */

KERNEL cross_entropy(const struct loss_args a) {
    const int64_t first = a.pass.cursor->next - a.n, pixels = a.pass.c * a.pass.h * a.pass.w;
    const int classes = a.pass.classes;
    const double share = 1.0 / a.n;
    const double spread = a.label_smoothing / classes, whole = 1 - a.label_smoothing;
    double total = 0, none = 0;
    for (int i = threadIdx.x; i < a.n; i += KERNEL_BLOCK) {
        float *z = a.logits + (int64_t)i * classes;
        float *result = a.pass.logits + (first + i) * classes;
        const int label = a.pass.records[a.pass.views[first + i].image * (1 + pixels)];
        float largest = 0;
        for (int k = 0; k < classes; k++) {
            z[k] += a.bias[k];
            result[k] = z[k];
            largest = k == 0 || z[k] > largest ? z[k] : largest;
        }
        double sum = 0, all = 0; /* of e^(z - largest), which cannot overflow; of z */
        for (int k = 0; k < classes; k++) {
            sum += (double)expf(z[k] - largest);
            all += (double)z[k];
        }
        total += log(sum) + (double)largest - whole * (double)z[label];
        total -= spread > 0 ? spread * all : 0;
        if (a.dlogits == NULL)
            continue;
        const double scale = 1 / sum;
        for (int k = 0; k < classes; k++) {
            const double softmax = (double)expf(z[k] - largest) * scale;
            const double target = (k == label ? whole : 0) + spread;
            a.dlogits[(int64_t)i * classes + k] = (float)((softmax - target) * share);
        }
    }
    sum_block(&total, &none);
    if (threadIdx.x == 0)
        a.pass.losses[a.pass.cursor->steps - 1] = (float)(total * share);
}

/* ---- optimisers ---- */

/* Where in its block the parameter of this thread is, -1 if it has none. */
static __device__ int64_t own_parameter(const struct group *group) {
    size_t i = (size_t)blockIdx.x * KERNEL_BLOCK + threadIdx.x;
    for (int r = 0; r < group->ranges; r++) {
        if (i < group->range[r].count)
            return (int64_t)(group->range[r].offset + i);
        i -= group->range[r].count;
    }
    return -1;
}

/* The number of the step whose images were loaded last, from 1. */
static __device__ double step_number(const struct pass_data *pass) {
    return (double)(pass->cursor->steps_before + pass->cursor->steps);
}

/* A learning rate in that step. */
static __device__ double scheduled(double lr, const struct pass_data *pass) {
    return lr * pass->schedule[pass->cursor->steps - 1];
}

KERNEL adam(const struct adam_args a) {
    __shared__ float step_size, correction, keep;
    if (threadIdx.x == 0) {
        const double lr = scheduled(a.lr, &a.pass), step = step_number(&a.pass);
        step_size = (float)(lr / (1 - pow(a.beta1, step)));
        correction = (float)sqrt(1 - pow(a.beta2, step));
        keep = a.decoupled ? (float)(1 - lr * a.weight_decay) : 1;
    }
    __syncthreads();
    const float decay = a.decoupled ? 0 : (float)a.weight_decay, eps = (float)a.eps;
    const float rest1 = (float)(1 - a.beta1);
    const float beta2 = (float)a.beta2, rest2 = (float)(1 - a.beta2);
    const int64_t i = own_parameter(&a.group);
    if (i < 0)
        return;
    const float g = a.dw[i] + decay * a.w[i];
    const float m = a.m[i] + rest1 * (g - a.m[i]);
    const float v = beta2 * a.v[i] + rest2 * g * g;
    a.m[i] = m;
    a.v[i] = v;
    a.w[i] = fmaf(-step_size, m / (sqrtf(v) / correction + eps), keep * a.w[i]);
}

KERNEL sgd(const struct sgd_args a) {
    const float lr = (float)scheduled(a.lr, &a.pass), momentum = (float)a.momentum;
    const int64_t i = own_parameter(&a.group);
    if (i < 0)
        return;
    const float g = a.dw[i] + (float)a.weight_decay * a.w[i];
    const float m = momentum * a.m[i] + g;
    a.m[i] = m;
    a.w[i] -= lr * (g + momentum * m);
}

/* ---- Muon ---- */

/* A matrix with as many columns as rows, in shared memory. Those behind the matrix's own rows are
 * there, too, and 0. A thread has four of its numbers: of column threadIdx.x % MOST_ROWS those in
 * each STRIDE-th row from own_row(0). */
typedef double square[MOST_ROWS][MOST_ROWS];
enum { STRIDE = KERNEL_BLOCK / MOST_ROWS, OWN = MOST_ROWS / STRIDE };

static __device__ int own_row(int number) {
    return (int)threadIdx.x / MOST_ROWS + number * STRIDE;
}

static __device__ int own_column(void) {
    return (int)threadIdx.x % MOST_ROWS;
}

/* c = a b, of n rows and columns; c may be one of the two. */
static __device__ void square_product(square c, square a, square b, int n) {
    double sums[OWN] = {0};
    for (int k = 0; k < n; k++)
        for (int r = 0; r < OWN; r++)
            sums[r] += a[own_row(r)][k] * b[k][own_column()];
    __syncthreads();
    for (int r = 0; r < OWN; r++)
        c[own_row(r)][own_column()] = sums[r];
    __syncthreads();
}

/* q = the matrix by which the five iterations multiply X, whose A = X X^T is `a` (overwritten) if X
 * has not been divided by its norm; `b` is working memory. Each one multiplies X by B = 3.4445 -
 * 4.775 A + 2.0315 A A, so that X's next A is B A B: as newton_schulz() of src/device/optimizers.h
 * has it. */
static __device__ void newton_schulz(square q, square a, square b, int n) {
    double norm = 0;
    for (int i = 0; i < n; i++)
        norm += a[i][i];
    norm = fmax(sqrt(norm), 1e-7);
    __syncthreads();
    for (int r = 0; r < OWN; r++) {
        const int i = own_row(r), j = own_column();
        a[i][j] /= norm * norm;
        q[i][j] = i == j ? 1 / norm : 0;
    }
    __syncthreads();
    for (int iteration = 0; iteration < 5; iteration++) {
        square_product(b, a, a, n);
        for (int r = 0; r < OWN; r++) {
            const int i = own_row(r), j = own_column();
            b[i][j] = 2.0315 * b[i][j] - 4.775 * a[i][j] + (i == j ? 3.4445 : 0);
        }
        __syncthreads();
        square_product(q, b, q, n);
        square_product(a, a, b, n);
        square_product(a, b, a, n);
    }
}

/* The momentum moves. Returns this thread's part in the sum of the squares of the weights. */
static __device__ double move_momentum(float *m, const float *dw, const float *w, int count,
                                       float rest) {
    double squares = 0;
    for (int first = (int)threadIdx.x; first < count; first += AHEAD * KERNEL_BLOCK) {
        float ms[AHEAD], gs[AHEAD], ws[AHEAD];
        for (int k = 0; k < AHEAD; k++) {
            const int i = first + k * KERNEL_BLOCK;
            ms[k] = i < count ? m[i] : 0;
            gs[k] = i < count ? dw[i] : 0;
            ws[k] = i < count ? w[i] : 0;
        }
        for (int k = 0; k < AHEAD; k++) {
            const int i = first + k * KERNEL_BLOCK;
            squares += (double)ws[k] * (double)ws[k];
            if (i < count)
                m[i] = ms[k] + rest * (gs[k] - ms[k]);
        }
    }
    return squares;
}

/* A tile, some columns of a matrix: of one of them a thread has each DOWN-th row. */
enum { DOWN = KERNEL_BLOCK / KERNEL_COLUMNS, TILE_ROWS = MOST_ROWS / DOWN };

/* Where number k of a thread's numbers of the tile from column `first` is in the matrix, -1 where
 * there is none. */
static __device__ int in_matrix(const struct matrix *of, int first, int k) {
    const int row = (int)threadIdx.x / KERNEL_COLUMNS + k * DOWN;
    const int column = first + (int)threadIdx.x % KERNEL_COLUMNS;
    return row < of->rows && column < of->columns ? row * of->columns + column : -1;
}

/* xs = the tile of X = G + momentum (M - G), 0 where it is over the edge. The rows are one number
 * longer, so that those of a column are in different banks. */
typedef double tile_of_x[MOST_ROWS][KERNEL_COLUMNS + 1];
static __device__ void stage_matrix(tile_of_x xs, const float *m, const float *dw,
                                    const struct matrix *of, int first, float momentum) {
    float ms[TILE_ROWS], gs[TILE_ROWS];
    for (int k = 0; k < TILE_ROWS; k++) {
        const int i = in_matrix(of, first, k);
        ms[k] = i >= 0 ? m[i] : 0;
        gs[k] = i >= 0 ? dw[i] : 0;
    }
    __syncthreads(); /* the tile before has been read */
    for (int k = 0; k < TILE_ROWS; k++)
        xs[threadIdx.x / KERNEL_COLUMNS + k * DOWN][threadIdx.x % KERNEL_COLUMNS] =
            (double)(gs[k] + momentum * (ms[k] - gs[k]));
    __syncthreads();
}

KERNEL muon(const struct muon_args a) {
    __shared__ square gram, product, q;
    __shared__ tile_of_x xs;
    const struct matrix of = a.matrix[blockIdx.x];
    float *w = a.w + of.offset, *m = a.m + of.offset;
    const float *dw = a.dw + of.offset;
    const double lr = scheduled(a.lr, &a.pass);
    const float momentum = (float)a.momentum;

    double none = 0, sums[OWN] = {0};
    double norm = move_momentum(m, dw, w, of.rows * of.columns, (float)(1 - a.momentum));
    sum_block(&norm, &none); /* the momentum is there for all threads then, too */
    for (int first = 0; first < of.columns; first += KERNEL_COLUMNS) {
        stage_matrix(xs, m, dw, &of, first, momentum);
        for (int k = 0; k < KERNEL_COLUMNS; k++)
            for (int r = 0; r < OWN; r++)
                sums[r] += xs[own_row(r)][k] * xs[own_column()][k];
    }
    for (int r = 0; r < OWN; r++)
        gram[own_row(r)][own_column()] = sums[r];
    __syncthreads();
    newton_schulz(q, gram, product, of.rows);

    const float scale = norm > 0 ? (float)(sqrt((double)of.rows) / sqrt(norm)) : 1;
    for (int first = 0; first < of.columns; first += KERNEL_COLUMNS) {
        double changes[TILE_ROWS] = {0};
        stage_matrix(xs, m, dw, &of, first, momentum);
        for (int j = 0; j < of.rows; j++) {
            const double x = xs[j][threadIdx.x % KERNEL_COLUMNS];
            for (int k = 0; k < TILE_ROWS; k++)
                changes[k] += q[threadIdx.x / KERNEL_COLUMNS + k * DOWN][j] * x;
        }
        for (int k = 0; k < TILE_ROWS; k++) {
            const int i = in_matrix(&of, first, k);
            if (i >= 0)
                w[i] = scale * w[i] - (float)(lr * changes[k]);
        }
    }
}

KERNEL average(const struct average_args a) {
    const int64_t i = (int64_t)blockIdx.x * KERNEL_BLOCK + threadIdx.x;
    if (i >= a.count)
        return;
    if (a.pass.cursor->steps_before + a.pass.cursor->steps == 1)
        a.average[i] = a.of[i];
    else
        a.average[i] += (float)(1 - a.decay) * (a.of[i] - a.average[i]);
}
