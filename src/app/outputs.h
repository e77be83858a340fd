/* The files that the commands write, and the one rule for all of them: who may write what, when,
 * and what proves that a file is one's own.
 *
 *  1. A new name may be written, and an empty file.
 *  2. A file keeps its kind, which is found in what it holds: a network goes over a network, a
 *     training state over a state, a log over a log, an ONNX model over an ONNX model, and a grid
 *     (--grid) over a grid, but over no other picture. Nothing goes over the batches or the names
 * of a data set. No option changes that.
 *  3. A run's own files may be written by the run. What proves it is in them: the run's mark
 *     (`run` in a checkpoint's metadata and in a log's first record), which is made of all that
 *     decides its result. Where a name came from proves nothing.
 *  4. A run does not go back. What is further than the state that it goes on from (a network of a
 *     later epoch, a later state, records behind the end of the state's epoch) stays.
 *  5. --overwrite gives up what 3 and 4 would keep, and what no kind is known of (a damaged file,
 *     say). The state remembers what was given up by its digest (outputs_check()), so that the run
 *     may go on before it has replaced it, but only over those very bytes.
 *  6. A state is a file from somebody: the names in it are followed to its own folder and below, no
 *     further (run_settings_adopt()). Elsewhere is written what the command line names.
 *  7. One writer at a time: a training holds a lock on each of its files from before it reads
 *     the first until it ends (base/lock.h), and touches nothing before it has them. What there
 *     is is looked at then; what somebody puts there meanwhile is taken for the run's own.
 *  8. What is written goes beside first, under a name of this program's, and then takes the
 *     place of the old file as a whole (base/file.h). The log, which grows, is cut only back to
 *     where the run goes on, and only if it is that run's. A data set is drawn as a whole folder
 *     (synth_command.c).
 */
#pragma once

#include "app/run_log.h"
#include "app/settings.h"
#include "base/lock.h"
#include "train/train_state.h"

/* What a file holds, so far as it decides who may write over it. */
enum content { NOTHING, NETWORK, STATE, LOG, PICTURE, ONNX, DATA, OTHER };

struct found {
    enum content content;
    char mark[40];               /* of the run that wrote it; "": none */
    struct run_position reached; /* of a network: after its epoch; of a state, of a log: how far */
    char text[256];              /* in words */
};

struct found outputs_look_at(const char *path);

/* The files of a training: its model, its state, its log and the states that it keeps. */
enum { OUTPUTS_KEPT = 9, OUTPUTS = 3 + OUTPUTS_KEPT };
struct outputs {
    int count;
    struct output {
        const char *option, *path; /* path NULL: it has none */
        enum content content;
        struct lock lock;
    } output[OUTPUTS];
    char kept[OUTPUTS_KEPT][PATH_MAX]; /* paths of the kept states */
};

/* Takes the lock of the training state; of the rest, once the settings are those of the run, whose
 * texts are borrowed. Errors: STATUS_FAILURE: another run has one of them; STATUS_USAGE: two
 * outputs are the same file. Release them in any case. */
bool outputs_lock_state(struct outputs *outputs, const struct settings *settings,
                        struct error *error);
bool outputs_lock_rest(struct outputs *outputs, const struct settings *settings,
                       struct error *error);
void outputs_release(struct outputs *outputs);

/* Writes into the locks' files whose they are. Answers false with a warning if a file could not be
 * locked. */
bool outputs_tell(const struct outputs *outputs, const char *mark, struct error *warning);

/* The digests of files that --overwrite gave up, with spaces between: in the metadata of a run's
 * state the keys TRAINER_UNTIL_MODEL, until the model has been written, and, where states are kept,
 * GIVEN_UP_STATES, as long as the run lasts. */
#define GIVEN_UP_STATES "given_up_states"

/* Finds out before a training what must not be written over, or cannot be written. It is the run
 * with that mark; `from` is the state that it goes on from (NULL: it is new), whose metadata `kept`
 * remembers what was given up; `about` is to remember that, and what is given up now. Errors:
 * STATUS_USAGE says what was found, and what would be lost; STATUS_FAILURE. */
bool outputs_check(const struct outputs *outputs, const struct settings *settings, const char *mark,
                   const struct train_state *from, const struct metadata *kept,
                   struct metadata *about, struct error *error);

/* Whether a grid (PICTURE) or an ONNX model may be written there. Errors as outputs_check. */
bool outputs_check_file(const char *option, const char *path, enum content content,
                        struct error *error);
