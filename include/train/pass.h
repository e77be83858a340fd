/* A pass over a data set in batches: the steps of a training epoch or of an evaluation. */
#pragma once

#include "net/network.h"

/* One kind of step: its network, its data, its batch size. */
struct step {
    struct network *network;
    struct loader *loader;
    const struct adam *adam; /* NULL in evaluation */
    int n;
};

/* Steps of `batch` images, and the smaller one at the end where `batch` does not divide the images.
 * It holds pointers into itself, so it must stay where it was initialised. */
struct pass {
    int64_t images, steps;
    struct step whole, rest;
    struct program run_whole, run_rest;
};

/* A pass over `images` images of the loader; in training with Adam's settings, which must outlive
 * it, in evaluation with NULL. */
void pass_init(struct pass *pass, struct network *network, struct loader *loader,
               const struct adam *adam, int64_t images, int batch);

/* Images in the pass's step number `step`, counted from 0. */
int pass_batch(const struct pass *pass, int64_t step);

/* Queues the steps [first, first + count). */
void pass_run(struct pass *pass, int64_t first, int64_t count);
