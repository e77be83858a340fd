/* The device itself: opening and closing it, its memory, its ops. */
#include "gpu.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- failures ---- */

static void keep_failure(struct gpu *d, const struct error *error) {
    if (!d->failed)
        d->failure = *error;
    d->failed = true;
}

void gpu_failed(struct gpu *d, const struct error *error) {
    if (!d->capturing)
        CUDA(d, cuStreamSynchronize, d->stream);
    keep_failure(d, error);
}

static const char FULL[] = "; try a smaller --batch, end other programs that use it (nvidia-smi), "
                           "or choose another GPU with CUDA_VISIBLE_DEVICES";

/* What to do, where that can be told. */
static const char *advice_for(CUresult result) {
    switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return FULL;
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
        return "; another program has it for itself (nvidia-smi): choose another GPU with "
               "CUDA_VISIBLE_DEVICES";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
        return "; this GPU is older than those that the program was built for: use --device cpu";
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
        return "; this GPU is newer than those that the program was built for, and the driver is "
               "older than its CUDA: install a newer driver";
    default:
        return "";
    }
}

bool cuda_went_well(struct gpu *d, CUresult result, const char *call) {
    char text[512];
    struct error error;
    if (result == CUDA_SUCCESS)
        return !d->failed;
    cuda_error_text(&d->cuda, result, text, sizeof text);
    error_set(&error, STATUS_DEVICE, "%s failed, with %.0f MB in use here: %s: %s%s", d->name,
              (double)d->bytes / 1e6, call, text, advice_for(result));
    keep_failure(d, &error);
    return false;
}

/* Without memory cuBLAS answers either of the two that get the advice. */
bool cublas_went_well(struct gpu *d, cublasStatus_t status, const char *call) {
    const bool full =
        status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_NOT_INITIALIZED;
    struct error error;
    if (status == CUBLAS_STATUS_SUCCESS)
        return !d->failed;
    error_set(&error, STATUS_DEVICE, "%s failed: %s: %s, number %d%s", d->name, call,
              d->cublas.cublasGetStatusString(status), (int)status, full ? FULL : "");
    gpu_failed(d, &error);
    return false;
}

void cudnn_launch(struct gpu *d, enum kernel kernel, int64_t x, int64_t y, void *args) {
    void *parameters[] = {args};
    CUDA(d, cuLaunchKernel, d->kernels[kernel], (unsigned)x, (unsigned)y, 1, KERNEL_BLOCK, 1, 1, 0,
         d->stream, parameters, NULL);
}

/* ---- memory ---- */

static struct owned *own(struct gpu *d) {
    struct owned *owned = memory_new(1, sizeof *owned);
    owned->next = d->owned;
    return d->owned = owned;
}

void *device_memory(struct gpu *d, size_t bytes) {
    CUdeviceptr memory = 0;
    bytes += bytes == 0;
    if (!CUDA(d, cuMemAlloc, &memory, bytes))
        return NULL;
    struct owned *owned = own(d);
    owned->kind = ON_DEVICE;
    owned->what.device = memory;
    d->bytes += bytes;
    CUDA(d, cuMemsetD8Async, memory, 0, bytes, d->stream);
    return (void *)(uintptr_t)memory;
}

void *pinned_memory(struct gpu *d, size_t bytes) {
    void *memory = NULL;
    if (!CUDA(d, cuMemAllocHost, &memory, bytes + (bytes == 0)))
        return NULL;
    struct owned *owned = own(d);
    owned->kind = PINNED;
    owned->what.host = memory;
    return memory;
}

void *host_memory(struct gpu *d, size_t bytes) {
    struct owned *owned = own(d);
    owned->kind = ON_HOST;
    return owned->what.host = memory_new(1, bytes);
}

/* Waiting for it does not keep a core busy. */
CUevent new_event(struct gpu *d) {
    CUevent event = NULL;
    if (!CUDA(d, cuEventCreate, &event, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING))
        return NULL;
    struct owned *owned = own(d);
    owned->kind = AN_EVENT;
    owned->what.event = event;
    return event;
}

static void free_owned(struct gpu *d) {
    for (struct owned *owned = d->owned, *next; owned != NULL; owned = next) {
        next = owned->next;
        switch (owned->kind) {
        case ON_DEVICE:
            d->cuda.cuMemFree(owned->what.device);
            break;
        case PINNED:
            d->cuda.cuMemFreeHost(owned->what.host);
            break;
        case ON_HOST:
            free(owned->what.host);
            break;
        case AN_EVENT:
            d->cuda.cuEventDestroy(owned->what.event);
            break;
        }
        free(owned);
    }
}

