/* The backend `cudnn`: an NVIDIA GPU through its driver, with cuDNN for the convolutions, but for
 * the gradients of their weights, cuBLAS for the Linear layer and our own kernels for the rest.
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

/* A pointer marked [D] is to the device's memory: the host hands it on and never looks through it.
 */
struct tensor {
    float *data;            /* [D] */
    int capacity, c, plane; /* images; channels; h * w */
    struct promise *promise;
};

/* What has been put off for a tensor (see layers.c). */
struct promise {
    const float *addend; /* [D] [c] still to be added to each plane, or NULL */
    int images;          /* to which it is to be added */
    bool owes;           /* the gradient of a bias is still to be summed from it */
};

struct block {
    float *data; /* [D] */
    size_t count;
};

/* How many of a pass's losses are on their way to the host, and what tells that they are there. */
struct published {
    int64_t steps;
    CUevent event;
};

struct loader {
    uint8_t *records; /* [D] [count][1 + pixels] */
    int64_t count, length;
    int pixels;
    uint32_t *order;        /* [D] [count] */
    struct cursor *cursor;  /* [D] */
    float *losses;          /* [D] [count] */
    uint8_t *predicted;     /* [D] [count] */
    int64_t next, steps;    /* the cursor as it will be after all that is queued */
    uint32_t *host_order;   /* [count], pinned */
    float *host_losses;     /* [count], pinned */
    CUevent order_uploaded; /* host_order may be written again */
    struct published newer, older;
};

/* A program's step as a CUDA graph. */
struct recording {
    struct recording *next;
    CUgraphExec one, many;
    int many_steps;        /* in `many` */
    bool prepared;         /* the step has run once: all that it loads and chooses is there */
    struct loader *loader; /* of the step, or NULL; and how far it goes on: */
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

struct gpu {
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

    void *workspace; /* [D] of cuDNN's engines */
    size_t workspace_size;
    struct partial_sums *partial; /* [D] */
    struct adam_clock *clock;     /* [D] */

    struct bias_gradients_args owed; /* that are still to be summed */
    struct promise *owed_by[KERNEL_JOBS];
};

static inline struct gpu *gpu_of(struct device *device) {
    return (struct gpu *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

static inline CUdeviceptr address(const void *device_memory) {
    return (CUdeviceptr)(uintptr_t)device_memory;
}

/* ---- calling the libraries ---- */

/* Keeps the first failure. A fault of the GPU shows in whichever call comes next, so where cuBLAS
 * or cuDNN complain, the driver is asked first. */
void gpu_failed(struct gpu *d, const struct error *error);

/* Whether all has gone well, this call too. */
bool cuda_went_well(struct gpu *d, CUresult result, const char *call);
bool cublas_went_well(struct gpu *d, cublasStatus_t status, const char *call);

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
void cudnn_launch(struct gpu *d, enum kernel kernel, int64_t x, int64_t y, void *args);

/* ---- memory, freed by close() ---- */

void *device_memory(struct gpu *d, size_t bytes); /* zeroed; NULL if the device has failed */
void *pinned_memory(struct gpu *d, size_t bytes); /* on the host; likewise */
void *host_memory(struct gpu *d, size_t bytes);   /* zeroed */
CUevent new_event(struct gpu *d);

/* Both wait until it is done. */
void copy_to_device(struct gpu *d, void *to, const void *from, size_t bytes);
bool copy_to_host(struct gpu *d, void *to, const void *from, size_t bytes, struct error *error);

/* The memory of a tensor that is to be read, with what was still to be added, or overwritten. */
const float *for_reading(struct gpu *d, const struct tensor *tensor);
float *for_writing(struct gpu *d, const struct tensor *tensor);

/* Sums the gradients of biases that were put off. */
void settle_gradients(struct gpu *d);

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
void cudnn_publish(struct gpu *d, struct loader *loader);

/* Notes that what is queued now, in the step of a program or outside, reads so many images of the
 * loader and makes so many losses. */
void cudnn_loader_advance(struct gpu *d, struct loader *loader, int images, int losses);

void cudnn_repeat(struct device *device, struct program *program, int64_t times);
void cudnn_recordings_free(struct gpu *d);

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
