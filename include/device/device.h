/* The device interface: everything that the program asks of the hardware it trains on.
 *
 * A backend is one const table of functions, `struct device_ops`, none of them NULL. The floors
 * above know nothing else of it. Five ideas keep the interface narrow for its users and wide enough
 * for a fast backend:
 *
 *  - Memory belongs to the device. `struct tensor` and `struct block` are incomplete types, so host
 *    code that would touch them does not compile, and a tensor may look in memory as its backend
 *    likes. All of it is freed by close(), and no tensor, block or working memory is
 *    taken once each program has run.
 *  - Ops are queued in order and have no result that the host sees. A device may run them later;
 *    reading a result waits for the ops before it, and is where a failure of the device shows: one
 *    that has run out of memory, say, takes all further calls and tells of it then.
 *  - A step is a `struct program`: a fixed sequence of ops that repeat() runs many times. A backend
 *    may call its body each time, or once to record it and replay the recording.
 *  - So a step is the same each time, the device itself keeps what changes from step to step: the
 *    position in the data set (struct loader), the losses so far, Adam's step number.
 *  - Ops are as large as pays: batch normalisation includes its ReLU and max-pool, the loss its
 *    gradient, and Adam passes over all parameters at once. A backend may join more of them: of a
 *    program's step only the blocks, the logits, the losses and the predictions must exist
 *    afterwards, its other tensors need not. An op outside of repeat() writes all its outputs.
 *
 * Words: `n` is the number of images in a batch; c, h, w are channels, height and width. Names are
 * as in PyTorch: y = op(x), dy is the gradient of the loss with respect to y. Outputs come before
 * inputs, sizes last. Every output is overwritten, never added to, and shares no memory with an
 * input. A slice may begin at any float of its block. Descriptions (struct conv2d, ...) and host
 * memory are read during the call, unless it says that it borrows them; each call of a program's
 * body passes the same ones. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct tensor; /* activations of a batch, [n][c][h][w] in whatever layout the backend likes */
struct block;  /* a flat row of floats in PyTorch's order: parameters, gradients, moments, ... */
struct loader; /* a data set on the device, read batch by batch in a given order */

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

/* As torch.nn.Linear: x is [n][in], y is [n][out] = x weight^T + bias. */
struct linear {
    int in, out;
    struct slice weight; /* [out][in] */
    struct slice bias;   /* [out] */
    struct slice dweight, dbias;
};

/* As torch.optim.Adam with weight decay added to the gradient (not decoupled), over whole blocks of
 * `count` floats. The device counts the steps. */
struct adam {
    size_t count;
    double lr, beta1, beta2, eps, weight_decay;
    struct block *parameters, *gradients;
    struct block *exp_avg, *exp_avg_sq; /* the two moments */
};

/* A step: body(context) issues the same ops with the same arguments whenever it is called, those of
 * Adam, which change what the others read, last. */
struct program {
    void (*body)(void *context);
    void *context;
    void *recording; /* the backend's own: NULL at first, freed by close() */
};

/* What all backends have in common; a backend's own device begins with it. */
struct device {
    const struct device_ops *ops;
    bool tf32;              /* products may round their factors to TF32, as its options allowed */
    bool runs_ahead;        /* ops return before they are done: whoever waits queues more first */
    char passed_over[1024]; /* by "auto": why a better device was not taken; else empty */
};

/* How a device is to be opened. */
struct device_options {
    int threads; /* CPU threads that it may use, at least 1 */
    bool tf32;   /* allows a GPU that can to round the factors of products to TF32 */
};

struct device_ops {
    const char *name; /* as --device takes it */

    /* ---- the device ---- */

    /* Errors (STATUS_DEVICE): it is not there or cannot be used, with the reason and what to do,
     * as a sentence that "--device NAME: " can stand before. STATUS_FAILURE: out of memory.
     * STATUS_USAGE: the environment asks of it what it cannot; "auto" takes no other device then.
     */
    bool (*open)(struct device **device, const struct device_options *options, struct error *error);
    void (*close)(struct device *device);

