/* What the backends that compute on the CPU share: their memory, the data set, the results of a
 * pass. How an activation (struct tensor) looks is each backend's own.
 *
 * Threads: a backend owns them (OpenMP), and sums over a batch in an order that depends on the
 * batch alone, so that results do not depend on the number of threads in a single bit. */
#pragma once

#include "device/device.h"

#include <math.h>

struct block {
    float *data;
    size_t count;
};

struct loader {
    const uint8_t *records; /* [count][1 + pixels], borrowed */
    int64_t count;
    size_t pixels;
    uint32_t *order;      /* [count], of which the pass reads the first `length` */
    int64_t length, next; /* `next`: images loaded so far; the batch ends there */
    float *losses;        /* [count]: one a step of the pass */
    int64_t steps;
    uint8_t *predicted; /* [count] */
};

/* A piece of memory that close() frees. */
struct owned {
    struct owned *next;
    _Alignas(64) unsigned char memory[];
};

struct host {
    struct device base;
    int threads;
    int64_t adam_steps;
    struct owned *owned;
    size_t bytes;   /* that it holds, with the scratch */
    float *scratch; /* working memory of one op */
    size_t scratch_size;
};

static inline struct host *host_of(struct device *device) {
    return (struct host *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

/* A device with these ops, for open(); sets the calling thread, and so those that it makes later,
 * to take denormal numbers for zero. */
struct device *host_new(const struct device_ops *ops, const struct device_options *options);

/* Zeroed memory, aligned to 64 bytes, that close() frees. */
void *host_own(struct host *host, size_t count, size_t size);

/* Working memory for one op, at least `count` floats, aligned to 64 bytes, not zeroed. It grows in
 * the first step that needs more and stays as it is from then on. */
float *host_scratch(struct host *host, size_t count);

/* Appends ", N threads" to a description. */
void host_describe_threads(const struct device *device, char *text, size_t size);

/* The pixels of one of the images of the pass, [c][h][w], with its label before them. */
const uint8_t *host_pixels(const struct loader *loader, int64_t image);

/* What a pixel's byte becomes: (pixel/255 - 0.5) / 0.5, rounded as PyTorch rounds it. */
void host_pixel_values(float values[256]);

/* One image's part in the cross-entropy of a batch of n: for logits z and label t,
 * log(sum of e^z) - z[t], which is returned; dz = (softmax(z) - onehot(t)) / n unless dz is NULL;
 * and the first largest class. Class k is at z[k * stride], also of dz. A few hundred operations an
 * image, so all in double. */
double host_cross_entropy(float *dz, uint8_t *predicted, const float *z, size_t stride, int classes,
                          int label, int n);

/* One step of Adam, as torch.optim.Adam computes it (Kingma and Ba, 2014, with L2 decay added to
 * the gradient), in one pass over all parameters:
 *
 *     g = g + weight_decay w
 *     m = m + (1 - beta1) (g - m)
 *     v = beta2 v + (1 - beta2) g^2
 *     w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * The factors of a step are computed in double, then rounded to float. It stands here so that each
 * backend compiles it for its own instruction set. */
static inline void host_adam_step(struct host *host, const struct adam *adam) {
    const double t = (double)++host->adam_steps;
    const float step_size = (float)(adam->lr / (1 - pow(adam->beta1, t)));
    const float correction = (float)sqrt(1 - pow(adam->beta2, t));
    const float decay = (float)adam->weight_decay, eps = (float)adam->eps;
    const float rest1 = (float)(1 - adam->beta1);
    const float beta2 = (float)adam->beta2, rest2 = (float)(1 - adam->beta2);
    float *restrict w = adam->parameters->data, *restrict m = adam->exp_avg->data;
    float *restrict v = adam->exp_avg_sq->data;
    const float *restrict dw = adam->gradients->data;
#pragma omp parallel for simd num_threads(host->threads) schedule(static)
    for (size_t i = 0; i < adam->count; i++) {
        const float g = dw[i] + decay * w[i];
        m[i] += rest1 * (g - m[i]);
        v[i] = beta2 * v[i] + rest2 * g * g;
        w[i] -= step_size * (m[i] / (sqrtf(v[i]) / correction + eps));
    }
}

/* The rest are ops of struct device_ops, for a backend's table. */
void host_close(struct device *device);
size_t host_bytes(const struct device *device);
struct block *host_block_new(struct device *device, size_t count);
void host_upload(struct device *device, struct slice to, const float *from, size_t count);
bool host_download(struct device *device, float *to, struct slice from, size_t count,
                   struct error *error);
struct loader *host_loader_new(struct device *device, const uint8_t *records, int64_t count, int c,
                               int h, int w);
void host_loader_rewind(struct device *device, struct loader *loader, const uint32_t *order,
                        int64_t length);
bool host_losses(struct device *device, const struct loader *loader, float *losses, int64_t first,
                 int64_t count, struct error *error);
bool host_predictions(struct device *device, const struct loader *loader, uint8_t *classes,
                      int64_t count, struct error *error);
void host_repeat(struct device *device, struct program *program, int64_t times);
void host_adam_seek(struct device *device, int64_t step);
