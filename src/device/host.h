/* What the backends that compute on the CPU share: their memory, the data set, the pass and its
 * results, the running of steps. How an activation (struct tensor) looks, and how an op is computed
 * (struct host_kernels), is each backend's own.
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

struct dataset {
    struct images images; /* its records are borrowed */
};

struct pass {
    const struct images *images;
    int64_t most_images, most_steps; /* room for */
    struct view *views;              /* [most_images], of the script */
    double *schedule;                /* [most_steps], likewise */
    struct script script;            /* with these */
    int64_t next;                    /* images loaded so far */
    int64_t steps;                   /* that have loaded theirs so far */
    float *losses;                   /* [most_steps] */
    float *logits;                   /* [most_images][classes] */
};

struct step {
    struct step_description description; /* with a copy of the ops */
};

/* A piece of memory that release() or close() frees. */
struct owned {
    struct owned *next;
    size_t bytes;
    _Alignas(64) unsigned char memory[];
};

/* Working memory is that of an op, or of a part of it that has its own. */
enum host_scratch { HOST_OP, HOST_PART, HOST_SCRATCHES };

struct host {
    struct device base;
    const struct host_kernels *kernels;
    struct owned *owned; /* the newest first */
    size_t bytes;        /* that it holds, with the scratch */
    struct {             /* working memory */
        float *data;
        size_t count;
    } scratch[HOST_SCRATCHES];
};

/* The ops as a backend computes them; see struct op. */
struct host_kernels {
    void (*load)(struct host *host, struct tensor *images, const struct pass *pass, int n);
    void (*stage)(struct host *host, const struct stage *stage, bool training, int n);
    void (*stage_backward)(struct host *host, const struct stage *stage, int n);
    /* Returns the sum of the images' losses. */
    double (*head)(struct host *host, const struct head *head, bool training, struct pass *pass,
                   int n);
    void (*head_backward)(struct host *host, const struct head *head, int n);
    void (*adam)(struct host *host, const struct adam *adam, const struct pass *pass);
    void (*sgd)(struct host *host, const struct sgd *sgd, const struct pass *pass);
    void (*muon)(struct host *host, const struct muon *muon, const struct pass *pass);
    void (*average)(struct host *host, const struct average *average, const struct pass *pass);
};

static inline struct host *host_of(struct device *device) {
    return (struct host *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

/* A device with these ops and kernels, for open(); sets the calling thread, and so those that it
 * makes later, to take denormal numbers for zero. */
struct device *host_new(const struct device_ops *ops, const struct host_kernels *kernels,
                        const struct device_options *options);

/* Zeroed memory, aligned to 64 bytes, that release() or close() frees. */
void *host_own(struct host *host, size_t count, size_t size);

/* Working memory, at least `count` floats, aligned to 64 bytes, not zeroed. It grows in the first
 * step that needs more and stays as it is from then on. */
float *host_scratch(struct host *host, enum host_scratch of, size_t count);

/* ---- for a backend's kernels ---- */

/* What a pixel's byte becomes: (pixel/255 - 0.5) / 0.5, rounded as PyTorch rounds it. */
void host_pixel_values(float values[256]);

/* Row number `row` of x [c * h][w] as image number `image` of the pass is seen: pixel j goes to
 * x[j * stride]. */
void host_load_row(float *x, size_t stride, const struct pass *pass, int64_t image, int row,
                   const float values[256]);

/* One image's part in the cross-entropy of a batch of n, which is returned: for logits z and the
 * target p, log(sum of e^z) - sum of p z; dz = (softmax(z) - p) / n unless dz is NULL, which is in
 * evaluation. p is 1 for the image's label and 0 for others, and in training smoothed by the head.
 * Class k is at z[k * stride], also of dz. The logits join the results of the pass. A few hundred
 * operations an image, so all in double. */
double host_cross_entropy(float *dz, const float *z, size_t stride, const struct head *head,
                          struct pass *pass, int64_t image, int n);

/* The rest are ops of struct device_ops, for a backend's table. */
void host_close(struct device *device);
size_t host_bytes(const struct device *device);
void *host_mark(struct device *device);
void host_release(struct device *device, void *mark);
struct block *host_block_new(struct device *device, size_t count);
void host_upload(struct device *device, struct slice to, const float *from, size_t count);
bool host_download(struct device *device, float *to, struct slice from, size_t count,
                   struct error *error);
struct dataset *host_dataset_new(struct device *device, const struct images *images);
struct pass *host_pass_new(struct device *device, struct dataset *dataset, int64_t images,
                           int64_t steps);
void host_pass_begin(struct device *device, struct pass *pass, const struct script *script);
bool host_losses(struct device *device, const struct pass *pass, float *losses, int64_t first,
                 int64_t count, struct error *error);
bool host_logits(struct device *device, const struct pass *pass, float *logits, int64_t count,
                 struct error *error);
struct step *host_step_new(struct device *device, const struct step_description *description);
void host_step_run(struct device *device, struct step *step, int64_t times);

#define HOST_OPS                                                                                   \
    .close = host_close, .memory = host_bytes, .mark = host_mark, .release = host_release,         \
    .block_new = host_block_new, .upload = host_upload, .download = host_download,                 \
    .dataset_new = host_dataset_new, .pass_new = host_pass_new, .pass_begin = host_pass_begin,     \
    .losses = host_losses, .logits = host_logits, .step_new = host_step_new,                       \
    .step_run = host_step_run
