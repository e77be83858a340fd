/* A network under test, in doubles on the host and on a device: stages, then a head, or one of
 * these alone. It is held against the reference in two ways.
 *
 * Layer by layer: a layer runs alone, and a stage is followed link by link. The reference gets as
 * its input what the device made of the link before, z or dz, so that each link is measured against
 * its own rounding. As a whole: the host's part is trained beside the device's.
 *
 * The parameters of all layers lie in one block, with NaN between them, which must stay. */
#pragma once

#include "images.h"

struct stage_case {
    int in, out, kernel, pad, h, w, n, pool;
    enum { PLAIN, TIES, FAR, DEAD, CONSTANT, FLAT } data;
    float eps, momentum;
};

struct head_case {
    struct shape in;
    int out, n;
};

struct layer {
    char label[120];
    bool is_head;
    struct stage stage; /* one of the two is in use */
    struct head head;
    int n;
    struct shape in, between, out;
    double *x, *dy;       /* to run it alone; */
    struct images images; /* of a head, for their labels: */
    struct view *views;   /* seen so */
};

struct row {
    double *values;
    size_t count;
};

enum { MOST_LAYERS = 3 };

struct model {
    struct device *device;
    struct layer layers[MOST_LAYERS];
    int count;
    int spare;  /* images for which the tensors have room beyond a batch */
    bool holes; /* there is a NaN in x */
    struct row parameters, gradients, statistics;
    double *exp_avg, *exp_avg_sq, *averages;
    int64_t steps;
    struct block *weights, *gradient_block, *running, *average_block;
    struct adam adam; /* these share out the parameters; */
    struct sgd sgd;
    struct muon muon;
    struct average average; /* this one is of all */
};

/* Adds a layer with numbers at random to what is no model yet, or to one that is on no device. */
struct layer *model_stage(struct model *model, const struct stage_case *t);
struct layer *model_head(struct model *model, const struct head_case *t);

/* Puts it on the device, where tensors and gradients hold NaN. */
void model_put(struct model *model, struct device *d);

/* ---- a layer alone ---- */

/* EVALUATED is y in evaluation, the others are of training; of a head DY is the gradient of the
 * loss, and the backward pass begins with the layer's dy. */
enum result { Z, Y, STATISTICS, DZ, DX, GRADIENTS, LOSS, DY, EVALUATED, RESULTS };

struct results {
    struct row of[RESULTS]; /* without values where the layer has no such result */
};

extern const char *const result_names[RESULTS];

/* Runs the only layer, alone. Fails if an input is not as before. `alone` unless NULL: what the
 * gradients of a stage are if nobody needs dx. */
struct results model_run(const struct model *model, struct device *d, struct results *alone);

/* Fails if the device's results are not those of the reference. */
void model_compare(const struct model *model, struct device *d);

/* ---- whole steps ---- */

/* Two stages, the first with a max-pool that leaves pixels over, and a head, which smooths labels.
 * Muon has the first convolution's weight, SGD the second stage, Adam the rest. */
enum { MODEL_CLASSES = 5 };
extern const struct shape MODEL_IMAGE;
struct model model_small(int batch);

/* A step of training, or of evaluation, on the device. The model must outlive it. */
struct step *model_step(const struct model *model, struct pass *pass, bool training, int n);

/* The same on the host. Returns the loss. */
double model_twin_step(struct model *model, double *logits, const struct images *images,
                       const struct view *views, int n, bool training, double schedule);

/* Fails if device and host differ in parameters, gradients, running statistics or the average. */
void model_check(const struct model *model, const char *label);