void copy_to_device(struct gpu *d, void *to, const void *from, size_t bytes) {
    CUDA(d, cuMemcpyHtoDAsync, address(to), from, bytes, d->stream);
    CUDA(d, cuStreamSynchronize, d->stream);
}

bool copy_to_host(struct gpu *d, void *to, const void *from, size_t bytes, struct error *error) {
    CUDA(d, cuMemcpyDtoHAsync, to, address(from), bytes, d->stream);
    CUDA(d, cuStreamSynchronize, d->stream);
    if (d->failed)
        *error = d->failure;
    return !d->failed;
}

static struct tensor *tensor_new(struct device *device, int n, int c, int h, int w) {
    struct gpu *d = gpu_of(device);
    struct tensor *tensor = host_memory(d, sizeof *tensor);
    tensor->capacity = n;
    tensor->c = c;
    tensor->plane = h * w;
    tensor->promise = host_memory(d, sizeof *tensor->promise);
    tensor->data =
        device_memory(d, (size_t)n * (size_t)c * (size_t)tensor->plane * sizeof *tensor->data);
    return tensor;
}

static struct block *block_new(struct device *device, size_t count) {
    struct gpu *d = gpu_of(device);
    struct block *block = host_memory(d, sizeof *block);
    block->count = count;
    block->data = device_memory(d, count * sizeof *block->data);
    return block;
}

static void upload(struct device *device, struct slice to, const float *from, size_t count) {
    require(to.offset + count <= to.block->count);
    copy_to_device(gpu_of(device), slice_data(to), from, count * sizeof *from);
}

static bool download(struct device *device, float *to, struct slice from, size_t count,
                     struct error *error) {
    require(from.offset + count <= from.block->count);
    return copy_to_host(gpu_of(device), to, slice_data(from), count * sizeof *to, error);
}

static size_t bytes_of(const struct tensor *tensor, int n) {
    require(n <= tensor->capacity);
    return (size_t)n * (size_t)tensor->c * (size_t)tensor->plane * sizeof *tensor->data;
}

static void tensor_upload(struct device *device, struct tensor *to, const float *from, int n) {
    struct gpu *d = gpu_of(device);
    copy_to_device(d, for_writing(d, to), from, bytes_of(to, n));
}

static bool tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error) {
    struct gpu *d = gpu_of(device);
    return copy_to_host(d, to, for_reading(d, from), bytes_of(from, n), error);
}

/* ---- opening and closing ---- */

static void cudnn_close(struct device *device) {
    struct gpu *d = gpu_of(device);
    if (d->stream != NULL)
        d->cuda.cuStreamSynchronize(d->stream);
    cudnn_recordings_free(d);
    for (struct plan *plan = d->plans, *next; plan != NULL; plan = next) {
        next = plan->next;
        plan_free(plan, &d->planner);
    }
    if (d->planner.handle != NULL)
        d->cudnn.cudnnDestroy(d->planner.handle);
    if (d->blas != NULL)
        d->cublas.cublasDestroy(d->blas);
    free_owned(d);
    if (d->module != NULL)
        d->cuda.cuModuleUnload(d->module);
    if (d->stream != NULL)
        d->cuda.cuStreamDestroy(d->stream);
    if (d->context != NULL)
        d->cuda.cuDevicePrimaryCtxRelease(d->number);
    free(d);
}

/* The GPU, a stream and our kernels on it. */
static void open_gpu(struct gpu *d) {
#define KERNEL_NAME(name) #name,
    static const char *const names[] = {KERNELS(KERNEL_NAME)};
#undef KERNEL_NAME
    snprintf(d->name, sizeof d->name, "the GPU");
    CUDA(d, cuDriverGetVersion, &d->driver);
    CUDA(d, cuDeviceGet, &d->number, 0);
    CUDA(d, cuDeviceGetName, d->name, (int)sizeof d->name, d->number);
    if (CUDA(d, cuDevicePrimaryCtxRetain, &d->context, d->number))
        CUDA(d, cuCtxSetCurrent, d->context);
    CUDA(d, cuStreamCreate, &d->stream, CU_STREAM_NON_BLOCKING);
    CUDA(d, cuModuleLoadData, &d->module, cudnn_kernels);
    for (int i = 0; i < KERNEL_COUNT; i++)
        CUDA(d, cuModuleGetFunction, &d->kernels[i], d->module, names[i]);
}

