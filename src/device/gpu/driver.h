/* NVIDIA's driver, loaded when a GPU is opened. So one program runs with it and without, and starts
 * as fast where nobody asks for it.
 *
 * A function is called through the library's table: cuda->cuMemAlloc(...). */
#pragma once

#include "base/error.h"

#include <cuda.h>
#include <stddef.h>

#define CUDA_FUNCTIONS(F)                                                                          \
    F(cuInit)                                                                                      \
    F(cuDriverGetVersion)                                                                          \
    F(cuGetErrorName)                                                                              \
    F(cuGetErrorString)                                                                            \
    F(cuDeviceGetCount)                                                                            \
    F(cuDeviceGet)                                                                                 \
    F(cuDeviceGetName)                                                                             \
    F(cuDevicePrimaryCtxRetain)                                                                    \
    F(cuDevicePrimaryCtxRelease)                                                                   \
    F(cuCtxSetCurrent)                                                                             \
    F(cuModuleLoadData)                                                                            \
    F(cuModuleUnload)                                                                              \
    F(cuModuleGetFunction)                                                                         \
    F(cuMemAlloc)                                                                                  \
    F(cuMemFree)                                                                                   \
    F(cuMemAllocHost)                                                                              \
    F(cuMemFreeHost)                                                                               \
    F(cuMemcpyHtoDAsync)                                                                           \
    F(cuMemcpyDtoHAsync)                                                                           \
    F(cuMemsetD8Async)                                                                             \
    F(cuStreamCreate)                                                                              \
    F(cuStreamDestroy)                                                                             \
    F(cuStreamSynchronize)                                                                         \
    F(cuStreamBeginCapture)                                                                        \
    F(cuStreamEndCapture)                                                                          \
    F(cuEventCreate)                                                                               \
    F(cuEventDestroy)                                                                              \
    F(cuEventRecord)                                                                               \
    F(cuEventSynchronize)                                                                          \
    F(cuLaunchKernel)                                                                              \
    F(cuGraphInstantiateWithFlags)                                                                 \
    F(cuGraphUpload)                                                                               \
    F(cuGraphLaunch)                                                                               \
    F(cuGraphDebugDotPrint)                                                                        \
    F(cuGraphExecDestroy)                                                                          \
    F(cuGraphDestroy)

/* The headers define the newer form of many names, so a member is called cuMemAlloc_v2, say; who
 * writes cuMemAlloc gets it. */
#define LIBRARY_MEMBER(name) __typeof__(&name) name;
struct cuda_library {
    CUDA_FUNCTIONS(LIBRARY_MEMBER)
};

/* What the driver says of an error, with its number. */
void cuda_error_text(const struct cuda_library *cuda, CUresult result, char *text, size_t size);

/* Loads the driver, and finds that there is a GPU. `beside` says what else the program was built
 * with, as " and cuDNN 9.1". Errors (STATUS_DEVICE): it is not there, it is not what it should be,
 * or it is too old, and what to do. Libraries stay loaded until the program ends. */
bool gpu_load_cuda(struct cuda_library *cuda, const char *beside, struct error *error);

/* Fills a table with the functions of a library that has been loaded from `file`, in the order of
 * their names, of which the last one is NULL: LIBRARY_NAME of each. */
#define LIBRARY_TEXT(text) #text
#define LIBRARY_NAME(name)                                                                         \
    LIBRARY_TEXT(name), /* after the header has chosen the form of the name */
bool gpu_find_functions(void *table, void *library, const char *file, const char *const *names,
                        const char *beside, struct error *error);
