/* The training loop. */
#pragma once

#include "data/cifar10.h"
#include "net/safetensors.h"
#include "train/evaluate.h"

struct train_settings {
    int epochs, batch;
    int64_t log_every; /* steps */
    double lr, weight_decay;
    uint64_t seed;
    const char *model; /* where the best checkpoint goes */
};

/* What an epoch came to. */
struct train_epoch {
    int epoch;         /* from 1 */
    double train_loss; /* mean over the epoch's images, each at its own step */
    double train_seconds, images_per_second;
    struct evaluation test;
    bool best; /* so far; the checkpoint has been saved */
};

/* How far the training of an epoch has come. */
struct train_progress {
    int epoch;
    int64_t images; /* done of it */
    double seconds; /* since it began */
    double loss;    /* mean over the steps since the last log */
};

/* Who wants to hear of it; each call happens between steps. */
struct train_observer {
    void *context;
    /* Often. */
    void (*progress)(void *context, const struct train_progress *progress);
    /* Every log_every steps of an epoch: the mean of their losses. */
    bool (*step)(void *context, int epoch, int64_t step, double loss, struct error *error);
    /* After an epoch's evaluation. */
    bool (*epoch)(void *context, const struct train_epoch *epoch, struct error *error);
};

/* A run, made ready. */
struct trainer {
    struct train_settings settings;
    struct metadata about; /* for the checkpoint */
    struct device *device;
    struct network *network;
    struct network_state state;
    struct random random;
    struct adam adam;
    struct loader *loader;
    struct pass pass;
    struct evaluator evaluator;
    uint32_t *order;
    float *losses;
    int64_t run;    /* steps that are queued at once */
    int best_epoch; /* 0: none yet */
    double best_accuracy;
};

/* Draws the weights as torch.manual_seed(seed); Network() does, and puts them and both data sets on
 * the device; all memory that training needs is taken here. `about` is text for the checkpoint,
 * to which the trainer adds. The data must outlive the device, the trainer must stay where it is.
 */
void trainer_init(struct trainer *trainer, struct device *device,
                  const struct train_settings *settings, const struct cifar10 *train,
                  const struct cifar10 *test, const struct metadata *about);
void trainer_free(struct trainer *trainer);

/* Trains all epochs: each draws its order as torch.randperm would next from the same generator,
 * takes a step of Adam for every batch, the smaller last one too, then judges the network on the
 * test set and saves it if it is the best so far. Errors: STATUS_DIVERGED with the step when a loss
 * or what would be saved is no longer finite (the last good checkpoint stays), a checkpoint that
 * could not be written, a device that failed, or what an observer reports. */
bool train(struct trainer *trainer, const struct train_observer *observer, struct error *error);
