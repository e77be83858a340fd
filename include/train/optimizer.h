/* What a recipe does with the gradients of a step: its optimisers and the average of the
 * parameters, on a device. */
#pragma once

#include "net/network.h"
#include "train/recipe.h"

struct optimizer {
    struct network_training training; /* for network_step(); points to the rest */
    struct adam adam;
    struct sgd sgd;
    struct muon muon;
    struct average ema;
    /* [plan.parameters]: Adam's two moments; the first is also the momentum of SGD and Muon */
    struct block *exp_avg, *exp_avg_sq;
    struct block *average; /* [plan.parameters]; NULL: none is taken */
};

/* Its blocks are the device's. The optimizer must stay where it is. */
void optimizer_init(struct optimizer *optimizer, const struct network *network,
                    const struct recipe *recipe);
