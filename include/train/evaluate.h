/* How good a network is on a data set. */
#pragma once

#include "train/steps.h"

struct evaluation {
    int64_t images, correct;
    double loss;    /* mean over the images */
    double seconds; /* of the pass, until its results were there */
    int64_t confusion[CIFAR10_CLASSES][CIFAR10_CLASSES]; /* [label][prediction]: images */
};

/* Per cent of the images whose prediction is right. */
double evaluation_accuracy(const struct evaluation *evaluation);

/* What is needed to evaluate a network again and again, and what the last evaluate() found. Outputs
 * of the network for which the images have no class are no prediction. */
struct evaluator {
    const struct cifar10 *images;
    struct steps steps;
    struct view *views; /* all images, in their order, as they are */
    float *losses;      /* [steps] */
    float *logits;      /* [images->count][CIFAR10_CLASSES] */
    uint8_t *predicted; /* [images->count]: the class of the largest logit, the first of equals */
};

/* Makes steps of `batch` images on the network's device. */
void evaluator_init(struct evaluator *evaluator, struct network *network,
                    const struct resident *data, int batch);
/* Frees the host's part; the device's memory goes with the network's. */
void evaluator_free(struct evaluator *evaluator);

/* Runs all images through the network in evaluation mode. Errors: the device failed. */
bool evaluate(struct evaluator *evaluator, struct evaluation *evaluation, struct error *error);
