/* The backend `cudnn`: an NVIDIA GPU through its driver, with cuDNN for the convolutions, cuBLAS
 * for the Linear layer and our own kernels for the rest.
 *
 * Everything is queued on one stream, in float32 [n][c][h][w]. The data set, the order of the pass,
 * its losses and Adam's step number live on the device, so a step is the same each time: repeat()
 * records it into a CUDA graph and replays that. The host waits only where it reads a result.
 *
 * Who does what: libraries (loading), plan (cuDNN's engines), kernels.cu (our kernels), backend
 * (the device and its memory), loader (the data set), program (recording), layers (the ops). */
#pragma once

#include "device/device.h"
#include "kernels.h"
#include "plan.h"

/* All pointers in these structs but the marked ones are to the device's memory: the host hands them
 * on and never looks through them. */
struct tensor {
    float *data;
    int capacity, c, plane; /* images; channels; h * w */
    const float *addend;    /* [c] still to be added to each plane, or NULL (see layers.c) */
    int addend_images;      /* to so many images */
    bool owes;              /* the gradient of a bias is still to be summed from it */
};

struct block {
    float *data;
    size_t count;
};

/* How many of a pass's losses are on their way to the host, and what tells that they are there. */
struct published {
    int64_t steps;
    CUevent event;
};

struct loader {
    uint8_t *records; /* [count][1 + pixels] */
    int64_t count, length;
    int pixels;
    uint32_t *order; /* [count] */
    struct cursor *cursor;
    float *losses;          /* [count] */
    uint8_t *predicted;     /* [count] */
    int64_t next, steps;    /* the cursor as it will be after all that is queued */
    uint32_t *host_order;   /* pinned, on the host */
    float *host_losses;     /* pinned, on the host */
    CUevent order_uploaded; /* host_order may be written again */
    struct published newer, older;
};

/* A program's step as a CUDA graph. */
struct recording {
    struct recording *next;
    CUgraphExec one, many;
    int many_steps;        /* in `many` */
    bool prepared;         /* the step has run once: all that it loads and chooses is there */
    struct loader *loader; /* that the step reads, or NULL; and how far it goes on: */
    int64_t images, steps;
};

/* A piece of memory that close() frees. */
struct owned {
    struct owned *next;
    enum { ON_DEVICE, PINNED, ON_HOST, AN_EVENT } kind;
    union {
        CUdeviceptr device;
        void *host;
        CUevent event;
    } what;
};

struct cudnn {
    struct device base;
    struct cuda_library cuda;
    struct cublas_library cublas;
    struct cudnn_library cudnn;
    CUdevice number;
    CUcontext context;
    CUstream stream;
    CUmodule module; /* our kernels */
    CUfunction kernels[KERNEL_COUNT];
    cublasHandle_t blas;
    struct planner planner;
    struct plan *plans;
    struct recording *recordings;
    struct owned *owned;
    size_t bytes; /* of the device's memory */
    char name[256];
    int driver, cudnn_version;
    bool use_graphs, drawn; /* CIFAR_CUDA_GRAPH; CIFAR_CUDA_DOT has been written */

    struct recording *running; /* the program whose body is being called, or NULL */
    bool capturing;            /* it is being recorded, not run */

    /* The first failure. After it nothing is called any more, and whoever reads a result gets it.
     */
    bool failed;
    struct error failure;

    void *workspace; /* of cuDNN's engines */
    size_t workspace_size;
    struct partial_sums *partial;
    struct adam_clock *clock;

    struct bias_gradients_args owed; /* that are still to be summed */
    struct tensor *owed_by[KERNEL_JOBS];
};

