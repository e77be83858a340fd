/* The Linear layer and the loss, on activations as they are: [c][h] rows of w pixels, a pixel being
 * that of up to 16 images. It is 0.4 % of a step's arithmetic, so these are plain loops, 16 images
 * or outputs long, which the compiler turns into vectors; what lies behind a block's images is
 * computed, too, and dropped. */
#include "cpu.h"

#include <string.h>

enum {
    TOGETHER = 5, /* outputs whose sums are in registers together */
    PIXELS = 4,   /* likewise, for dweight */
};

/* sum [TOGETHER][16] += what the pixels of one channel add to the outputs from o on. Outputs beyond
 * the last one repeat it. */
static inline void add_channel(float sum[TOGETHER][BLOCK], const struct tensor *x,
                               const struct head *head, int block, int images, int c, int o) {
    const size_t plane = (size_t)(x->h * x->w);
    const float *w[TOGETHER];
    for (int t = 0; t < TOGETHER; t++)
        w[t] = slice_data(head->weight) + (size_t)least(o + t, head->out - 1) * (size_t)head->in +
               (size_t)c * plane;
    for (int r = 0; r < x->h; r++) {
        const float *from = tensor_row(x, block, images, c, r);
        for (int j = 0; j < x->w; j++, from += images)
            for (int t = 0; t < TOGETHER; t++) {
                const float weight = w[t][r * x->w + j];
                for (int i = 0; i < BLOCK; i++)
                    sum[t][i] += weight * from[i];
            }
    }
}

/* The logits, y [n][out]. */
static void linear(struct host *d, const struct head *head, int n) {
    const struct tensor *x = head->x;
    const int parts = (head->out + TOGETHER - 1) / TOGETHER;
    const int tasks = block_count(n) * parts * x->c; /* a block's channel, some outputs */
    const size_t size = (size_t)TOGETHER * BLOCK;    /* of the sums of a task */
    const float *bias = slice_data(head->bias);
    float *sums = host_scratch(d, HOST_OP, (size_t)tasks * size);
#pragma omp parallel for num_threads(d->base.threads) schedule(static)
    for (int task = 0; task < tasks; task++) {
        const int c = task % x->c, part = task / x->c % parts, block = task / x->c / parts;
        float sum[TOGETHER][BLOCK] = {{0}};
        add_channel(sum, x, head, block, block_images(n, block), c, part * TOGETHER);
        memcpy(sums + (size_t)task * size, sum, sizeof sum);
    }
    for (int block = 0; block < block_count(n); block++)
        for (int o = 0; o < head->out; o++) {
            const int images = block_images(n, block);
            float *to = tensor_row(head->y, block, images, o, 0);
            const int task = (block * parts + o / TOGETHER) * x->c; /* of its first channel */
            const float *from = sums + (size_t)task * size + (size_t)(o % TOGETHER * BLOCK);
            for (int i = 0; i < BLOCK; i++)
                to[i] = bias[o];
            for (int c = 0; c < x->c; c++, from += size) /* in one order */
                for (int i = 0; i < BLOCK; i++)
                    to[i] += from[i];
            clear_rest(to, (size_t)images, BLOCK);
        }
}

double CPU_SET(cpu_head)(struct host *d, const struct head *head, bool training, struct pass *pass,
                         int n) {
    struct tensor *y = head->y, *dy = head->dy;
    double total = 0;
    tensor_read(head->x, n);
    tensor_write(y, n);
    require(head->x->c * head->x->h * head->x->w == head->in);
    require(y->c == head->out && y->h * y->w == 1 && y->c == pass->images->classes);
    linear(d, head, n);
    if (training)
        tensor_write(dy, n);
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(n, block);
        for (int i = 0; i < b; i++)
            total += host_cross_entropy(training ? tensor_row(dy, block, b, 0, 0) + i : NULL,
                                        tensor_row(y, block, b, 0, 0) + i, row_pitch(1, b), head,
                                        pass, pass->next - n + block * BLOCK + i, n);
        for (int k = 0; training && k < dy->c; k++)
            clear_rest(tensor_row(dy, block, b, k, 0), (size_t)b, row_pitch(1, b));
    }
    return total;
}

