/* A pass over a data set in batches: the steps of a training epoch or of an evaluation. */
#pragma once

#include "data/cifar10.h"
#include "net/network.h"

/* Images, and the same on a device: for any number of passes and networks there. */
struct resident {
    const struct cifar10 *images;
    struct dataset *dataset;
};

/* The images must outlive the device, or a mark of before. */
struct resident resident_new(struct device *device, const struct cifar10 *images);

/* Steps of `batch` images, and a smaller one at the end where `batch` does not divide the images.
 * All of it is the device's. */
struct steps {
    struct device *device;
    struct pass *pass;
    struct step *whole, *rest;
    int64_t images, count; /* of a whole pass; its steps */
    int64_t began;         /* the step with which the pass has begun */
    int batch;
};

/* How many steps of up to `batch` images a pass over `images` has. */
int64_t steps_count(int64_t images, int batch);

/* The steps of a pass over all images; in evaluation with NULL. The network, and what the updates
 * of training point to, must outlive them. */
void steps_init(struct steps *steps, struct network *network, const struct resident *data,
                const struct network_training *training, int batch);

/* Images in step number `step`, counted from 0. */
int steps_batch(const struct steps *steps, int64_t step);

/* Begins a pass from step number `first` on: `views` has all images of the pass, in the order in
 * which they are read, `schedule` what learning rates are multiplied by in each of its steps (NULL
 * in evaluation), and so many steps of training were taken before `first`. */
void steps_begin(struct steps *steps, const struct view *views, const double *schedule,
                 int64_t first, int64_t steps_before);

/* Queues the steps [first, first + count), which come next. */
void steps_run(const struct steps *steps, int64_t first, int64_t count);

/* The mean loss of each of the steps [first, first + count), which have been queued, and the logits
 * [CIFAR10_CLASSES] of the first `images` images since the pass has begun. Errors (STATUS_DEVICE):
 * the device failed. */
bool steps_losses(const struct steps *steps, float *losses, int64_t first, int64_t count,
                  struct error *error);
bool steps_logits(const struct steps *steps, float *logits, int64_t images, struct error *error);
