/* Checkpoints: a network's state as a safetensors file with the names and shapes of PyTorch's
 * state_dict, so that either program reads what the other wrote. */
#pragma once

#include "net/network.h"
#include "net/safetensors.h"

/* What the names of all other tensors begin with in a file that holds more than the state_dict, a
 * training state (train/train_state.h). */
#define CHECKPOINT_MORE "run."

/* Writes the state with text about it, all or nothing. Errors as file_replace. */
bool checkpoint_save(const char *path, const struct network_state *state,
                     const struct metadata *metadata, struct error *error);

/* Reads a state, and what the file says about itself. The file must hold exactly this network's
 * tensors, F32 (num_batches_tracked: I64), all finite, no variance below zero, and may hold more
 * under CHECKPOINT_MORE. Errors (STATUS_CHECKPOINT) name tensor, byte, what was found and what was
 * expected; `state` is unchanged then. `metadata` may be NULL. */
bool checkpoint_load(const char *path, struct network_state *state, struct metadata *metadata,
                     struct error *error);

/* ---- for files that hold more ---- */

/* Lists the state's tensors as they stand in a file, with `prefix` before their names; their data
 * is the state's own. */
void checkpoint_list(struct safetensors_tensor list[NETWORK_TENSORS],
                     const struct network_state *state, const char *prefix);

/* The first element of the list's F32 tensors that no training leaves behind: not finite, or a
 * running variance or exp_avg_sq below zero. Answers the tensor's index, or -1. */
int checkpoint_find_wrong(const struct safetensors_tensor *list, int count, size_t *element,
                          double *value);

/* safetensors_take() for each of the list, and all numbers must be possible: F32 as above, an I64 a
 * number of steps. Errors: STATUS_CHECKPOINT; some may have been taken then. */
bool checkpoint_take(const struct safetensors *file, struct safetensors_tensor *list, int count,
                     struct error *error);
