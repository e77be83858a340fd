/* A network that learns: on a device, by a recipe, going through a training set. */
#pragma once

#include "train/optimizer.h"
#include "train/steps.h"
#include "train/train_state.h"

struct learner_settings {
    struct recipe recipe;
    int capacity; /* so many images fit the network, too, for others that use it */
    uint64_t seed;
    const struct network_state *init; /* what a new run begins with; NULL: it is drawn */
};

struct learner {
    struct device *device;
    struct network *network;
    struct recipe recipe;
    struct optimizer optimizer;
    struct steps steps;       /* of an epoch */
    struct pass *calibration; /* where an average is taken: see learner_put_average() */
    struct step *calibrate;
    int calibration_batch;
    struct train_state state; /* on the host, as it was between two steps */
    struct random drawn;      /* the generator after it drew the epoch */
    uint32_t *order;          /* of the epoch's images, and the script that is made of it: */
    uint8_t *begins;          /* [images]: recipe_first_flips() */
    struct view *views;       /* [images], or of a calibration if that has more */
    double *schedule;         /* [steps] */
    void *mark;               /* of the device's memory */
};

/* Begins a new run, or goes on with `from`, which it takes over, unless that is NULL. Takes all
 * memory that training needs, on the device, too; it is given back by learner_free(), and with it
 * what was made on the device since. The learner must stay where it is. */
void learner_init(struct learner *learner, struct device *device, const struct resident *train,
                  const struct learner_settings *settings, struct train_state *from);
void learner_free(struct learner *learner);

/* Puts the state's numbers on the device. */
void learner_put(struct learner *learner);

/* Takes these numbers from the device, after the steps that were queued, into `state`, the rest of
 * which stays as it is. Errors (STATUS_DEVICE): the device failed. */
bool learner_take(const struct learner *learner, struct train_state *state, struct error *error);

/* Whether the network that is judged and saved is not the one that learns, but its average. */
bool learner_averages(const struct learner *learner);

/* Puts the averaged network on the device, where that of an epoch's end is: the averaged
 * parameters, with running statistics that fit them, found anew from images that the epoch began
 * with, up to 5,000, as they are. (Statistics that are averaged themselves do not fit: after six
 * epochs that cost two points of accuracy.) */
void learner_put_average(struct learner *learner, const float *average);

/* Begins the state's epoch after the steps that it has done: draws its order, as torch.randperm
 * does, from the state's generator, then what is random in its views, and writes the script of what
 * is left of it. Then steps_run(). */
void learner_begin(struct learner *learner);
