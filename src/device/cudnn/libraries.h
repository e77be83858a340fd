/* The three libraries behind this backend, loaded when it is opened: NVIDIA's driver, cuBLAS and
 * cuDNN. So one program runs with them and without, and starts as fast where nobody asks for them.
 *
 * A function is called through its library's table: cuda->cuMemAlloc(...). */
#pragma once

#include "base/error.h"

#include <cublas_v2.h>
#include <cuda.h>
#include <cudnn.h>
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

#define CUBLAS_FUNCTIONS(F)                                                                        \
    F(cublasCreate)                                                                                \
    F(cublasDestroy)                                                                               \
    F(cublasSetStream)                                                                             \
    F(cublasSetWorkspace)                                                                          \
    F(cublasSetMathMode)                                                                           \
    F(cublasSgemm)                                                                                 \
    F(cublasGetStatusString)

#define CUDNN_FUNCTIONS(F)                                                                         \
    F(cudnnGetVersion)                                                                             \
    F(cudnnGetErrorString)                                                                         \
    F(cudnnGetLastErrorString)                                                                     \
    F(cudnnCreate)                                                                                 \
    F(cudnnDestroy)                                                                                \
    F(cudnnSetStream)                                                                              \
    F(cudnnBackendCreateDescriptor)                                                                \
    F(cudnnBackendDestroyDescriptor)                                                               \
    F(cudnnBackendSetAttribute)                                                                    \
    F(cudnnBackendGetAttribute)                                                                    \
    F(cudnnBackendFinalize)                                                                        \
    F(cudnnBackendExecute)

/* The headers define the newer form of many names, so a member is called cuMemAlloc_v2, say; who
 * writes cuMemAlloc gets it. */
#define LIBRARY_MEMBER(name) __typeof__(&name) name;
struct cuda_library {
    CUDA_FUNCTIONS(LIBRARY_MEMBER)
};
struct cublas_library {
    CUBLAS_FUNCTIONS(LIBRARY_MEMBER)
};
struct cudnn_library {
    CUDNN_FUNCTIONS(LIBRARY_MEMBER)
};
#undef LIBRARY_MEMBER

/* What the driver says of an error, with its number. */
void cuda_error_text(const struct cuda_library *cuda, CUresult result, char *text, size_t size);

/* Each loads one library into its table. Errors (STATUS_DEVICE): it is not there, it is not what it
 * should be, or it is too old, and what to do. Libraries stay loaded until the program ends. */
bool load_cuda(struct cuda_library *cuda, struct error *error);
bool load_cublas(struct cublas_library *cublas, struct error *error);
bool load_cudnn(struct cudnn_library *cudnn, struct error *error);
