/* A data set under test, and the results of passes over it. */
#pragma once

#include "harness.h"

struct images {
    uint8_t *records;
    int64_t count;
    struct shape shape;
};

/* Labels at random; the pixels count through all bytes. */
struct images images_new(int64_t count, struct shape shape, int classes);

/* The label and the pixels of an image. */
const uint8_t *record_of(const struct images *images, uint32_t index);

/* The pixels of n images as the network is to see them, in the arithmetic of float. */
double *pixels_of(const struct images *images, const uint32_t *order, int n);

/* An order to read them in. */
uint32_t *shuffled(int64_t count);

struct loader *loader_of(struct device *d, const struct images *images);
void rewind_to(struct device *d, struct loader *loader, const uint32_t *order, int64_t length);

double *losses(struct device *d, const struct loader *loader, int64_t first, int64_t count);
void check_predictions(struct device *d, const struct loader *loader, const char *label,
                       const uint8_t *want, int64_t count);
