#include "device/device.h"

#include <stdio.h>
#include <string.h>

extern const struct device_ops openblas_ops;

/* The one list of backends, best first: "auto" takes the first that is built in. A backend that
 * this program was built without has no ops. */
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

const struct device_ops *device_find(const char *name, struct error *error) {
    for (int i = 0; i < BACKEND_COUNT; i++) {
        bool automatic = strcmp(name, "auto") == 0;
        if (!automatic && strcmp(name, BACKENDS[i].name) != 0)
            continue;
        if (BACKENDS[i].ops != NULL)
            return BACKENDS[i].ops;
        if (!automatic) {
            error_set(error, STATUS_DEVICE, "--device %s: this backend is not built in: %s", name,
                      BACKENDS[i].missing);
            return NULL;
        }
    }
    error_set(error, STATUS_DEVICE, "--device %s: there is no such device; choose one of auto",
              name);
    for (int i = 0; i < BACKEND_COUNT; i++) {
        size_t used = strlen(error->text);
        snprintf(error->text + used, sizeof error->text - used, ", %s", BACKENDS[i].name);
    }
    return NULL;
}

void device_list(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < BACKEND_COUNT && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, "%s%s%s", i == 0 ? "" : ", ",
                             BACKENDS[i].name, BACKENDS[i].ops == NULL ? " (not built in)" : "");
}
