/* Checkpoints: a network's state as a safetensors file with the names and shapes of PyTorch's
 * state_dict, so that either program reads what the other wrote. */
#pragma once

#include "net/network.h"
#include "net/safetensors.h"

/* Writes the state with text about it, all or nothing. Errors as file_replace. */
bool checkpoint_save(const char *path, const struct network_state *state,
                     const struct metadata *metadata, struct error *error);

/* Reads a state, and what the file says about itself. The file must hold exactly this network's
 * tensors, F32 (num_batches_tracked: I64), all finite, no variance below zero. Errors
 * (STATUS_CHECKPOINT) name tensor, byte, what was found and what was expected; `state` is
 * unchanged then. `metadata` may be NULL. */
bool checkpoint_load(const char *path, struct network_state *state, struct metadata *metadata,
                     struct error *error);
