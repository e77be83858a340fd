/* The backend `cudnn`: an NVIDIA GPU with cuDNN for the convolutions, but for the gradients of
 * their weights, cuBLAS for the Linear layer and our own kernels for the rest.
 *
 * Who does what: libraries (loading), plan (cuDNN's engines), kernels.cu (our kernels), step (what
 * a step consists of), backend (the device); all that is not cuDNN's own is in ../gpu. */
#pragma once

#include "../gpu/gpu.h"
#include "kernels.h"
#include "plan.h"

struct cudnn {
    struct gpu gpu;
    struct cublas_library cublas;
    struct cudnn_library library;
    CUfunction kernels[KERNEL_COUNT];
    cublasHandle_t blas;
    struct planner planner;
    struct partial_sums *partial; /* [D] */
};

static inline struct cudnn *cudnn_of(struct gpu *d) {
    return (struct cudnn *)(void *)d;
}

/* CUBLAS(d, cublasSgemm, d->blas, ...) calls a function unless the device has failed; true if all
 * has gone well, this call too. */
#define CUBLAS(d, function, ...)                                                                   \
    cublas_went_well((d),                                                                          \
                     (d)->gpu.failed ? CUBLAS_STATUS_SUCCESS : (d)->cublas.function(__VA_ARGS__),  \
                     #function)
bool cublas_went_well(struct cudnn *d, cublasStatus_t status, const char *call);

struct step *cudnn_step_new(struct device *device, const struct step_description *description);
