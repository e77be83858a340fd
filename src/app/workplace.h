/* What every command that computes needs: the data set and the device. */
#pragma once

#include "app/model.h"
#include "device/device.h"
#include "train/evaluate.h"

struct workplace {
    struct metadata about; /* what the state says whose run is judged, if one was named */
    char folder[4096];     /* of the batches */
    struct cifar10_names names;
    bool synthetic; /* drawn by cifar-synth, as names or labels tell */
    struct cifar10 train, test;
    struct cifar10 validation; /* held out of `train`; no records: none */
    int threads;
    struct device *device;
};

/* The threads that settings ask for, or as many as there are cores for this process. */
int workplace_threads(const struct settings *settings);

/* Opens the device that settings name. Errors: STATUS_DEVICE. */
bool workplace_open_device(struct device **device, const struct settings *settings,
                           struct error *error);

/* Opens the device, finds and loads the data (the training part, as far as settings->limit, only if
 * `training`). Who does not train but names a state gets the names of its run's model and data,
 * borrowed from the workplace.
 * Errors: STATUS_DEVICE, STATUS_DATA, STATUS_CHECKPOINT; nothing is left to close then. */
bool workplace_open(struct workplace *workplace, struct settings *settings, bool training,
                    struct error *error);
void workplace_close(struct workplace *workplace);

/* What computes, and with how many threads, for people. */
void workplace_describe_device(const struct workplace *workplace, char *text, size_t size);

/* What the data is, for people: "CIFAR-10", or that it is none. */
const char *workplace_data_kind(const struct workplace *workplace);

/* A checkpoint put on the device and judged on the test images. */
struct judgement {
    struct model model; /* without its state, which is on the device */
    struct network *network;
    struct evaluator evaluator; /* holds the predictions */
    struct evaluation evaluation;
};

/* Judges settings->model and has `report` tell of it. Warns where the model does not name its
 * classes, or the data calls them otherwise. Errors: STATUS_CHECKPOINT, STATUS_DEVICE, report's. */
typedef bool judgement_report(struct judgement *judgement, const struct workplace *workplace,
                              const struct settings *settings, struct error *error);
bool workplace_judge(const struct settings *settings, judgement_report *report,
                     struct error *error);

/* Prints what was judged: model, data, device. */
void judgement_print(const struct judgement *judgement, const struct workplace *workplace,
                     const struct settings *settings);
