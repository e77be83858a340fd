#include "libraries.h"

#include <dlfcn.h>

static const char *const CUBLAS_NAMES[] = {CUBLAS_FUNCTIONS(LIBRARY_NAME) NULL};
static const char *const CUDNN_NAMES[] = {CUDNN_FUNCTIONS(LIBRARY_NAME) NULL};

enum { OLDEST_CUDNN = 90800 };

static const char WHERE[] = "install it, or name its folder in LD_LIBRARY_PATH";

static bool load(void *table, const char *name, const char *file, const char *const *names,
                 struct error *error) {
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(error, STATUS_DEVICE, "%s cannot be loaded (%s); %s", name, dlerror(),
                         WHERE);
    return gpu_find_functions(table, library, file, names, BESIDE_CUDA, error);
}

bool load_cublas(struct cublas_library *cublas, struct error *error) {
    return load(cublas, "cuBLAS", "libcublas.so." VERSION_TEXT(CUBLAS_VER_MAJOR), CUBLAS_NAMES,
                error);
}

bool load_cudnn(struct cudnn_library *cudnn, struct error *error) {
    if (!load(cudnn, "cuDNN", "libcudnn.so." VERSION_TEXT(CUDNN_MAJOR), CUDNN_NAMES, error))
        return false;
    const size_t version = cudnn->cudnnGetVersion();
    if (version < OLDEST_CUDNN || version / 10000 != CUDNN_MAJOR)
        return error_set(error, STATUS_DEVICE,
                         "cuDNN is version %zu.%zu.%zu; this program needs %d.%d or later; %s",
                         version / 10000, version % 10000 / 100, version % 100, CUDNN_MAJOR,
                         OLDEST_CUDNN % 10000 / 100, WHERE);
    return true;
}
