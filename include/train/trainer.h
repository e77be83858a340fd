/* The training loop. */
#pragma once

#include "net/safetensors.h"
#include "train/divergence.h"
#include "train/evaluate.h"

struct train_settings {
    struct recipe recipe;
    int64_t log_every;  /* steps */
    int64_t save_every; /* steps; 0: after each epoch only */
    uint64_t seed;
    const char *model; /* where the checkpoint of the chosen epoch goes */
    const char *last;  /* where the training state goes */
    const char *also;  /* options that --resume with it needs, as " --model X"; NULL: none */
    int keep;          /* versions of it, 1 or more: file_keep() */
    bool last_is_from; /* it is the state that the run goes on from: no version to be kept */
    bool stop_if_unsaved;
};

/* The images of a run. Each epoch's network is judged on the validation images, or, where there are
 * none, on the test images. */
struct train_data {
    struct resident train, test;
    struct resident validation; /* images NULL: none */
};

/* What an epoch came to. */
struct train_epoch {
    int epoch;         /* from 1 */
    double train_loss; /* mean over the epoch's images, each at its own step */
    double train_seconds, images_per_second; /* of the steps taken here, not before a resume */
    double lr;                               /* of its last step */
    struct evaluation judged;
    bool chosen; /* so far: will be saved now */
};

/* How far the training of an epoch has come. */
struct train_progress {
    int epoch;
    int64_t images;           /* done of it */
    double images_per_second; /* since it began here */
    double loss;              /* mean over the steps since the last log */
};

/* Who wants to hear of it; each call happens between steps. */
struct train_observer {
    void *context;
    /* Often. */
    void (*progress)(void *context, const struct train_progress *progress);
    /* Every log_every steps of an epoch: the mean of their losses. */
    void (*step)(void *context, int epoch, int64_t step, double loss);
    /* After an epoch's evaluation, before the files are written. */
    void (*epoch)(void *context, const struct train_epoch *epoch);
    /* In the end, where there are validation images: what the chosen network does on the test
     * images, which nothing depends on any more. */
    void (*test)(void *context, const struct evaluation *test);
    /* Before files are written: what was heard so far should be as safe as they will be. */
    void (*saving)(void *context);
    /* A file could not be written; training goes on. */
    void (*warning)(void *context, const char *text);
    /* Whether training is to stop; asked often. */
    bool (*stop)(void *context);
};

/* A run, made ready. */
struct trainer {
    struct train_settings settings;
    struct metadata model_about, last_about; /* for the two files */
    struct learner learner;
    struct evaluator judge; /* of each epoch, */
    struct evaluator test;  /* and of the end, if `validates` */
    bool validates;
    struct evaluation tested;     /* images 0: not yet */
    float *losses;                /* of an epoch's steps */
    int64_t at_once;              /* steps that are queued at once */
    struct train_state room;      /* for the next state: the learner's is whole and finite */
    struct network_state average; /* of an epoch, as it was judged, where one is taken */
    bool model_waits, last_waits; /* to be written: what the file should hold has changed */
    int failed_writes;
    int unsaved;               /* occasions in a row at which the state could not be written */
    struct error failure;      /* the last of them */
    struct error last_failure; /* the last in writing the state */
    double save_seconds;       /* spent in writing files */
};

/* A key that the state's text has only as long as the model has not been written: what is said of
 * the file in its place. */
#define TRAINER_UNTIL_MODEL "given_up"

/* Makes a run ready: a new one, which begins with `init` unless that is NULL, or the one that
 * `from` is a state of, which train_state_fits() and which the trainer takes over. All memory that
 * training needs is taken here, on the device, too, and given back by trainer_free(), with what was
 * made on the device since. The two texts are for the files, to which the trainer adds. The trainer
 * must stay where it is. */
void trainer_init(struct trainer *trainer, struct device *device,
                  const struct train_settings *settings, const struct train_data *data,
                  const struct network_state *init, const struct metadata *model_about,
                  const struct metadata *last_about, struct train_state *from);
void trainer_free(struct trainer *trainer);

/* Trains from where the state is to the last epoch by the recipe; with the tutorial's, each epoch
 * draws its order as torch.randperm would next from the same generator and takes a step of Adam for
 * every batch, the smaller last one too. Then the epoch's network, or its average, is judged. It is
 * chosen if it is the best so far, or whenever the recipe selects the last one. Where there are
 * validation images, the chosen one is tested in the end. The training state is saved at the
 * beginning, every save_every steps and after each epoch; then the network, if it was chosen. A
 * write that fails does not end the training: the observer is warned, the file stays as it was, and
 * the next save tries again; at the third time in a row that this happens to the state, and each
 * third from then on, what that means is said loudly, or, with stop_if_unsaved, the training ends.
 *
 * Errors: STATUS_DIVERGED with the step, and the tensor that went wrong first, when a loss or what
 * would be saved is no longer finite (the last good files stay); STATUS_INTERRUPTED when the
 * observer wanted it to stop, with the state saved, or STATUS_FAILURE if that could not be done;
 * STATUS_FAILURE at the end if a write had failed, or when the state could not be saved for too
 * long; STATUS_DEVICE. */
bool train(struct trainer *trainer, const struct train_observer *observer, struct error *error);
