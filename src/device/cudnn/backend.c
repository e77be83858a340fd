/* The device itself. */
#include "cudnn.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

/* The kernels as nvcc compiled them, for several GPUs at once. */
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        ".globl cudnn_kernels\n"
        "cudnn_kernels:\n"
        ".incbin \"" CIFAR_KERNELS "\"\n"
        ".popsection\n");
extern const unsigned char cudnn_kernels[];

/* For cuBLAS, which would else allocate in a recording; in bytes, as NVIDIA recommends for Hopper.
 */
enum { BLAS_WORKSPACE = 32 << 20 };

/* Without memory cuBLAS answers either of the two that get the advice. */
bool cublas_went_well(struct cudnn *d, cublasStatus_t status, const char *call) {
    const bool full =
        status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_NOT_INITIALIZED;
    struct error error;
    if (status == CUBLAS_STATUS_SUCCESS)
        return !d->gpu.failed;
    error_set(&error, STATUS_DEVICE, "%s failed: %s: %s, number %d%s", d->gpu.name, call,
              d->cublas.cublasGetStatusString(status), (int)status, full ? gpu_full : "");
    gpu_failed(&d->gpu, &error);
    return false;
}

static void find_kernels(struct cudnn *d) {
#define KERNEL_NAME(name, args) #name,
    static const char *const names[] = {KERNELS(KERNEL_NAME)};
#undef KERNEL_NAME
    for (int i = 0; i < KERNEL_COUNT; i++)
        CUDA(&d->gpu, cuModuleGetFunction, &d->kernels[i], d->gpu.module, names[i]);
}

static void destroy_cublas(struct gpu *d, void *handle) {
    cudnn_of(d)->cublas.cublasDestroy(handle);
}

static void open_cublas(struct cudnn *d) {
    void *workspace = gpu_device_memory(&d->gpu, BLAS_WORKSPACE);
    if (CUBLAS(d, cublasCreate, &d->blas))
        gpu_own(&d->gpu, destroy_cublas, d->blas);
    CUBLAS(d, cublasSetStream, d->blas, d->gpu.stream); /* which forgets a workspace set before */
    CUBLAS(d, cublasSetWorkspace, d->blas, workspace, BLAS_WORKSPACE);
    CUBLAS(d, cublasSetMathMode, d->blas,
           d->gpu.base.tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
}

static void destroy_cudnn(struct gpu *d, void *handle) {
    cudnn_of(d)->library.cudnnDestroy(handle);
}

static void open_cudnn(struct cudnn *d) {
    cudnnHandle_t handle;
    if (d->gpu.failed)
        return;
    cudnnStatus_t status = d->library.cudnnCreate(&handle);
    if (status == CUDNN_STATUS_SUCCESS) {
        gpu_own(&d->gpu, destroy_cudnn, handle);
        status = d->library.cudnnSetStream(handle, d->gpu.stream);
        d->planner.handle = handle;
    }
    if (status != CUDNN_STATUS_SUCCESS) {
        char why[512] = "";
        struct error error;
        d->library.cudnnGetLastErrorString(why, sizeof why);
        error_set(&error, STATUS_DEVICE,
                  "cuDNN cannot be used on %s: %s: %s; it may be that its memory is full%s",
                  d->gpu.name, d->library.cudnnGetErrorString(status), why, gpu_full);
        gpu_failed(&d->gpu, &error);
    }
}

extern const struct device_ops cudnn_ops;

static bool cudnn_open(struct device **device, const struct device_options *options,
                       struct error *error) {
    struct cudnn *d = memory_new(1, sizeof *d);
    d->gpu.base = (struct device){.ops = &cudnn_ops, .runs_ahead = true, .tf32 = options->tf32};
    d->planner = (struct planner){.cudnn = &d->library, .tf32 = options->tf32};
    if (!gpu_load_cuda(&d->gpu.cuda, BESIDE_CUDA, error) || !load_cublas(&d->cublas, error) ||
        !load_cudnn(&d->library, error)) {
        free(d);
        return false;
    }
    gpu_open(&d->gpu, cudnn_kernels);
    find_kernels(d);
    open_cublas(d);
    open_cudnn(d);
    d->partial = gpu_device_memory(&d->gpu, sizeof *d->partial);
    CUDA(&d->gpu, cuStreamSynchronize, d->gpu.stream);
    if (d->gpu.failed) {
        *error = d->gpu.failure;
        gpu_close(&d->gpu.base);
        return false;
    }
    *device = &d->gpu.base;
    return true;
}

static void cudnn_describe(const struct device *device, char *text, size_t size) {
    const struct cudnn *d = (const struct cudnn *)(const void *)device;
    struct device *opened = NULL;
    struct error error;
    if (d == NULL && cudnn_open(&opened, &(struct device_options){.threads = 1}, &error))
        d = cudnn_of(gpu_of(opened));
    if (d == NULL) {
        snprintf(text, size, "built with CUDA %d.%d and cuDNN %d.%d.%d; cannot be used here: %s",
                 CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10, CUDNN_MAJOR, CUDNN_MINOR,
                 CUDNN_PATCHLEVEL, error.text);
        return;
    }
    const int driver = d->gpu.driver, version = (int)d->library.cudnnGetVersion();
    snprintf(text, size,
             "%s, driver for CUDA %d.%d, cuDNN %d.%d.%d, built with CUDA %d.%d, "
             "float32%s%s",
             d->gpu.name, driver / 1000, driver % 1000 / 10, version / 10000, version % 10000 / 100,
             version % 100, CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10,
             d->gpu.base.tf32 ? " and TF32" : "", d->gpu.use_graphs ? "" : ", without graphs");
    if (opened != NULL)
        gpu_close(opened);
}

const struct device_ops cudnn_ops = {.name = "cudnn",
                                     .open = cudnn_open,
                                     .describe = cudnn_describe,
                                     .step_new = cudnn_step_new,
                                     GPU_OPS};
