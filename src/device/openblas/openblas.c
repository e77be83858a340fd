/* The backend `openblas`: OpenBLAS does the arithmetic of the convolutions and of the Linear layer,
 * plain loops the rest. It is also the reference for the other backends, so it prefers what is
 * plainly right to what is fast.
 *
 * Activations are [n][c][h][w]. Threads share out images or channels, and OpenBLAS runs in the
 * calling thread. */
#include "../optimizers.h"
#include "library.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

extern const struct device_ops openblas_ops;

struct tensor {
    float *data;
    size_t image; /* floats an image */
    int capacity; /* images */
};

/* ---- activations ---- */

static struct tensor *tensor_new(struct device *device, int n, int c, int h, int w) {
    struct host *d = host_of(device);
    struct tensor *tensor = host_own(d, 1, sizeof *tensor);
    tensor->image = (size_t)c * (size_t)h * (size_t)w;
    tensor->capacity = n;
    tensor->data = host_own(d, (size_t)n * tensor->image, sizeof *tensor->data);
    return tensor;
}

static void tensor_upload(struct device *device, struct tensor *to, const float *from, int n) {
    (void)device;
    require(n <= to->capacity);
    memcpy(to->data, from, (size_t)n * to->image * sizeof *from);
}

static bool tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error) {
    (void)device, (void)error;
    require(n <= from->capacity);
    memcpy(to, from->data, (size_t)n * from->image * sizeof *to);
    return true;
}

/* ---- convolution ----
 *
 * As matrix products: im2col lays the windows of x out as columns, and
 *
 *     y [out][pixels]  = weight [out][window] * columns [window][pixels]      forward
 *     dweight          = dy [out][pixels] * columns^T                         weight gradient
 *     dx [in][pixels'] = turned [in][window'] * columns' [window'][pixels']   data gradient
 *
 * where window = in*kernel*kernel. The data gradient is itself a convolution, of dy with the
 * weights turned by 180 degrees, in and out exchanged and kernel-1-pad of padding, so the forward
 * code serves. Images are independent of each other; each is cut into tiles of a few rows whose
 * columns stay in the second-level cache between im2col and the product. */

enum {
    TILE = 48 * 1024, /* floats of columns in a tile: 192 KiB, part of a core's L2 cache */
    GROUPS = 32,      /* into so many the images of a batch are grouped to sum weight gradients */
};

/* The dimensions of one convolution of one image. */
struct window {
    int in, out, kernel, pad;
    int h, w;               /* of the input */
    int padded_h, padded_w; /* of the input with its border of zeros */
    int rows, columns;      /* of the output */
    int size;               /* in * kernel * kernel */
    int tile;               /* output rows in a tile */
    size_t scratch;         /* floats that a thread needs: a padded image and a tile's columns */
};

static struct window window_of(int in, int out, int kernel, int pad, int h, int w) {
    struct window s = {.in = in, .out = out, .kernel = kernel, .pad = pad, .h = h, .w = w};
    s.padded_h = h + 2 * pad;
    s.padded_w = w + 2 * pad;
    s.rows = s.padded_h - kernel + 1;
    s.columns = s.padded_w - kernel + 1;
    s.size = in * kernel * kernel;
    require(s.rows > 0 && s.columns > 0);
    int fitting = TILE / (s.size * s.columns);
    s.tile = fitting < 1 ? 1 : fitting > s.rows ? s.rows : fitting;
    s.scratch = (size_t)in * (size_t)(s.padded_h * s.padded_w) +
                (size_t)s.size * (size_t)(s.tile * s.columns);
    return s;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

/* padded [in][padded_h][padded_w] = x [in][h][w] in a border of `pad` zeros, or less than x where
 * pad is negative. Answers where the scratch goes on behind it. */
static float *pad_image(float *padded, const float *x, const struct window *s) {
    const int left = s->pad > 0 ? s->pad : 0, skipped = s->pad < 0 ? -s->pad : 0;
    const int width = least(s->w, s->padded_w);
    float *to = padded;
    for (int c = 0; c < s->in; c++)
        for (int row = 0; row < s->padded_h; row++, to += s->padded_w) {
            const int y = row - s->pad;
            memset(to, 0, (size_t)s->padded_w * sizeof *to);
            if (y >= 0 && y < s->h)
                memcpy(to + left, x + ((size_t)c * s->h + y) * s->w + skipped,
                       (size_t)width * sizeof *to);
        }
    return to;
}

/* columns [in][kernel][kernel][rows][columns] = the windows that make output rows
 * first .. first+rows-1 of one padded image. */
static void im2col(float *columns, const float *padded, const struct window *s, int first,
                   int rows) {
    for (int c = 0; c < s->in; c++)
        for (int ky = 0; ky < s->kernel; ky++)
            for (int kx = 0; kx < s->kernel; kx++) {
                const float *from =
                    padded + ((size_t)c * s->padded_h + first + ky) * s->padded_w + kx;
                for (int row = 0; row < rows; row++, from += s->padded_w, columns += s->columns)
                    memcpy(columns, from, (size_t)s->columns * sizeof *columns);
            }
}

/* y [out][rows][columns] = x [in][h][w] convolved with weight [out][size], plus bias [out] or
 * nothing if it is NULL; one image. */
static void convolve(float *y, const float *x, const float *weight, const float *bias,
                     const struct window *s, float *scratch) {
    const int plane = s->rows * s->columns;
    float *columns = pad_image(scratch, x, s);
    for (int o = 0; o < s->out; o++)
        for (int i = 0; i < plane; i++)
            y[(size_t)o * plane + i] = bias == NULL ? 0 : bias[o];
    for (int first = 0; first < s->rows; first += s->tile) {
        const int rows = least(s->tile, s->rows - first), pixels = rows * s->columns;
        im2col(columns, scratch, s, first, rows);
        openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->out, pixels, s->size, 1,
                             weight, s->size, columns, pixels, 1, y + first * s->columns, plane);
    }
}

