/* Where the numbers of a training first went wrong, in words for an error: what many steps leave
 * behind does not tell. */
#pragma once

#include "train/learner.h"

/* " (first to go wrong: ...)", or "" */
struct divergence {
    char text[160];
};

/* "NaN", "infinite" or "negative" */
const char *divergence_word(double value);

/* Takes the steps of the epoch of the state once more, one by one, up to number `steps`, and names
 * the first tensor that holds what no training leaves behind, and its step; "" if none does. `room`
 * is overwritten. Errors (STATUS_DEVICE): the device failed. */
bool divergence_of_numbers(struct divergence *divergence, struct learner *learner, int64_t steps,
                           struct train_state *room, struct error *error);

/* If nothing was found before: names the first layer whose output is not finite in step number
 * `step`, which comes next. Errors (STATUS_DEVICE): the device failed. */
bool divergence_of_layers(struct divergence *divergence, struct network *network,
                          const struct steps *steps, bool training, int64_t step,
                          struct error *error);
