/* What the host and our own kernels agree on; read as C and as CUDA C++.
 *
 * A kernel takes one struct, `struct NAME_args`, whose pointers point to the device's memory, and
 * runs in blocks of KERNEL_BLOCK threads. Shapes are those of device.h; a plane is h * w floats. */
#pragma once

#include <stdint.h>

enum {
    KERNEL_BLOCK = 256,     /* threads in a block */
    KERNEL_CHANNELS = 1024, /* that are summed at once, at most */
    KERNEL_SPLITS = 64,     /* blocks that share the images of one channel, at most */
    KERNEL_JOBS = 8,        /* of bias_gradients, at most */
    KERNEL_IN = 3,          /* input and */
    KERNEL_OUT = 12,        /* output channels that a thread of weight_gradient has */
    KERNEL_OUTS = 2,        /* times as many output channels of a block, at most */
    KERNEL_TILE = 128,      /* output pixels that it looks at together, at most, */
    KERNEL_X = 7168,        /* and floats of x that they come from */
    KERNEL_ADDED = 32,      /* numbers that a block of sum_partial makes */
    /* floats of shared memory of a block of weight_gradient: both tiles, and in the end its sums */
    KERNEL_ROOM = KERNEL_OUTS * KERNEL_OUT * KERNEL_TILE + KERNEL_X,
};

/* Where a pass over the data set stands. It lives on the device, so that a recorded step, which is
 * the same each time, reads the next batch. */
struct cursor {
    int64_t next;    /* images loaded so far */
    int64_t steps;   /* losses so far */
    unsigned blocks; /* that have read `next`; 0 between kernels */
};

/* Adam's step number, likewise. */
struct adam_clock {
    int64_t steps;
    unsigned blocks;
};

/* What the blocks that share a channel leave to be added up: two sums each. */
struct partial_sums {
    double sums[KERNEL_CHANNELS][KERNEL_SPLITS][2];
    unsigned done[KERNEL_CHANNELS]; /* blocks that have left theirs; 0 between kernels */
};

/* The blocks, as (x, y), that each kernel is started with: */
#define KERNELS(K)                                                                                 \
    K(load_batch)         /* (n, any) */                                                           \
    K(add_bias)           /* (any, 1) */                                                           \
    K(bias_gradients)     /* (c of all jobs, splits) */                                            \
    K(weight_gradient)    /* (groups of input times output channels, splits) */                    \
    K(sum_partial)        /* (count / KERNEL_ADDED, rounded up, 1) */                              \
    K(batch_sums)         /* (c, splits) */                                                        \
    K(normalise)          /* (c, splits) */                                                        \
    K(gradient_sums)      /* (c, splits) */                                                        \
    K(normalise_gradient) /* (c, splits) */                                                        \
    K(cross_entropy)      /* (1, 1) */                                                             \
    K(adam)               /* (any, 1) */

#define KERNEL_NUMBER(name) KERNEL_##name,
enum kernel { KERNELS(KERNEL_NUMBER) KERNEL_COUNT };
#undef KERNEL_NUMBER

/* x [n][pixels] = the images order[next ...], each byte as (byte/255 - 0.5) / 0.5; next += n. */
struct load_batch_args {
    float *x;
    const uint8_t *records; /* [count][1 + pixels] */
    const uint32_t *order;
    struct cursor *cursor;
    int n, pixels;
};

/* y [n][c][plane] += bias [c] */
struct add_bias_args {
    float *y;
    const float *bias;
    int n, c, plane;
};

/* Of each job: dbias [c] = the sum of dy [n][c][plane] over images and pixels. */
struct bias_gradient {
    float *dbias;
    const float *dy;
    int n, c, plane;
};
struct bias_gradients_args {
    struct partial_sums *partial;
    int jobs;
    struct bias_gradient job[KERNEL_JOBS];
};

/* partial [splits][out][in][kernel][kernel], whose sum is the weight's gradient of a convolution
 * (see device.h) of x [n][in][h][w] with dy at its output. A block has ins * KERNEL_IN input and
 * outs * KERNEL_OUT output channels; kernel^2 * ins * outs is KERNEL_BLOCK at most. It looks at
 * tiles of rows x columns output pixels, whose x is ins * KERNEL_IN * (rows + kernel - 1) rows of
 * `pitch`. */
struct weight_gradient_args {
    float *partial;
    const float *x, *dy;
    int n, in, out, kernel, pad, h, w;
    int ins, outs, rows, columns, pitch;
};

/* to [count] = the sum of partial [parts][count] */
struct sum_partial_args {
    float *to;
    const float *partial;
    int count, parts;
};

/* The input of a batch normalisation: x [n][c][h][w], to which `addend` [c] is to be added (the
 * bias of the convolution before it, or NULL). */
struct normal_input {
    const float *x, *addend, *weight, *bias;
    int n, c, h, w, pool;
};

/* partial = the sums of x and of its squares. */
struct batch_sums_args {
    struct partial_sums *partial;
    struct normal_input in;
};

/* y [n][c][h/pool][w/pool] = max-pool of ReLU of the normalised x. In training mean [c] and invstd
 * [c] come from the sums and the running statistics move; in evaluation `partial` is NULL. */
struct normalise_args {
    float *y, *mean, *invstd, *running_mean, *running_var;
    const struct partial_sums *partial;
    struct normal_input in;
    float eps, momentum;
};

/* partial = the sums of dz and of dz * (x - mean). dz is the gradient at the output of the
 * normalisation, before ReLU and max-pool. */
struct gradient_sums_args {
    struct partial_sums *partial;
    const float *dy, *mean, *invstd;
    struct normal_input in;
};

/* From these sums dx [n][c][h][w], and dweight [c] and dbias [c]. */
struct normalise_gradient_args {
    float *dx, *dweight, *dbias;
    const float *dy, *mean, *invstd;
    const struct partial_sums *partial;
    struct normal_input in;
};

/* logits [n][classes] += addend [classes], if that is not NULL; then losses[steps] and
 * predicted[next - n ...] of the batch that was loaded last; steps += 1. dlogits may be NULL. */
struct cross_entropy_args {
    float *logits, *dlogits, *losses;
    uint8_t *predicted;
    const float *addend;
    const uint8_t *records;
    const uint32_t *order;
    struct cursor *cursor;
    int n, classes, pixels;
};

/* One step of Adam over `count` floats; the clock goes on by one. */
struct adam_args {
    float *w, *m, *v;
    const float *dw;
    struct adam_clock *clock;
    int64_t count;
    double lr, beta1, beta2, eps, weight_decay;
};