/* dweight [out][size] and dbias [out] += what one image adds to them. */
static void add_weight_gradient(float *dweight, float *dbias, const float *dy, const float *x,
                                const struct window *s, float *scratch) {
    const int plane = s->rows * s->columns;
    float *columns = pad_image(scratch, x, s);
    for (int o = 0; o < s->out; o++) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < plane; i++)
            sum += (double)dy[(size_t)o * plane + i];
        dbias[o] += (float)sum;
    }
    for (int first = 0; first < s->rows; first += s->tile) {
        const int rows = least(s->tile, s->rows - first), pixels = rows * s->columns;
        im2col(columns, scratch, s, first, rows);
        openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->out, s->size, pixels, 1,
                             dy + first * s->columns, plane, columns, pixels, 1, dweight, s->size);
    }
}

/* turned [in][out][kernel][kernel], each kernel turned by 180 degrees, of weight [out][in][..]. */
static void turn(float *turned, const float *weight, int out, int in, int area) {
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            for (int k = 0; k < area; k++)
                turned[(i * out + o) * area + (area - 1 - k)] = weight[(o * in + i) * area + k];
}

static void conv2d_forward(struct host *d, struct tensor *y, const struct tensor *x,
                           const struct conv2d *conv, int n) {
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    const float *weight = slice_data(conv->weight), *bias = slice_data(conv->bias);
    float *scratch = host_scratch(d, HOST_OP, (size_t)d->base.threads * s.scratch);
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int i = 0; i < n; i++)
        convolve(y->data + (size_t)i * y->image, x->data + (size_t)i * x->image, weight, bias, &s,
                 scratch + (size_t)omp_get_thread_num() * s.scratch);
}

static void conv2d_backward(struct host *d, struct tensor *dx, const struct tensor *dy,
                            const struct tensor *x, const struct conv2d *conv, int n) {
    const int area = conv->kernel * conv->kernel;
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    const struct window back = window_of(conv->out, conv->in, conv->kernel,
                                         conv->kernel - 1 - conv->pad, s.rows, s.columns);
    const size_t weights = (size_t)s.out * (size_t)s.size, sums = weights + (size_t)s.out;
    const size_t own = s.scratch > back.scratch ? s.scratch : back.scratch;
    const int groups = least(n, GROUPS);

    /* scratch: turned weights, then the sums of each group, then what each thread needs */
    float *turned =
        host_scratch(d, HOST_OP, weights + (size_t)groups * sums + (size_t)d->base.threads * own);
    float *partial = turned + weights;
    float *threads = partial + (size_t)groups * sums;
    if (dx != NULL)
        turn(turned, slice_data(conv->weight), conv->out, conv->in, area);

#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int group = 0; group < groups; group++) {
        float *scratch = threads + (size_t)omp_get_thread_num() * own;
        float *dweight = partial + (size_t)group * sums, *dbias = dweight + weights;
        memset(dweight, 0, sums * sizeof *dweight);
        for (int i = (int)((int64_t)n * group / groups); i < (int64_t)n * (group + 1) / groups;
             i++) {
            const float *dy_image = dy->data + (size_t)i * dy->image;
            add_weight_gradient(dweight, dbias, dy_image, x->data + (size_t)i * x->image, &s,
                                scratch);
            if (dx != NULL)
                convolve(dx->data + (size_t)i * dx->image, dy_image, turned, NULL, &back, scratch);
        }
    }

    float *dweight = slice_data(conv->dweight), *dbias = slice_data(conv->dbias);
