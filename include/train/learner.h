/* A network that learns: on a device, with Adam, going through a training set. */
#pragma once

#include "train/steps.h"
#include "train/train_state.h"

struct learner_settings {
    int batch;    /* images in a step of training */
    int capacity; /* so many fit the network, too, for others that use it; `batch` always do */
    double lr, weight_decay;
    uint64_t seed;
};

struct learner {
    struct device *device;
    struct network *network;
    struct adam adam;
    struct steps steps;       /* of an epoch */
    struct train_state state; /* on the host, as it was between two steps */
    struct random drawn;      /* the generator after it drew the epoch's order */
    uint32_t *order;          /* of the epoch's images, and the script that is made of it: */
    struct view *views;       /* [images] */
    double *lr;               /* [steps] */
    double base_lr;           /* of the settings */
    void *mark;               /* of the device's memory */
};

/* Begins a new run, or goes on with `from`, which it takes over, unless that is NULL. Takes all
 * memory that training needs, on the device, too; it is given back by learner_free(), and with it
 * what was made on the device since. The learner must stay where it is. */
void learner_init(struct learner *learner, struct device *device, const struct resident *train,
                  const struct learner_settings *settings, struct train_state *from);
void learner_free(struct learner *learner);

/* Puts the state's network and Adam's moments on the device. */
void learner_put(struct learner *learner);

/* Takes these numbers from the device, after the steps that were queued, into `state`, the rest of
 * which stays as it is. Errors (STATUS_DEVICE): the device failed. */
bool learner_take(const struct learner *learner, struct train_state *state, struct error *error);

/* Begins the state's epoch after the steps that it has done: draws its order, as torch.randperm
 * does, from the state's generator, and writes the script of what is left of it: which image is
 * read when, as it is, and the learning rate of each step, which is the same for all. Then
 * steps_run(). */
void learner_begin(struct learner *learner);
