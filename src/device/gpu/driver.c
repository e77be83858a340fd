#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char CUDA_FILE[] = "libcuda.so.1";
static const char *const CUDA_NAMES[] = {CUDA_FUNCTIONS(LIBRARY_NAME) NULL};

enum { CUDA_MAJOR = CUDA_VERSION / 1000 };

bool gpu_find_functions(void *table, void *library, const char *file, const char *const *names,
                        const char *beside, struct error *error) {
    _Static_assert(sizeof(void *) == sizeof(void (*)(void)), "as POSIX has it for dlsym");
    for (int i = 0; names[i] != NULL; i++) {
        void *function = dlsym(library, names[i]);
        if (function == NULL)
            return error_set(error, STATUS_DEVICE,
                             "%s has no function %s, so it is not what its name says, or too old; "
                             "this program was built with CUDA %d.%d%s: install those versions, or "
                             "a newer driver",
                             file, names[i], CUDA_MAJOR, CUDA_VERSION % 1000 / 10, beside);
        memcpy((char *)table + (size_t)i * sizeof function, &function, sizeof function);
    }
    return true;
}

void cuda_error_text(const struct cuda_library *cuda, CUresult result, char *text, size_t size) {
    const char *name = NULL, *meaning = NULL;
    cuda->cuGetErrorName(result, &name);
    cuda->cuGetErrorString(result, &meaning);
    snprintf(text, size, "%s, number %d: %s", name == NULL ? "an error" : name, (int)result,
             meaning == NULL ? "unknown to this driver" : meaning);
}

bool gpu_load_cuda(struct cuda_library *cuda, const char *beside, struct error *error) {
    int version = 0, devices = 0;
    char text[512];
    void *library = dlopen(CUDA_FILE, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(error, STATUS_DEVICE,
                         "there is no NVIDIA driver here (%s); install it if there is an NVIDIA "
                         "GPU here",
                         dlerror());
    if (!gpu_find_functions(cuda, library, CUDA_FILE, CUDA_NAMES, beside, error))
        return false;
    CUresult result = cuda->cuInit(0);
    if (result == CUDA_SUCCESS)
        result = cuda->cuDeviceGetCount(&devices);
    if (result == CUDA_SUCCESS && devices == 0)
        result = CUDA_ERROR_NO_DEVICE;
    if (result == CUDA_ERROR_NO_DEVICE)
        return error_set(error, STATUS_DEVICE,
                         "the NVIDIA driver finds no GPU; check nvidia-smi and "
                         "CUDA_VISIBLE_DEVICES");
    cuda_error_text(cuda, result, text, sizeof text);
    if (result != CUDA_SUCCESS)
        return error_set(error, STATUS_DEVICE,
                         "the NVIDIA driver cannot be used: %s; check that nvidia-smi works and "
                         "that the driver's own libcuda.so.1 is the one that is found",
                         text);
    if (cuda->cuDriverGetVersion(&version) != CUDA_SUCCESS || version < CUDA_MAJOR * 1000)
        return error_set(error, STATUS_DEVICE,
                         "the NVIDIA driver is too old: it knows CUDA %d.%d, and this program was "
                         "built with CUDA %d; install a newer driver",
                         version / 1000, version % 1000 / 10, CUDA_MAJOR);
    return true;
}