#pragma omp parallel for num_threads(d->base.threads) schedule(static)
    for (size_t i = 0; i < sums; i++) {
        float sum = 0;
        for (int group = 0; group < groups; group++)
            sum += partial[(size_t)group * sums + i];
        *(i < weights ? &dweight[i] : &dbias[i - weights]) = sum;
    }
}

/* ---- batch normalisation, ReLU and max-pool ----
 *
 * A channel at a time: each channel's statistics are its own, so channels are what the threads
 * share out, and each sum has one order.
 *
 * The formulas are PyTorch's (batch_norm_cpu): sums in double, the rest in float. With v the
 * normalised, scaled and shifted z, y = maxpool(relu(v)); v is made again where it is needed, which
 * costs less than keeping it. */

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

static inline float normalised(float z, const struct channel *s) {
    return (z - s->mean) * s->scale + s->bias;
}

/* ReLU that lets NaN through, as PyTorch's does. */
static inline float relu(float v) {
    return v <= 0 ? 0 : v;
}

/* y [h/pool][w/pool] = the largest v of each window, which NaN is when it is there. Column by
 * column in the innermost loop, so that it can be vectorised. */
static inline void maximums(float *y, const float *z, const struct channel *s, int pool) {
    const int columns = s->w / pool;
    for (int row = 0; row < s->h / pool; row++, y += columns)
        for (int k = 0; k < pool * pool; k++) {
            const float *from = z + (row * pool + k / pool) * s->w + k % pool;
            for (int i = 0; i < columns; i++) {
                const float v = normalised(from[i * pool], s);
                y[i] = k == 0 || v > y[i] || isnan(v) ? v : y[i];
            }
        }
}

/* Where in the plane the first largest v of the window at output [row][column] is. */
static size_t first_maximum(const float *z, const struct channel *s, int row, int column) {
    const size_t corner = (size_t)(row * s->pool) * (size_t)s->w + (size_t)(column * s->pool);
    size_t at = corner;
    float largest = normalised(z[corner], s);
    for (int k = 0; k < s->pool * s->pool; k++) {
        const size_t here = corner + (size_t)(k / s->pool * s->w + k % s->pool);
        const float v = normalised(z[here], s);
        if (v > largest || isnan(v)) {
            largest = v;
            at = here;
        }
    }
    return at;
}

/* mean = sum of z / m and variance = sum of (z - mean)^2 / m, over the m floats of a channel. */
static void moments(const struct tensor *z, int n, size_t channel, size_t plane, double *mean,
                    double *variance) {
    const double m = (double)n * (double)plane;
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        const float *p = z->data + (size_t)i * z->image + channel * plane;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < plane; j++)
            sum += (double)p[j];
    }
    *mean = sum / m;
    for (int i = 0; i < n; i++) {
        const float *p = z->data + (size_t)i * z->image + channel * plane;
#pragma omp simd reduction(+ : squares)
        for (size_t j = 0; j < plane; j++)
            squares += ((double)p[j] - *mean) * ((double)p[j] - *mean);
    }
    *variance = squares / m;
}

