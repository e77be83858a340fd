/* NVIDIA's cuBLAS and cuDNN, loaded as the driver is (gpu/driver.h). */
#pragma once

#include "../gpu/driver.h"

#include <cublas_v2.h>
#include <cudnn.h>

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

struct cublas_library {
    CUBLAS_FUNCTIONS(LIBRARY_MEMBER)
};
struct cudnn_library {
    CUDNN_FUNCTIONS(LIBRARY_MEMBER)
};

#define VERSION_TEXT(number) LIBRARY_TEXT(number)
#define BESIDE_CUDA          " and cuDNN " VERSION_TEXT(CUDNN_MAJOR) "." VERSION_TEXT(CUDNN_MINOR)

/* Each loads one library into its table. Errors (STATUS_DEVICE): as gpu_load_cuda(). */
bool load_cublas(struct cublas_library *cublas, struct error *error);
bool load_cudnn(struct cudnn_library *cudnn, struct error *error);
