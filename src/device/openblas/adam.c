#include "openblas.h"

void openblas_adam_step(struct device *device, const struct adam *adam) {
    host_adam_step(host_of(device), adam);
}