/* dx of one channel of a block: for each pixel the sum over outputs of weight * dy. */
static void input_gradient(struct tensor *dx, const struct tensor *dy, const struct head *head,
                           int block, int images, int c) {
    const float *weight = slice_data(head->weight) + (size_t)(c * dx->h * dx->w);
    const size_t pitch = row_pitch(dx->w, images);
    for (int r = 0; r < dx->h; r++) {
        float *to = tensor_row(dx, block, images, c, r);
        for (int j = 0; j < dx->w; j++, weight++) {
            float sum[BLOCK] = {0};
            for (int o = 0; o < head->out; o++) {
                const float *from = tensor_row(dy, block, images, o, 0);
                const float w = weight[(size_t)o * (size_t)head->in];
                for (int i = 0; i < BLOCK; i++)
                    sum[i] += w * from[i];
            }
            memcpy(to + j * images, sum, sizeof sum); /* beyond its pixel: overwritten next */
        }
        clear_rest(to, (size_t)(dx->w * images), pitch);
    }
}

/* dweight of one channel, 16 outputs from o on: turned [n][16] is dy with the outputs side by side.
 * The sums of some pixels are in registers together; pixels beyond the last one repeat it. */
static void weight_gradient(float *dweight, const struct tensor *x, const float *turned,
                            const struct head *head, int c, int o, int n) {
    const int plane = x->h * x->w;
    for (int first = 0; first < plane; first += PIXELS) {
        float sum[PIXELS][BLOCK] = {{0}};
        const float *d = turned;
        for (int block = 0; block < block_count(n); block++) {
            const int images = block_images(n, block);
            const float *from[PIXELS];
            for (int p = 0; p < PIXELS; p++) {
                const int at = least(first + p, plane - 1);
                from[p] = tensor_row(x, block, images, c, at / x->w) + at % x->w * images;
            }
            for (int i = 0; i < images; i++, d += BLOCK)
                for (int p = 0; p < PIXELS; p++) {
                    const float pixel = from[p][i];
                    for (int t = 0; t < BLOCK; t++)
                        sum[p][t] += pixel * d[t];
                }
        }
        for (int t = 0; t < least(BLOCK, head->out - o); t++)
            for (int p = 0; p < least(PIXELS, plane - first); p++)
                dweight[(size_t)(o + t) * (size_t)head->in + (size_t)(c * plane + first + p)] =
                    sum[p][t];
    }
}

void CPU_SET(cpu_head_backward)(struct host *d, const struct head *head, int n) {
    const struct tensor *x = head->x, *dy = head->dy;
    struct tensor *dx = head->dx;
    float *dweight = slice_data(head->dweight), *dbias = slice_data(head->dbias);
    const int blocks = block_count(n);
    tensor_read(dy, n);
    tensor_read(x, n);
    tensor_write(dx, n);
    require(x->c * x->h * x->w == head->in && dy->c == head->out && dy->h * dy->w == 1);
    float *turned = host_scratch(d, HOST_OP, (size_t)n * BLOCK);
#pragma omp parallel for collapse(2) num_threads(d->base.threads) schedule(static)
    for (int block = 0; block < blocks; block++)
        for (int c = 0; c < x->c; c++)
            input_gradient(dx, dy, head, block, block_images(n, block), c);
    for (int first = 0; first < head->out; first += BLOCK) {
        const int outputs = least(BLOCK, head->out - first);
        memset(turned, 0, (size_t)n * BLOCK * sizeof *turned);
        for (int o = 0; o < outputs; o++) {
            double sum = 0;
            for (int i = 0; i < n; i++) {
                const int block = i / BLOCK, images = block_images(n, block);
                const float dz = tensor_row(dy, block, images, first + o, 0)[i % BLOCK];
                turned[i * BLOCK + o] = dz;
                sum += (double)dz;
            }
            dbias[first + o] = (float)sum;
        }
#pragma omp parallel for num_threads(d->base.threads) schedule(static)
        for (int c = 0; c < x->c; c++)
            weight_gradient(dweight, x, turned, head, c, first, n);
    }
}
