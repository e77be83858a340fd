/* The device interface: everything that the program asks of the hardware it trains on.
 *
 * A backend is one const table of functions, `struct device_ops`, none of them NULL. The floors
 * above know nothing else of it. Four ideas keep the interface narrow for its users and wide enough
 * for a fast backend:
 *
 *  - Memory belongs to the device. `struct tensor` and `struct block` are incomplete types, so host
 *    code that would touch them does not compile, and a tensor may look in memory as its backend
 *    likes. It is given back in the opposite order of its making: release(), close().
 *  - A step is data: a list of ops that is handed over when the step is made. The device sees all
 *    of it then, can choose kernels, plans and working memory, and runs it as often as asked; it
 *    may join ops, or record the step once and replay the recording. Ops are as large as pays.
 *  - What changes from step to step is a script: which images, how they are seen, the learning
 *    rates. The host writes it for a whole pass over the data, and the device keeps the place in it
 *    itself, so that a step is the same each time.
 *  - Steps are queued and have no result that the host sees. A device may run them later; reading a
 *    result waits for them, and is where a failure of the device shows: one that has run out of
 *    memory, say, takes all further calls and tells of it then.
 *
 * Words: `n` is the number of images in a batch; c, h, w are channels, height and width. Names are
 * as in PyTorch: y = op(x), dy is the gradient of the loss with respect to y. Outputs come before
 * inputs, sizes last. Every output is overwritten, never added to, and shares no memory with an
 * input. A slice may begin at any float of its block. Descriptions and host memory are read during
 * the call, unless it says that it borrows them. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct tensor;  /* activations of a batch, [n][c][h][w] in whatever layout the backend likes */
struct block;   /* a flat row of floats in PyTorch's order: parameters, gradients, moments, ... */
struct dataset; /* images with their labels */
struct pass;    /* a way through a data set, and what came of it */
struct step;    /* what is done with each batch */

/* ---- what a step consists of ---- */

/* Part of a block: an op's weight, bias, ... The op knows how many floats it takes. */
struct slice {
    struct block *block;
    size_t offset; /* in floats */
};

/* A square, stride-1 convolution as torch.nn.Conv2d: a cross-correlation with zero padding.
 * x is [n][in][h][w], y is [n][out][h'][w'] with h' = h + 2 pad - kernel + 1, likewise w'. */
struct conv2d {
    int in, out, kernel, pad, h, w;
    struct slice weight; /* [out][in][kernel][kernel] */
    struct slice bias;   /* [out] */
    struct slice dweight, dbias;
};

/* Batch normalisation as torch.nn.BatchNorm2d, then ReLU, then max-pooling over windows of
 * pool x pool with the same stride (pool 1: none). x is [n][c][h][w], y is [n][c][h/pool][w/pool].
 *
 * Training normalises with the batch's mean and biased variance and moves the running statistics by
 * `momentum`, the variance as its unbiased estimate; evaluation normalises with the running
 * statistics. The gradient of a pooling window goes to its first maximum in row order. NaN counts
 * as the maximum. */
struct batchnorm {
    int c, h, w, pool;
    float eps, momentum;
    struct slice weight, bias; /* gamma and beta, [c] each */
    struct slice dweight, dbias;
    struct slice running_mean, running_var; /* [c] each */
    struct slice saved;                     /* [2][c]: the batch's mean and 1/sqrt(var + eps) */
};

/* z = conv(x), y = norm(z): the only way in which a convolution occurs. What z looks like, with the
 * convolution's bias or without, is the backend's business. */
struct stage {
    struct conv2d conv;
    struct batchnorm norm;
    struct tensor *x, *z, *y;
    struct tensor *dx, *dz, *dy; /* dx may be NULL: nobody needs the gradient of the images */
};

/* As torch.nn.Linear: y = x weight^T + bias, [n][out] of x [n][in]; then torch.nn.CrossEntropyLoss
 * of these logits: the mean over the batch. In training the labels are smoothed: a share of
 * label_smoothing of each is spread evenly over all outputs. */
struct head {
    int in, out;
    double label_smoothing;
    struct slice weight; /* [out][in] */
    struct slice bias;   /* [out] */
    struct slice dweight, dbias;
    struct tensor *x, *y; /* y is [n][out][1][1] */
    struct tensor *dx, *dy;
};

/* Part of the parameters: a parameter group, which one optimiser has. */
struct range {
    size_t offset, count; /* in floats */
};
enum { MOST_RANGES = 8 };

