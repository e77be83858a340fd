/* What the host and our own kernels agree on; read as C and as CUDA C++.
 *
 * A kernel takes one struct, whose pointers point to the device's memory, and runs in blocks of
 * KERNEL_BLOCK threads. Shapes are those of device.h; a plane is h * w floats. */
#pragma once

#include "../gpu/cursor.h"

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
    KERNEL_COLUMNS = 64, /* of a matrix, that muon looks at together */
};

/* What the blocks that share a channel leave to be added up: two sums each. */
struct partial_sums {
    double sums[KERNEL_CHANNELS][KERNEL_SPLITS][2];
    unsigned done[KERNEL_CHANNELS]; /* blocks that have left theirs; 0 between kernels */
};

/* The kernels with their arguments and the blocks, as (x, y), that each is started with: */
#define KERNELS(K)                                                                                 \
    K(load_batch, load)         /* (n, any) */                                                     \
    K(bias_gradients, bias)     /* (c of all jobs, splits) */                                      \
    K(weight_gradient, weight)  /* (groups of input times output channels, splits) */              \
    K(sum_partial, sum)         /* (count / KERNEL_ADDED, rounded up, 1) */                        \
    K(batch_sums, norm)         /* (c, splits) */                                                  \
    K(normalise, norm)          /* (c, splits) */                                                  \
    K(gradient_sums, norm)      /* (c, splits) */                                                  \
    K(normalise_gradient, norm) /* (c, splits) */                                                  \
    K(cross_entropy, loss)      /* (1, 1) */                                                       \
    K(adam, adam)               /* (floats / KERNEL_BLOCK, rounded up, 1) */                       \
    K(sgd, sgd)                 /* (floats / KERNEL_BLOCK, rounded up, 1) */                       \
    K(muon, muon)               /* (matrices, 1) */                                                \
    K(average, average)         /* (count / KERNEL_BLOCK, rounded up, 1) */

#define KERNEL_NUMBER(name, args) KERNEL_##name,
enum kernel { KERNELS(KERNEL_NUMBER) KERNEL_COUNT };
#undef KERNEL_NUMBER

/* x [n][c][h][w] = the next n images of the pass, each byte as (byte/255 - 0.5) / 0.5. The cursor
 * goes on by n images and one step. */
struct load_args {
    float *x;
    struct pass_data pass;
    int n;
};

/* Of each job: dbias [c] = the sum of dy [n][c][plane] over images and pixels. */
struct bias_gradient {
    float *dbias;
    const float *dy;
    int c, plane;
};
struct bias_args {
    struct partial_sums *partial;
    int n, jobs;
    struct bias_gradient job[KERNEL_JOBS];
};

/* partial [splits][out][in][kernel][kernel], whose sum is the weight's gradient of a convolution
 * (see device.h) of x [n][in][h][w] with dy at its output. A block has ins * KERNEL_IN input and
 * outs * KERNEL_OUT output channels; kernel^2 * ins * outs is KERNEL_BLOCK at most. It looks at
 * tiles of `rows` rows of output pixels, whose x is ins * KERNEL_IN * (rows + kernel - 1) rows of
 * `pitch`. */
struct weight_args {
    float *partial;
    const float *x, *dy;
    int n, in, out, kernel, pad, h, w;
    int ins, outs, rows, pitch;
};

/* to [count] = the sum of partial [parts][count] */
struct sum_args {
    float *to;
    const float *partial;
    int count, parts;
};

/* The batch normalisation of x [n][c][h][w], to which `addend` [c] is to be added, the bias of the
 * convolution before it. Of the four kernels
 *  - batch_sums, in training: partial = the sums of x and of its squares;
 *  - normalise: y [n][c][h/pool][w/pool] = max-pool of ReLU of the normalised x. In training mean
 *    [c] and invstd [c] come from the sums, and the running statistics move;
 *  - gradient_sums: partial = the sums of dz and of dz * (x - mean). dz is the gradient at the
 *    output of the normalisation, before ReLU and max-pool;
 *  - normalise_gradient: from these sums dx [n][c][h][w], dweight [c] and dbias [c]. */
struct norm_args {
    struct partial_sums *partial;
    const float *x, *addend, *weight, *bias, *dy;
    float *y, *mean, *invstd, *running_mean, *running_var;
    float *dx, *dweight, *dbias;
    int training, n, c, h, w, pool;
    float eps, momentum;
};

/* logits [n][classes] += bias [classes]; they, and the loss, join the results of the pass. dlogits
 * may be NULL. */
struct loss_args {
    float *logits, *dlogits;
    const float *bias;
    struct pass_data pass;
    int n;
    double label_smoothing;
};

/* The parameters that an optimiser has: those of all ranges, one behind the other, are a thread's
 * each. */
struct group {
    int ranges;
    struct range range[MOST_RANGES];
};

/* One step of the optimisers of device.h, w being the parameters and m and v the moments. Muon has
 * a block for each matrix. */
struct adam_args {
    float *w, *m, *v;
    const float *dw;
    struct pass_data pass;
    struct group group;
    double lr, beta1, beta2, eps, weight_decay;
    int decoupled;
};
struct sgd_args {
    float *w, *m;
    const float *dw;
    struct pass_data pass;
    struct group group;
    double lr, momentum, weight_decay;
};
struct muon_args {
    float *w, *m;
    const float *dw;
    struct pass_data pass;
    struct matrix matrix[MOST_MATRICES];
    double lr, momentum;
};

/* average [count] moves towards `of`; after the first step of the run it is a copy. */
struct average_args {
    float *average;
    const float *of;
    struct pass_data pass;
    int64_t count;
    double decay;
};
