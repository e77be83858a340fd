/* The built-in stand-in for CIFAR-10: images of ten kinds of object, drawn by the program itself,
 * for machines without a network and for tests. */
#pragma once

#include "data/cifar10.h"

/* The names of the ten kinds, by label. */
extern const struct cifar10_names synth_names;

/* Whether these are the names of the ten kinds: a data set with them says that it is synthetic. */
bool synth_has_names(const struct cifar10_names *names);

/* Whether the labels of a part, or of its beginning, are such as synth_draw() gives, so that
 * synthetic images are known also where the names were lost: no label twice in any ten, and not
 * each ten in the same order, as in a set that was made to go round. In CIFAR-10 one ten in 2,800
 * is like that. Less than two tens tell nothing: people, too, take one image of each class. */
bool synth_has_labels(const struct cifar10 *images);

/* Draws `count` images of one part into newly allocated records. Every ten images in a row, from
 * the first on, are the ten kinds in random order, so that labels are balanced. Image i of a part
 * depends on (seed, part, i) alone, label included: a smaller set is the beginning of a larger one.
 * Its bytes are the same on every machine: the drawing uses only integers and IEEE operations that
 * are exactly rounded. Free with cifar10_free(). */
void synth_draw(struct cifar10 *images, enum cifar10_part part, int64_t count, uint64_t seed);
