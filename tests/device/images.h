/* A data set under test, passes over it and their results. */
#pragma once

#include "harness.h"

/* Labels at random; the pixels count through all bytes. */
struct images images_new(int64_t count, struct shape shape, int classes);

/* How `count` images are seen, drawn at random: each of the data set before one comes again; with
 * `moved`, also shifted, some of them out of sight, mirrored and reflected. */
struct view *views_new(const struct images *images, int64_t count, bool moved);

/* The labels of n images, and their pixels as the network is to see them, in the arithmetic of
 * float. */
uint8_t *labels_of(const struct images *images, const struct view *views, int n);
double *pixels_of(const struct images *images, const struct view *views, int n);

/* A pass over a data set of its own, with room for so many images and steps. */
struct pass *pass_of(struct device *d, const struct images *images, int64_t count, int64_t steps);

/* Begins with the first `images` of the views. schedule NULL: there are no learning rates. */
void begin_pass(struct device *d, struct pass *pass, const struct view *views, int64_t images,
                const double *schedule, int64_t steps, int64_t steps_before);

double *losses(struct device *d, const struct pass *pass, int64_t first, int64_t count);
double *logits(struct device *d, const struct pass *pass, int64_t count, int classes);
