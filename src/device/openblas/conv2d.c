/* Convolution as matrix products: im2col lays the windows of x out as columns, and
 *
 *     y [out][pixels]  = weight [out][window] * columns [window][pixels]      forward
 *     dweight          = dy [out][pixels] * columns^T                         weight gradient
 *     dx [in][pixels'] = turned [in][window'] * columns' [window'][pixels']   data gradient
 *
 * where window = in*kernel*kernel. The data gradient is itself a convolution, of dy with the
 * weights turned by 180 degrees, in and out exchanged and kernel-1-pad of padding, so the forward
 * code serves. Images are independent of each other; each is cut into tiles of a few rows whose
 * columns stay in the second-level cache between im2col and the product. */
#include "library.h"
#include "openblas.h"

#include "base/error.h"

#include <omp.h>
#include <string.h>

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

void openblas_conv2d_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct conv2d *conv, int n) {
    struct host *d = host_of(device);
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    const float *weight = slice_data(conv->weight), *bias = slice_data(conv->bias);
    float *scratch = host_scratch(d, (size_t)d->threads * s.scratch);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int i = 0; i < n; i++)
        convolve(y->data + (size_t)i * y->image, x->data + (size_t)i * x->image, weight, bias, &s,
                 scratch + (size_t)omp_get_thread_num() * s.scratch);
}

void openblas_conv2d_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct conv2d *conv, int n) {
    struct host *d = host_of(device);
    const int area = conv->kernel * conv->kernel;
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    const struct window back = window_of(conv->out, conv->in, conv->kernel,
                                         conv->kernel - 1 - conv->pad, s.rows, s.columns);
    const size_t weights = (size_t)s.out * (size_t)s.size, sums = weights + (size_t)s.out;
    const size_t own = s.scratch > back.scratch ? s.scratch : back.scratch;
    const int groups = least(n, GROUPS);

    /* scratch: turned weights, then the sums of each group, then what each thread needs */
    float *turned = host_scratch(d, weights + (size_t)groups * sums + (size_t)d->threads * own);
    float *partial = turned + weights;
    float *threads = partial + (size_t)groups * sums;
    if (dx != NULL)
        turn(turned, slice_data(conv->weight), conv->out, conv->in, area);

#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
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
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (size_t i = 0; i < sums; i++) {
        float sum = 0;
        for (int group = 0; group < groups; group++)
            sum += partial[(size_t)group * sums + i];
        *(i < weights ? &dweight[i] : &dbias[i - weights]) = sum;
    }
}
