/* The picture of a batch: its images in a grid, each in a frame that tells whether its prediction
 * was right. */
#pragma once

#include "base/error.h"

#include <stdint.h>

/* Writes a PNG of `count` images, records of cifar10.h, in rows of eight (more if there are many):
 * a thin green frame round those with right[i], a thick red one round the others, and none where
 * `right` is NULL. Errors as file_replace. */
bool grid_save(const char *path, const uint8_t *records, const bool *right, int count,
               struct error *error);

/* Whether a file is one that grid_save() made, as its last bytes say. */
bool grid_is_file(const char *path);