static void batchnorm_forward(struct host *d, struct tensor *y, const struct tensor *z,
                              const struct batchnorm *norm, bool training, int n) {
    float *running_mean = slice_data(norm->running_mean);
    float *running_var = slice_data(norm->running_var);
    float *saved = slice_data(norm->saved);
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const size_t plane = (size_t)norm->h * (size_t)norm->w;
        float mean = running_mean[c];
        float invstd = 1 / sqrtf(running_var[c] + norm->eps);
        if (training) {
            double exact_mean, variance, m = (double)n * (double)plane;
            moments(z, n, (size_t)c, plane, &exact_mean, &variance);
            saved[c] = mean = (float)exact_mean;
            saved[norm->c + c] = invstd = (float)(1 / sqrt(variance + (double)norm->eps));
            running_mean[c] = norm->momentum * mean + (1 - norm->momentum) * running_mean[c];
            running_var[c] = norm->momentum * (float)(variance * m / (m - 1)) +
                             (1 - norm->momentum) * running_var[c];
        }
        const struct channel s = channel_of(norm, c, mean, invstd);
        const size_t pooled = (size_t)(s.h / s.pool) * (size_t)(s.w / s.pool);
        for (int i = 0; i < n; i++) {
            const float *from = z->data + (size_t)i * z->image + (size_t)c * plane;
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

/* dv [plane] = the gradient at v of one image's channel, from dy. */
static void unpool(float *dv, const float *dy, const float *z, const struct channel *s) {
    if (s->pool == 1) {
        for (size_t j = 0; j < s->plane; j++)
            dv[j] = normalised(z[j], s) <= 0 ? 0 : dy[j];
        return;
    }
    memset(dv, 0, s->plane * sizeof *dv);
    for (int row = 0; row < s->h / s->pool; row++)
        for (int column = 0; column < s->w / s->pool; column++, dy++) {
            const size_t at = first_maximum(z, s, row, column);
            dv[at] = normalised(z[at], s) <= 0 ? 0 : *dy;
        }
}

static void batchnorm_backward(struct host *d, struct tensor *dz, const struct tensor *dy,
                               const struct tensor *z, const struct batchnorm *norm, int n) {
    const float *saved = slice_data(norm->saved);
    const float *weight = slice_data(norm->weight);
    float *dweight = slice_data(norm->dweight), *dbias = slice_data(norm->dbias);
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int c = 0; c < norm->c; c++) {
        const float mean = saved[c], invstd = saved[norm->c + c];
        const struct channel s = channel_of(norm, c, mean, invstd);
        const double m = (double)n * (double)s.plane;
        const size_t pooled = (size_t)(s.h / s.pool) * (size_t)(s.w / s.pool);
        double sum = 0, dot = 0; /* of dv, and of dv * (z - mean) */
        for (int i = 0; i < n; i++) {
            const float *p = z->data + (size_t)i * z->image + (size_t)c * s.plane;
            float *dv = dz->data + (size_t)i * dz->image + (size_t)c * s.plane;
            unpool(dv, dy->data + (size_t)i * dy->image + (size_t)c * pooled, p, &s);
#pragma omp simd reduction(+ : sum, dot)
            for (size_t j = 0; j < s.plane; j++) {
                sum += (double)dv[j];
                dot += (double)dv[j] * (double)(p[j] - mean);
            }
        }
        dbias[c] = (float)sum;
        dweight[c] = (float)(dot * (double)invstd);

        /* dz = (dv - mean of dv - (z - mean) * dot / m * invstd^2) * invstd * weight */
        const float mean_dv = (float)(sum / m);
        const float slope = (float)(dot / m * (double)invstd * (double)invstd);
        const float gain = invstd * weight[c];
        for (int i = 0; i < n; i++) {
            const float *p = z->data + (size_t)i * z->image + (size_t)c * s.plane;
            float *dv = dz->data + (size_t)i * dz->image + (size_t)c * s.plane;
            for (size_t j = 0; j < s.plane; j++)
                dv[j] = (dv[j] - mean_dv - (p[j] - mean) * slope) * gain;
        }
    }
}

/* ---- the Linear layer and the loss ----
 *
 * One matrix product for each of y, dx and dweight: they are so small beside the convolutions (0.4
 * % of the arithmetic) that one thread does them. */

static double head(struct host *d, const struct head *head, bool training, struct pass *pass,
                   int n) {
    const int in = head->in, out = head->out;
    const float *bias = slice_data(head->bias);
    double total = 0;
    (void)d;
    require(out == pass->images->classes);
    for (int i = 0; i < n; i++)
        for (int o = 0; o < out; o++)
            head->y->data[i * out + o] = bias[o];
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, 1, head->x->data, in,
                         slice_data(head->weight), in, 1, head->y->data, out);
    for (int i = 0; i < n; i++)
        total += host_cross_entropy(training ? head->dy->data + i * out : NULL,
                                    head->y->data + i * out, 1, head, pass, pass->next - n + i, n);
    return total;
}

