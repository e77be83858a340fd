#include "device/device.h"

#include <stdio.h>
#include <string.h>

extern const struct device_ops openblas_ops;

/* The one list of backends, best first. One that this program was built without has no ops. */
static const struct {
    const char *name;
    const struct device_ops *ops;
    const char *missing; /* what to do without it */
} BACKENDS[] = {
    {"cuda", NULL, "this version has no GPU backend yet; use --device openblas"},
    {"cudnn", NULL, "this version has no GPU backend yet; use --device openblas"},
    {"cpu", &openblas_ops, NULL}, /* until it has kernels of its own */
    {"openblas", &openblas_ops, NULL},
};
enum { BACKEND_COUNT = sizeof BACKENDS / sizeof *BACKENDS };

bool device_open(struct device **device, const char *name, const struct device_options *options,
                 struct error *error) {
    if (strcmp(name, "auto") != 0) {
        const struct device_ops *ops = device_find(name, error);
        return ops != NULL && ops->open(device, options, error);
    }
    for (int i = 0; i < BACKEND_COUNT; i++)
        if (BACKENDS[i].ops != NULL && BACKENDS[i].ops->open(device, options, error))
            return true;
    return false; /* with the error of the last one */
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
