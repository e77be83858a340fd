#include "device/device.h"

#include <stdio.h>
#include <string.h>

extern const struct device_ops openblas_ops;
extern const struct device_ops cpu_ops;

#ifdef CIFAR_CUDA
extern const struct device_ops cudnn_ops;
static const struct device_ops *const CUDNN = &cudnn_ops;
#else
static const struct device_ops *const CUDNN = NULL;
#endif

/* The one list of backends, best first. One that this program was built without has no ops. */
static const struct {
    const char *name;
    const struct device_ops *ops;
    const char *missing; /* what to do without it */
} BACKENDS[] = {
    {"cuda", NULL, "this version has no kernels of its own for all layers yet; use --device cudnn"},
    {"cudnn", CUDNN,
     "build the program where the CUDA toolkit and cuDNN are installed (cmake -DCIFAR_CUDA=ON)"},
    {"cpu", &cpu_ops, NULL},
    {"openblas", &openblas_ops, NULL},
};
enum { BACKEND_COUNT = sizeof BACKENDS / sizeof *BACKENDS };

/* The best device that opens. A GPU that does not is no error here, but the user learns why; what
 * the user asked for and is wrong is one. */
static bool open_best(struct device **device, const struct device_options *options,
                      struct error *error) {
    struct error reason = {STATUS_DEVICE, ""};
    if (CUDNN == NULL)
        error_set(&reason, STATUS_DEVICE, "this program was built without CUDA");
    for (int i = 0; i < BACKEND_COUNT; i++) {
        if (BACKENDS[i].ops == NULL)
            continue;
        if (BACKENDS[i].ops->open(device, options, error)) {
            snprintf((*device)->passed_over, sizeof(*device)->passed_over, "%.1000s", reason.text);
            return true;
        }
        if (error->status == STATUS_USAGE)
            return false;
        reason = *error;
    }
    return false; /* with the error of the last one */
}

bool device_open(struct device **device, const char *name, const struct device_options *options,
                 struct error *error) {
    struct error reason;
    if (strcmp(name, "auto") == 0)
        return open_best(device, options, error);
    const struct device_ops *ops = device_find(name, error);
    if (ops == NULL || ops->open(device, options, &reason))
        return ops != NULL;
    return error_set(error, reason.status, "--device %s: %s", name, reason.text);
}

const char *device_name(int i) {
    return i < BACKEND_COUNT ? BACKENDS[i].name : NULL;
}

const struct device_ops *device_find(const char *name, struct error *error) {
    char names[256] = "auto";
    for (int i = 0; i < BACKEND_COUNT; i++) {
        if (strcmp(name, BACKENDS[i].name) == 0) {
            if (BACKENDS[i].ops == NULL)
                error_set(error, STATUS_DEVICE, "--device %s: this backend is not built in: %s",
                          name, BACKENDS[i].missing);
            return BACKENDS[i].ops;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, ", %s", BACKENDS[i].name);
    }
    error_set(error, STATUS_DEVICE, "--device %s: there is no such device; choose one of %s", name,
              names);
    return NULL;
}
