/* The built-in stand-in for CIFAR-10: images of ten kinds of object, drawn by the program itself,
 * for machines without a network and for tests. */
#pragma once

#include "data/cifar10.h"

/* The names of the ten kinds, by label. A data set with these names is a synthetic one. */
extern const struct cifar10_names synth_names;

/* Whether a data set with these names was drawn by this program. */
bool synth_is_synthetic(const struct cifar10_names *names);

/* Draws `count` images of one part into newly allocated records. Every ten images in a row, from
 * the first on, are the ten kinds in random order, so that labels are balanced. Image i of a part
 * depends on (seed, part, i) alone, label included: a smaller set is the beginning of a larger one.
 * Its bytes are the same on every machine: the drawing uses only integers and IEEE operations that
 * are exactly rounded. Free with cifar10_free(). */
void synth_draw(struct cifar10 *images, enum cifar10_part part, int64_t count, uint64_t seed);