/* The optimisers, as torch.optim has them. Each has the ranges of its group, which do not overlap
 * with another's, and leaves the rest of the blocks as it is. Its learning rate is `lr` times what
 * the pass's script says of the step. */

/* torch.optim.Adam, which adds weight_decay times the weight to its gradient, or, `decoupled`,
 * torch.optim.AdamW, which takes lr times that off the weight. */
struct adam {
    double lr, beta1, beta2, eps, weight_decay;
    bool decoupled;
    int ranges;
    struct range range[MOST_RANGES];
    struct block *parameters, *gradients;
    struct block *exp_avg, *exp_avg_sq; /* the two moments */
};

/* torch.optim.SGD with Nesterov's momentum and no dampening. */
struct sgd {
    double lr, momentum, weight_decay;
    int ranges;
    struct range range[MOST_RANGES];
    struct block *parameters, *gradients, *momentum_buffer;
};

/* A bank of filters: a matrix with a row for each. */
struct matrix {
    size_t offset;     /* in floats */
    int rows, columns; /* 1 <= rows <= columns, rows <= MOST_ROWS */
};
enum { MOST_MATRICES = 4, MOST_ROWS = 32 };

/* Muon (Jordan et al., 2024), as torch.optim.Muon without weight decay but for two things: all is
 * computed in float32 at least, and first each matrix W is scaled so that its Frobenius norm is
 * sqrt(rows), as is right where batch normalisation follows. Then, of its gradient G:
 *
 *     M = M + (1 - momentum) (G - M)           the momentum_buffer
 *     X = G + momentum (M - G)                 Nesterov's
 *     X = X / max(|X|, 1e-7)
 *     five times, the Newton-Schulz iteration that brings X's singular values near 1:
 *         A = X X^T,  X = 3.4445 X + (-4.775 A + 2.0315 A A) X
 *     W = W - lr X */
struct muon {
    double lr, momentum;
    int matrices;
    struct matrix matrix[MOST_MATRICES];
    struct block *parameters, *gradients, *momentum_buffer;
};

/* As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(decay): of the first step of the
 * run a copy, then average = average + (1 - decay) (of - average). Over whole blocks. */
struct average {
    size_t count; /* floats of each */
    double decay;
    struct block *average, *of;
};

struct op {
    enum {
        OP_LOAD, /* images = the next n of the pass, each pixel as (pixel/255 - 0.5) / 0.5 */
        OP_STAGE,
        OP_HEAD,          /* the loss and the logits join the pass's results; in training also dy */
        OP_HEAD_BACKWARD, /* dx, dweight and dbias from dy */
        OP_STAGE_BACKWARD, /* dx, dz and the four gradients from dy, after OP_STAGE in training */
        /* behind all others; the pass's script tells the step's number and its learning rates */
        OP_ADAM,
        OP_SGD,
        OP_MUON,
        OP_AVERAGE, /* behind these */
    } kind;
    union {
        struct tensor *images;
        const struct stage *stage;
        const struct head *head;
        const struct adam *adam;
        const struct sgd *sgd;
        const struct muon *muon;
        const struct average *average;
    };
};

/* The ops run in order; no two write the same tensor or slice, but for the optimisers, which come
 * last and change what the others read. OP_HEAD and they need an OP_LOAD before them. Afterwards
 * there are the blocks, the results of the pass, and the tensors that an op has written and no
 * later one of the step reads; z in training only. */
struct step_description {
    const struct op *ops; /* copied; what they point to must outlive the step */
    int count;
    bool training;
    struct pass *pass; /* may be NULL if no op needs it */
    int n;
};

/* ---- the data, and the script of a pass over them ---- */

struct images {
    const uint8_t *records; /* [count]: one byte of label, then c*h*w of pixels */
    int64_t count;
    int classes; /* labels are smaller */
    int c, h, w;
};

/* An image as a step sees it: moved by that many pixels, then mirrored, left to right. What comes
 * in is black, pixel 0, or, `reflected`, the image once more, reflected at its outermost pixels, as
 * padding_mode="reflect" does; then it is moved by less than its side. */
struct view {
    uint32_t image; /* its number in the data set */
    int8_t down, right;
    uint8_t mirrored, reflected; /* 0 or 1 */
};

