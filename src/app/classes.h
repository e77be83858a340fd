/* The names of the classes in a checkpoint: a JSON array of them under the key "classes" of its
 * metadata, so that a model can be used without its data set. */
#pragma once

#include "base/error.h"
#include "base/metadata.h"
#include "data/cifar10.h"

extern const char classes_key[];

void classes_record(struct metadata *about, const struct cifar10_names *names);

/* Reads them from the metadata of the file `path`. One that has none (an older one, PyTorch's) is
 * taken to mean CIFAR-10's names, and `told` becomes false: who uses them says so. Errors:
 * STATUS_CHECKPOINT: what stands there is no such array. */
bool classes_find(struct cifar10_names *names, bool *told, const struct metadata *about,
                  const char *path, struct error *error);
