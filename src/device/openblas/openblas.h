/* The backend `openblas`: OpenBLAS does the arithmetic of the convolutions and of the Linear layer,
 * plain loops the rest. It is also the reference for the other backends, so it prefers what is
 * plainly right to what is fast.
 *
 * Activations are [n][c][h][w]. Threads: this backend owns them (OpenMP, over images or channels)
 * and OpenBLAS runs in the calling thread. Sums over a batch are made in an order that depends on
 * the batch alone, so results do not depend on the number of threads in a single bit. */
#pragma once

#include "device/device.h"

struct tensor {
    float *data;
    size_t image; /* floats an image */
    int capacity; /* images */
};

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

struct openblas {
    struct device base;
    int threads;
    int64_t adam_steps;
    struct owned *owned;
    size_t bytes;   /* that it holds, with the scratch */
    float *scratch; /* working memory of one op */
    size_t scratch_size;
};

static inline struct openblas *openblas_of(struct device *device) {
    return (struct openblas *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

/* Working memory for one op, at least `count` floats, not zeroed. It grows in the first step that
 * needs more and stays as it is from then on. */
float *openblas_scratch(struct openblas *device, size_t count);

extern const struct device_ops openblas_ops;

void openblas_conv2d_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct conv2d *conv, int n);
void openblas_conv2d_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct conv2d *conv, int n);
void openblas_batchnorm_forward(struct device *device, struct tensor *y, const struct tensor *x,
                                const struct batchnorm *norm, bool training, int n);
void openblas_batchnorm_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                                 const struct tensor *x, const struct batchnorm *norm, int n);
void openblas_linear_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct linear *linear, int n);
void openblas_linear_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct linear *linear, int n);
void openblas_cross_entropy(struct device *device, struct tensor *dlogits,
                            const struct tensor *logits, struct loader *loader, int n);
void openblas_adam_step(struct device *device, const struct adam *adam);
