/* A checkpoint as the commands take it that use what was learned. */
#pragma once

#include "app/settings.h"
#include "base/metadata.h"
#include "data/cifar10.h"
#include "net/network.h"

struct model {
    struct network_state state;
    struct metadata about;        /* what the file says of itself */
    struct cifar10_names classes; /* as it calls them: what its predictions are */
    bool classes_told;            /* else they are CIFAR-10's */
};

/* Reads settings->model, and warns where it does not name its classes. Errors: STATUS_CHECKPOINT.
 * network_state_free() its state. */
bool model_load(struct model *model, const struct settings *settings, struct error *error);
