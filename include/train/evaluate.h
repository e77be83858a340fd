/* How good a network is on a data set. */
#pragma once

#include "data/cifar10.h"
#include "train/pass.h"

struct evaluation {
    int64_t images, correct;
    double loss;    /* mean over the images */
    double seconds; /* of the pass, until its results were there */
    int64_t confusion[CIFAR10_CLASSES][CIFAR10_CLASSES]; /* [label][prediction]: images */
};

/* Per cent of the images whose prediction is right. */
double evaluation_accuracy(const struct evaluation *evaluation);

/* What is needed to evaluate a network again and again. */
struct evaluator {
    const struct cifar10 *images;
    struct loader *loader;
    uint32_t *order;    /* 0, 1, 2, ... */
    uint8_t *predicted; /* [images->count]: the classes that the last evaluate() found */
    float *losses;      /* [steps] */
    struct pass pass;
};

/* Puts the images on the network's device, to be read in batches of `batch`. The images must
 * outlive the device, the evaluator must stay where it is. */
void evaluator_init(struct evaluator *evaluator, struct network *network,
                    const struct cifar10 *images, int batch);
void evaluator_free(struct evaluator *evaluator);

/* Runs all images through the network in evaluation mode. Errors: the device failed. */
bool evaluate(struct evaluator *evaluator, struct evaluation *evaluation, struct error *error);

/* The logits of the evaluation's first batch, [pass.whole.n][CIFAR10_CLASSES]; forgets the results
 * of the last evaluate() on the device. Errors: the device failed. */
bool evaluator_first_logits(struct evaluator *evaluator, float *logits, struct error *error);