/* The two libraries on that stream, and working memory for the ops. */
static void open_libraries(struct gpu *d, bool tf32) {
    void *workspace = device_memory(d, BLAS_WORKSPACE);
    CUBLAS(d, cublasCreate, &d->blas);
    CUBLAS(d, cublasSetStream, d->blas, d->stream); /* which forgets a workspace set before */
    CUBLAS(d, cublasSetWorkspace, d->blas, workspace, BLAS_WORKSPACE);
    CUBLAS(d, cublasSetMathMode, d->blas, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
    if (!d->failed) {
        cudnnHandle_t handle = NULL;
        cudnnStatus_t status = d->cudnn.cudnnCreate(&handle);
        if (status == CUDNN_STATUS_SUCCESS)
            status = d->cudnn.cudnnSetStream(handle, d->stream);
        d->planner.handle = handle;
        if (status != CUDNN_STATUS_SUCCESS) {
            char why[512] = "";
            struct error error;
            d->cudnn.cudnnGetLastErrorString(why, sizeof why);
            error_set(&error, STATUS_DEVICE,
                      "cuDNN cannot be used on %s: %s: %s; it may be that its memory is full%s",
                      d->name, d->cudnn.cudnnGetErrorString(status), why, FULL);
            gpu_failed(d, &error);
        }
    }
    d->partial = device_memory(d, sizeof *d->partial);
    d->clock = device_memory(d, sizeof *d->clock);
    CUDA(d, cuStreamSynchronize, d->stream);
}

static bool cudnn_open(struct device **device, const struct device_options *options,
                       struct error *error) {
    struct gpu *d = memory_new(1, sizeof *d);
    const char *graphs = getenv("CIFAR_CUDA_GRAPH");
    d->base = (struct device){.ops = &cudnn_ops, .runs_ahead = true, .tf32 = options->tf32};
    d->planner = (struct planner){.cudnn = &d->cudnn, .tf32 = options->tf32};
    d->use_graphs = graphs == NULL || strcmp(graphs, "0") != 0;
    if (!load_cuda(&d->cuda, error) || !load_cublas(&d->cublas, error) ||
        !load_cudnn(&d->cudnn, error)) {
        free(d);
        return false;
    }
    d->cudnn_version = (int)d->cudnn.cudnnGetVersion();
    open_gpu(d);
    open_libraries(d, options->tf32);
    if (d->failed) {
        *error = d->failure;
        cudnn_close(&d->base);
        return false;
    }
    *device = &d->base;
    return true;
}

static void cudnn_describe(const struct device *device, char *text, size_t size) {
    const struct gpu *d = (const struct gpu *)(const void *)device;
    struct device *opened = NULL;
    struct error error;
    if (d == NULL && cudnn_open(&opened, &(struct device_options){.threads = 1}, &error))
        d = gpu_of(opened);
    if (d == NULL)
        snprintf(text, size, "built with CUDA %d.%d and cuDNN %d.%d.%d; cannot be used here: %s",
                 CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10, CUDNN_MAJOR, CUDNN_MINOR,
                 CUDNN_PATCHLEVEL, error.text);
    else
        snprintf(text, size,
                 "%s, driver for CUDA %d.%d, cuDNN %d.%d.%d, built with CUDA %d.%d, "
                 "float32%s%s",
                 d->name, d->driver / 1000, d->driver % 1000 / 10, d->cudnn_version / 10000,
                 d->cudnn_version % 10000 / 100, d->cudnn_version % 100, CUDA_VERSION / 1000,
                 CUDA_VERSION % 1000 / 10, d->base.tf32 ? " and TF32" : "",
                 d->use_graphs ? "" : ", without graphs");
    if (opened != NULL)
        cudnn_close(opened);
}

static size_t cudnn_memory(const struct device *device) {
    return ((const struct gpu *)(const void *)device)->bytes;
}

const struct device_ops cudnn_ops = {
    .name = "cudnn",
    .open = cudnn_open,
    .close = cudnn_close,
    .describe = cudnn_describe,
    .memory = cudnn_memory,
    .tensor_new = tensor_new,
    .block_new = block_new,
    .upload = upload,
    .download = download,
    .tensor_upload = tensor_upload,
    .tensor_download = tensor_download,
    .loader_new = cudnn_loader_new,
    .loader_rewind = cudnn_loader_rewind,
    .losses = cudnn_losses,
    .predictions = cudnn_predictions,
    .repeat = cudnn_repeat,
    .load_batch = cudnn_load_batch,
    .conv2d_forward = cudnn_conv2d_forward,
    .conv2d_backward = cudnn_conv2d_backward,
    .batchnorm_forward = cudnn_batchnorm_forward,
    .batchnorm_backward = cudnn_batchnorm_backward,
    .linear_forward = cudnn_linear_forward,
    .linear_backward = cudnn_linear_backward,
    .cross_entropy = cudnn_cross_entropy,
    .adam_step = cudnn_adam_step,
    .adam_seek = cudnn_adam_seek,
};
