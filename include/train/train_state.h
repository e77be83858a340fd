/* All that a training run is between two steps, so that it can go on from there, bit for bit.
 *
 * Its file, `last.ckpt`, is a checkpoint (net/checkpoint.h) with the network as it is, and more
 * under names that begin with "run.":
 *
 *     exp_avg.P, exp_avg_sq.P   F32         Adam's moments of each parameter P; the first is the
 *                                           momentum_buffer of SGD and Muon as well
 *     average.P                 F32         the average of each parameter, where one is taken
 *     adam.step                 I64         steps of training so far
 *     random                    U32 [625]   the generator: MT19937's state and the index in it
 *     epoch, step               I64         how far it is
 *     loss.total, loss.running  F64         of the epoch so far
 *     best.epoch                I64         the chosen epoch so far; 0: none, and no best.* then
 *     best.accuracy, best.loss  F64         on the images that it was judged on
 *     best.T                                the state_dict as it was after that epoch
 */
#pragma once

#include "net/checkpoint.h"

struct train_best {
    int64_t epoch;         /* from 1; 0: none yet, and the rest means nothing */
    double accuracy, loss; /* per cent and mean, on the images that it was judged on */
    struct network_state network;
};

struct train_state {
    struct network_state network;
    float *exp_avg, *exp_avg_sq; /* [plan.parameters], owned */
    bool averaged;               /* `average` has a meaning */
    float *average;              /* [plan.parameters], owned */
    int64_t steps;               /* that were taken so far */
    struct random random;        /* before it draws `epoch`, which it does again */
    int64_t epoch, step; /* in `epoch` (from 1) so many steps are done; in the end: epochs + 1, 0 */
    double total;        /* sum of the epoch's losses so far, over images */
    double running;      /* sum of the losses since the last report, over steps */
    struct train_best best;
};

void train_state_new(struct train_state *state);  /* zeroed */
void train_state_free(struct train_state *state); /* leaves it empty, as it may be already */

/* Makes it a run before its first step: the generator seeded and the weights drawn as
 * torch.manual_seed(seed); Network() does, and then replaced by those of `init`, unless that is
 * NULL. */
void train_state_begin(struct train_state *state, uint64_t seed, const struct network_state *init);

/* Whether the network, its average or the moments hold what no training leaves behind, and where:
 * checkpoint_find_wrong(). `name` is the tensor's. */
bool train_state_is_wrong(const struct train_state *state, char name[SAFETENSORS_NAME],
                          double *value);

/* Errors as file_replace. */
bool train_state_save(const char *path, const struct train_state *state,
                      const struct metadata *metadata, struct error *error);

/* Reads a state into a new one. All of it is checked, except what only the run's settings tell:
 * train_state_fits(). Errors: STATUS_CHECKPOINT; nothing is left to free then. */
bool train_state_load(const char *path, struct train_state *state, struct metadata *metadata,
                      struct error *error);

/* Whether a loaded state can be of a run of so many epochs with so many steps in each, which takes
 * an average of its network or not. Errors: STATUS_CHECKPOINT. */
bool train_state_fits(const struct train_state *state, int64_t epochs, int64_t steps, bool averaged,
                      const char *path, struct error *error);