static void head_backward(struct host *d, const struct head *head, int n) {
    const int in = head->in, out = head->out;
    const float *dy = head->dy->data;
    (void)d;
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, in, out, 1, dy, out,
                         slice_data(head->weight), in, 0, head->dx->data, in);
    openblas.cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, n, 1, dy, out,
                         head->x->data, in, 0, slice_data(head->dweight), in);
    for (int o = 0; o < out; o++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)dy[i * out + o];
        slice_data(head->dbias)[o] = (float)sum;
    }
}

/* ---- the other ops ---- */

static void load(struct host *d, struct tensor *images, const struct pass *pass, int n) {
    const int rows = pass->images->c * pass->images->h, w = pass->images->w;
    float values[256];
    host_pixel_values(values);
    require(n <= images->capacity && images->image == (size_t)(rows * w));
#pragma omp parallel for num_threads(d->base.threads) schedule(static)
    for (int i = 0; i < n; i++)
        for (int row = 0; row < rows; row++)
            host_load_row(images->data + (size_t)i * images->image + row * w, 1, pass,
                          pass->next + i, row, values);
}

static void stage(struct host *d, const struct stage *stage, bool training, int n) {
    conv2d_forward(d, stage->z, stage->x, &stage->conv, n);
    batchnorm_forward(d, stage->y, stage->z, &stage->norm, training, n);
}

static void stage_backward(struct host *d, const struct stage *stage, int n) {
    batchnorm_backward(d, stage->dz, stage->dy, stage->z, &stage->norm, n);
    conv2d_backward(d, stage->dx, stage->dz, stage->x, &stage->conv, n);
}

/* ---- the device ---- */

/* Whether sgemm computes right here, in the shapes that a convolution uses. Some packaged versions
 * of OpenBLAS do not on some processors, and training would silently go wrong. */
static bool sgemm_is_right(void) {
    enum { M = 12, N = 140, K = 75 };
    static float a[M * K], b[K * N], bt[N * K], c[M * N], ct[M * N];
    for (int i = 0; i < M * K; i++)
        a[i] = (float)(i * 7 % 31 - 15) / 16;
    for (int i = 0; i < K; i++)
        for (int j = 0; j < N; j++)
            b[i * N + j] = bt[j * K + i] = (float)((i * N + j) * 5 % 29 - 14) / 16;
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, M, N, K, 1, a, K, b, N, 0, c,
                         N);
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, M, N, K, 1, a, K, bt, K, 0, ct,
                         N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0; /* exact: small multiples of 1/256 */
            for (int k = 0; k < K; k++)
                sum += a[i * K + k] * b[k * N + j];
            /* written so that a NaN is wrong, too */
            if (!(fabsf(c[i * N + j] - sum) <= 1e-3F && fabsf(ct[i * N + j] - sum) <= 1e-3F))
                return false;
        }
    return true;
}

static void openblas_describe(const struct device *device, char *text, size_t size) {
    char version[64] = "";
    sscanf(device == NULL ? OPENBLAS_VERSION : openblas.openblas_get_config(), " OpenBLAS %63s",
           version);
    if (device == NULL) { /* which loads nothing */
        snprintf(text, size, "built with OpenBLAS %s", version);
        return;
    }
    snprintf(text, size, "OpenBLAS %s, kernels for %s", version, openblas.openblas_get_corename());
}

static const struct host_kernels KERNELS = {
    HOST_OPTIMIZERS, .load = load,
    .stage = stage,  .stage_backward = stage_backward,
    .head = head,    .head_backward = head_backward,
};

static bool openblas_open(struct device **device, const struct device_options *options,
                          struct error *error) {
    struct device_options own = *options;
    if (own.threads > OPENBLAS_THREADS)
        own.threads = OPENBLAS_THREADS;
    if (!openblas_load(own.threads, error))
        return false;
    if (!sgemm_is_right())
        return error_set(error, STATUS_DEVICE,
                         "%s with its kernels for '%s' multiplies matrices "
                         "wrongly on this processor; set OPENBLAS_CORETYPE=Haswell (or another "
                         "core that fits) in the environment, or install another OpenBLAS",
                         openblas.openblas_get_config(), openblas.openblas_get_corename());
    *device = host_new(&openblas_ops, &KERNELS, &own);
    return true;
}

const struct device_ops openblas_ops = {
    HOST_OPS,
    .name = "openblas",
    .open = openblas_open,
    .describe = openblas_describe,
    .tensor_new = tensor_new,
    .tensor_upload = tensor_upload,
    .tensor_download = tensor_download,
};