static inline struct cudnn *cudnn_of(struct device *device) {
    return (struct cudnn *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

static inline CUdeviceptr address(const void *device_memory) {
    return (CUdeviceptr)(uintptr_t)device_memory;
}

/* ---- calling the libraries ---- */

/* Whether all has gone well, this call too; the first that does not is kept as the failure. */
bool cuda_went_well(struct cudnn *d, CUresult result, const char *call);
bool cublas_went_well(struct cudnn *d, cublasStatus_t status, const char *call);

/* CUDA(d, cuMemAlloc, &memory, bytes) calls a function unless the device has failed; true if it
 * went well. */
#define CUDA(d, function, ...)                                                                     \
    cuda_went_well((d), (d)->failed ? CUDA_SUCCESS : (d)->cuda.function(__VA_ARGS__), #function)
#define CUBLAS(d, function, ...)                                                                   \
    cublas_went_well((d), (d)->failed ? CUBLAS_STATUS_SUCCESS : (d)->cublas.function(__VA_ARGS__), \
                     #function)

/* LAUNCH(d, adam, blocks, 1, .w = w, ...) queues a kernel on x times y blocks. */
#define LAUNCH(d, kernel, x, y, ...)                                                               \
    cudnn_launch((d), KERNEL_##kernel, (x), (y), &(struct kernel##_args){__VA_ARGS__})
void cudnn_launch(struct cudnn *d, enum kernel kernel, int64_t x, int64_t y, void *args);

/* ---- memory, freed by close() ---- */

void *device_memory(struct cudnn *d, size_t bytes); /* zeroed; NULL if the device has failed */
void *pinned_memory(struct cudnn *d, size_t bytes); /* on the host; likewise */
void *host_memory(struct cudnn *d, size_t bytes);   /* zeroed */
CUevent new_event(struct cudnn *d);

/* Both wait until it is done. */
void copy_to_device(struct cudnn *d, void *to, const void *from, size_t bytes);
bool copy_to_host(struct cudnn *d, void *to, const void *from, size_t bytes, struct error *error);

/* Do what was put off: add what is still to be added to a tensor; sum the gradients of biases. */
void cudnn_settle(struct cudnn *d, const struct tensor *tensor);
void cudnn_settle_gradients(struct cudnn *d);

/* ---- the parts of the table of ops; see device.h ---- */

struct loader *cudnn_loader_new(struct device *device, const uint8_t *records, int64_t count, int c,
                                int h, int w);
void cudnn_loader_rewind(struct device *device, struct loader *loader, const uint32_t *order,
                         int64_t length);
bool cudnn_losses(struct device *device, const struct loader *loader, float *losses, int64_t first,
                  int64_t count, struct error *error);
bool cudnn_predictions(struct device *device, const struct loader *loader, uint8_t *classes,
                       int64_t count, struct error *error);
void cudnn_load_batch(struct device *device, struct tensor *x, struct loader *loader, int n);

/* Sends the losses of the steps queued so far on their way to the host. */
void cudnn_publish(struct cudnn *d, struct loader *loader);

/* Notes that the step which is queued now reads n images of the loader, or makes one loss. */
void cudnn_loader_reads(struct cudnn *d, struct loader *loader, int n);
void cudnn_loader_steps(struct cudnn *d, struct loader *loader);

void cudnn_repeat(struct device *device, struct program *program, int64_t times);
void cudnn_recordings_free(struct cudnn *d);

void cudnn_conv2d_forward(struct device *device, struct tensor *y, const struct tensor *x,
                          const struct conv2d *conv, int n);
void cudnn_conv2d_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *x, const struct conv2d *conv, int n);
void cudnn_batchnorm_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct batchnorm *norm, bool training, int n);
void cudnn_batchnorm_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct batchnorm *norm, int n);
void cudnn_linear_forward(struct device *device, struct tensor *y, const struct tensor *x,
                          const struct linear *linear, int n);
void cudnn_linear_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *x, const struct linear *linear, int n);
void cudnn_cross_entropy(struct device *device, struct tensor *dlogits, const struct tensor *logits,
                         struct loader *loader, int n);
void cudnn_adam_step(struct device *device, const struct adam *adam);
void cudnn_adam_seek(struct device *device, int64_t step);

extern const struct device_ops cudnn_ops;