    /* Describes it in one line for people: what computes, in which version, with how many threads.
     * With device NULL, the backend alone, and whether it could be used here. */
    void (*describe)(const struct device *device, char *text, size_t size);

    /* Bytes of memory that it holds now. */
    size_t (*memory)(const struct device *device);

    /* ---- memory ---- */

    /* n zeroed images of [c][h][w]; ops may use fewer. */
    struct tensor *(*tensor_new)(struct device *device, int n, int c, int h, int w);
    struct block *(*block_new)(struct device *device, size_t count);

    /* Copies `count` floats from or to the host; of a tensor, n images as [n][c][h][w]. download
     * waits for the ops before it. A tensor holds the images of the op or upload that wrote it
     * last, and no others. Errors (STATUS_DEVICE): the device failed. */
    void (*upload)(struct device *device, struct slice to, const float *from, size_t count);
    bool (*download)(struct device *device, float *to, struct slice from, size_t count,
                     struct error *error);
    void (*tensor_upload)(struct device *device, struct tensor *to, const float *from, int n);
    bool (*tensor_download)(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error);

    /* ---- the data set ---- */

    /* Makes the device hold `count` images: records of one label byte and c*h*w pixel bytes. The
     * records are borrowed and must stay as they are until close(). */
    struct loader *(*loader_new)(struct device *device, const uint8_t *records, int64_t count,
                                 int c, int h, int w);

    /* Goes back to the first batch of a new pass; `order` holds the numbers of the `length` images
     * to be read, in order (copied). The losses and predictions of the pass before are forgotten.
     */
    void (*loader_rewind)(struct device *device, struct loader *loader, const uint32_t *order,
                          int64_t length);

    /* The results of the pass so far: the mean loss of each of the steps [first, first + count),
     * and the predicted class of the first `count` images in the order of the pass. The losses wait
     * for the calls of repeat() that made them and need not wait for later ones, the predictions
     * wait for all ops before them. Errors (STATUS_DEVICE): the device failed. */
    bool (*losses)(struct device *device, const struct loader *loader, float *losses, int64_t first,
                   int64_t count, struct error *error);
    bool (*predictions)(struct device *device, const struct loader *loader, uint8_t *classes,
                        int64_t count, struct error *error);

    /* ---- steps ---- */

    /* Runs the program's step, which reads one data set at most, `times` times. */
    void (*repeat)(struct device *device, struct program *program, int64_t times);

    /* ---- ops ---- */

    /* x = the next n images of the pass, each pixel as (pixel/255 - 0.5) / 0.5. */
    void (*load_batch)(struct device *device, struct tensor *x, struct loader *loader, int n);

    void (*conv2d_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                           const struct conv2d *conv, int n);
    /* dx may be NULL: nobody needs the gradient of the images. */
    void (*conv2d_backward)(struct device *device, struct tensor *dx, const struct tensor *dy,
                            const struct tensor *x, const struct conv2d *conv, int n);

    void (*batchnorm_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                              const struct batchnorm *norm, bool training, int n);
    /* The gradient of the training mode, for the batch of the last forward pass in training. */
    void (*batchnorm_backward)(struct device *device, struct tensor *dx, const struct tensor *dy,
                               const struct tensor *x, const struct batchnorm *norm, int n);

    void (*linear_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                           const struct linear *linear, int n);
    void (*linear_backward)(struct device *device, struct tensor *dx, const struct tensor *dy,
                            const struct tensor *x, const struct linear *linear, int n);

    /* The loss of the batch that load_batch() loaded last, as torch.nn.CrossEntropyLoss (the mean
     * over its n images), and the predicted classes (the first of equals) join the results of the
     * pass. dlogits = gradient of that mean, NULL in evaluation. logits are [n][classes][1][1]. */
    void (*cross_entropy)(struct device *device, struct tensor *dlogits,
                          const struct tensor *logits, struct loader *loader, int n);

    /* One step of Adam: number 1, 2, 3, ... since open(), or after adam_seek(step) number step + 1.
     */
    void (*adam_step)(struct device *device, const struct adam *adam);
    void (*adam_seek)(struct device *device, int64_t step);
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
