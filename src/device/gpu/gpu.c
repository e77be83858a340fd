/* The device itself: failures, opening and closing it, its memory. */
#include "gpu.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failures ---- */

const char gpu_full[] = "; try a smaller --batch, end other programs that use it (nvidia-smi), "
                        "or choose another GPU with CUDA_VISIBLE_DEVICES";

/* What to do, where that can be told. */
static const char *advice_for(CUresult result) {
    switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return gpu_full;
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

static void keep_failure(struct gpu *d, const struct error *error) {
    if (!d->failed)
        d->failure = *error;
    d->failed = true;
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

void gpu_failed(struct gpu *d, const struct error *error) {
    if (!d->recording)
        CUDA(d, cuStreamSynchronize, d->stream);
    keep_failure(d, error);
}

/* ---- what is given back ---- */

/* Answers the thing. */
static void *add_owned(struct owned **list, void (*give_back)(struct gpu *, void *), void *thing,
                       size_t bytes) {
    struct owned *owned = memory_new(1, sizeof *owned);
    *owned = (struct owned){*list, give_back, thing, bytes};
    *list = owned;
    return thing;
}

static void give_back_until(struct gpu *d, struct owned **list, const struct owned *mark) {
    while (*list != mark) {
        struct owned *owned = *list;
        require(owned != NULL); /* else the mark has been released before */
        owned->give_back(d, owned->thing);
        d->bytes -= owned->bytes;
        *list = owned->next;
        free(owned);
    }
}

void *gpu_own(struct gpu *d, void (*give_back)(struct gpu *, void *), void *thing) {
    return add_owned(&d->owned, give_back, thing, 0);
}

void *gpu_mark(struct device *device) {
    return gpu_of(device)->owned;
}

/* Waits even after a failure: the device may still be at work. */
void gpu_release(struct device *device, void *mark) {
    struct gpu *d = gpu_of(device);
    if (d->stream != NULL)
        cuda_went_well(d, d->cuda.cuStreamSynchronize(d->stream), "cuStreamSynchronize");
    give_back_until(d, &d->owned, mark);
}

/* ---- opening and closing ---- */

void gpu_open(struct gpu *d, const void *kernels) {
    const char *graphs = getenv("CIFAR_CUDA_GRAPH");
    d->use_graphs = graphs == NULL || strcmp(graphs, "0") != 0;
    snprintf(d->name, sizeof d->name, "the GPU");
    CUDA(d, cuDriverGetVersion, &d->driver);
    CUDA(d, cuDeviceGet, &d->number, 0);
    CUDA(d, cuDeviceGetName, d->name, (int)sizeof d->name, d->number);
    if (CUDA(d, cuDevicePrimaryCtxRetain, &d->context, d->number))
        CUDA(d, cuCtxSetCurrent, d->context);
    CUDA(d, cuStreamCreate, &d->stream, CU_STREAM_NON_BLOCKING);
    CUDA(d, cuModuleLoadData, &d->module, kernels);
}

void gpu_close(struct device *device) {
    struct gpu *d = gpu_of(device);
    gpu_release(device, NULL);
    give_back_until(d, &d->lasting, NULL);
    if (d->module != NULL)
        d->cuda.cuModuleUnload(d->module);
    if (d->stream != NULL)
        d->cuda.cuStreamDestroy(d->stream);
    if (d->context != NULL)
        d->cuda.cuDevicePrimaryCtxRelease(d->number);
    free(d);
}

/* ---- memory ---- */

size_t gpu_memory(const struct device *device) {
    return ((const struct gpu *)(const void *)device)->bytes;
}

static void free_host_memory(struct gpu *d, void *memory) {
    (void)d;
    free(memory);
}

void *gpu_host_memory(struct gpu *d, size_t bytes) {
    return gpu_own(d, free_host_memory, memory_new(1, bytes));
}

static void free_device_memory(struct gpu *d, void *memory) {
    d->cuda.cuMemFree(address(memory));
}

static void *take_device_memory(struct gpu *d, struct owned **list, size_t bytes) {
    CUdeviceptr memory = 0;
    bytes += bytes == 0;
    if (!CUDA(d, cuMemAlloc, &memory, bytes))
        return NULL;
    CUDA(d, cuMemsetD8Async, memory, 0, bytes, d->stream);
    d->bytes += bytes;
    return add_owned(list, free_device_memory, (void *)(uintptr_t)memory, bytes);
}

void *gpu_device_memory(struct gpu *d, size_t bytes) {
    return take_device_memory(d, &d->owned, bytes);
}

void *gpu_working_memory(struct gpu *d, size_t bytes) {
    if (bytes > d->working_size) {
        d->working_memory = take_device_memory(d, &d->lasting, bytes);
        d->working_size = bytes;
    }
    return d->working_memory;
}

static void free_pinned_memory(struct gpu *d, void *memory) {
    d->cuda.cuMemFreeHost(memory);
}

void *gpu_pinned_memory(struct gpu *d, size_t bytes) {
    void *memory = NULL;
    if (CUDA(d, cuMemAllocHost, &memory, bytes + (bytes == 0)))
        gpu_own(d, free_pinned_memory, memory);
    return memory;
}

static void destroy_event(struct gpu *d, void *event) {
    d->cuda.cuEventDestroy(event);
}

/* Waiting for it does not keep a core busy. */
CUevent gpu_event_new(struct gpu *d) {
    CUevent event = NULL;
    if (CUDA(d, cuEventCreate, &event, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING))
        gpu_own(d, destroy_event, event);
    return event;
}

/* ---- tensors and blocks ---- */

static size_t bytes_of(const struct tensor *tensor, int n) {
    require(n <= tensor->capacity);
    return (size_t)n * (size_t)tensor->c * (size_t)tensor->plane * sizeof *tensor->data;
}

void gpu_copy_to_device(struct gpu *d, void *to, const void *from, size_t bytes) {
    CUDA(d, cuMemcpyHtoDAsync, address(to), from, bytes, d->stream);
    CUDA(d, cuStreamSynchronize, d->stream);
}

bool gpu_copy_to_host(struct gpu *d, void *to, const void *from, size_t bytes,
                      struct error *error) {
    CUDA(d, cuMemcpyDtoHAsync, to, address(from), bytes, d->stream);
    CUDA(d, cuStreamSynchronize, d->stream);
    if (d->failed)
        *error = d->failure;
    return !d->failed;
}

struct tensor *gpu_tensor_new(struct device *device, int n, int c, int h, int w) {
    struct gpu *d = gpu_of(device);
    struct tensor *tensor = gpu_host_memory(d, sizeof *tensor);
    *tensor = (struct tensor){NULL, n, c, h * w};
    tensor->data = gpu_device_memory(d, bytes_of(tensor, n));
    return tensor;
}

struct block *gpu_block_new(struct device *device, size_t count) {
    struct gpu *d = gpu_of(device);
    struct block *block = gpu_host_memory(d, sizeof *block);
    block->count = count;
    block->data = gpu_device_memory(d, count * sizeof *block->data);
    return block;
}

void gpu_upload(struct device *device, struct slice to, const float *from, size_t count) {
    require(to.offset + count <= to.block->count);
    gpu_copy_to_device(gpu_of(device), slice_data(to), from, count * sizeof *from);
}

bool gpu_download(struct device *device, float *to, struct slice from, size_t count,
                  struct error *error) {
    require(from.offset + count <= from.block->count);
    return gpu_copy_to_host(gpu_of(device), to, slice_data(from), count * sizeof *to, error);
}

void gpu_tensor_upload(struct device *device, struct tensor *to, const float *from, int n) {
    gpu_copy_to_device(gpu_of(device), to->data, from, bytes_of(to, n));
}

bool gpu_tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                         struct error *error) {
    return gpu_copy_to_host(gpu_of(device), to, from->data, bytes_of(from, n), error);
}