struct script {
    const struct view *views; /* [images], in the order in which they are read */
    int64_t images;
    const double *schedule; /* [steps]: what learning rates are multiplied by in each step; NULL if
                               there are none */
    int64_t steps;
    int64_t steps_before; /* of training: the first one of the pass has the next number */
};

/* ---- a device ---- */

/* What all backends have in common; a backend's own device begins with it. */
struct device {
    const struct device_ops *ops;
    int threads;            /* of the CPU, that compute; 0: none do */
    bool tf32;              /* products may round their factors to TF32, as its options allowed */
    bool runs_ahead;        /* steps return before they are done: whoever waits queues more first */
    char passed_over[1024]; /* by "auto": why a better device was not taken; else empty */
};

/* How a device is to be opened. */
struct device_options {
    int threads; /* CPU threads that it may use, at least 1 */
    bool tf32;   /* allows a GPU that can to round the factors of products to TF32 */
};

struct device_ops {
    const char *name; /* as --device takes it */

    /* Errors (STATUS_DEVICE): it is not there or cannot be used, with the reason and what to do,
     * as a sentence that "--device NAME: " can stand before. STATUS_FAILURE: out of memory.
     * STATUS_USAGE: the environment asks of it what it cannot; "auto" takes no other device then.
     */
    bool (*open)(struct device **device, const struct device_options *options, struct error *error);
    void (*close)(struct device *device);

    /* Describes it in one line for people: what computes, in which version. It is all that the last
     * bits of results depend on. With device NULL, the backend alone, and whether it could be used
     * here. */
    void (*describe)(const struct device *device, char *text, size_t size);

    /* Bytes of memory that it holds now. */
    size_t (*memory)(const struct device *device);

    /* All that was made since mark() answered `mark`, blocks, tensors, data sets, passes, steps, is
     * given back. Working memory stays, for those that come next. */
    void *(*mark)(struct device *device);
    void (*release)(struct device *device, void *mark);

    /* n zeroed images of [c][h][w]; ops may use fewer. */
    struct tensor *(*tensor_new)(struct device *device, int n, int c, int h, int w);
    struct block *(*block_new)(struct device *device, size_t count); /* zeroed */

    /* Copies `count` floats from or to the host; of a tensor, n images as [n][c][h][w]. download
     * waits for the steps before it. A tensor holds the images of the step or upload that wrote it
     * last, and no others. Errors (STATUS_DEVICE): the device failed. */
    void (*upload)(struct device *device, struct slice to, const float *from, size_t count);
    bool (*download)(struct device *device, float *to, struct slice from, size_t count,
                     struct error *error);
    void (*tensor_upload)(struct device *device, struct tensor *to, const float *from, int n);
    bool (*tensor_download)(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error);

    /* Makes the device hold the images, for any number of passes, which may read the records where
     * they are: they must outlive the data set. */
    struct dataset *(*dataset_new)(struct device *device, const struct images *images);

    /* Passes over the data set that read up to `images` views in up to `steps` steps. */
    struct pass *(*pass_new)(struct device *device, struct dataset *dataset, int64_t images,
                             int64_t steps);

    /* Goes to the beginning of a new script (copied). The results of the pass before are forgotten.
     */
    void (*pass_begin)(struct device *device, struct pass *pass, const struct script *script);

    /* The results of the pass so far: the mean loss of each of the steps [first, first + count),
     * and the logits [count][classes] of the first `count` images in the order of the script. The
     * losses wait for the calls of step_run() that made them and need not wait for later ones, the
     * logits wait for all steps before them. Errors (STATUS_DEVICE): the device failed. */
    bool (*losses)(struct device *device, const struct pass *pass, float *losses, int64_t first,
                   int64_t count, struct error *error);
    bool (*logits)(struct device *device, const struct pass *pass, float *logits, int64_t count,
                   struct error *error);

    /* No memory is taken any more when each step has run once. */
    struct step *(*step_new)(struct device *device, const struct step_description *description);
    void (*step_run)(struct device *device, struct step *step, int64_t times);
};

/* Opens a device by the name of its backend; "auto" takes the best one that can be opened. Errors:
 * as device_find() and the backend's open(). */
bool device_open(struct device **device, const char *name, const struct device_options *options,
                 struct error *error);

/* The name of backend number i, best first, built in or not; NULL behind the last one. */
const char *device_name(int i);

/* The ops of a backend by its name; two names may share them. NULL with an error (STATUS_DEVICE):
 * the name is unknown, or the program was built without that backend. */
const struct device_ops *device_find(const char *name, struct error *error);
