/* A data set that a command makes, in a folder that is for it alone. */
#pragma once

#include "data/cifar10.h"

struct data_set {
    const char *folder;
    const struct cifar10_names *names;
    struct cifar10 train, test; /* at least 5 images and 1 */
};

/* Whether data_set_save() can be expected to work, and nothing is lost with the folder: it is not
 * there, it is empty, or it holds a data set that cifar-synth drew, and nothing else. Errors:
 * STATUS_FAILURE. */
bool data_set_check(const char *folder, struct error *error);

/* Makes the folder hold the data set, or leaves it as it was, if it is still so. Errors as
 * folder_replace. */
bool data_set_save(struct data_set *set, struct error *error);
