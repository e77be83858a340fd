#include "train/train_state.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define refuse safetensors_refuse

/* The generator is saved as it lies in memory. */
enum { RANDOM_WORDS = 625 };
_Static_assert(sizeof(struct random) == RANDOM_WORDS * sizeof(uint32_t), "no padding");

static const int64_t MOST_EPOCHS = INT64_C(1) << 31;

#define MORE CHECKPOINT_MORE

void train_state_new(struct train_state *state) {
    *state = (struct train_state){0};
    network_state_new(&state->network);
    network_state_new(&state->best.network);
    state->exp_avg = memory_new(network_plan()->parameters, sizeof *state->exp_avg);
    state->exp_avg_sq = memory_new(network_plan()->parameters, sizeof *state->exp_avg_sq);
    state->average = memory_new(network_plan()->parameters, sizeof *state->average);
}

void train_state_begin(struct train_state *state, uint64_t seed, const struct network_state *init) {
    random_seed(&state->random, seed);
    network_init(&state->network, &state->random);
    if (init != NULL)
        network_state_copy(&state->network, init);
    state->network.batches = 0; /* of this run */
    memcpy(state->average, state->network.parameters,
           network_plan()->parameters * sizeof *state->average);
    state->epoch = 1;
}

void train_state_free(struct train_state *state) {
    network_state_free(&state->network);
    network_state_free(&state->best.network);
    free(state->exp_avg);
    free(state->exp_avg_sq);
    free(state->average);
    *state = (struct train_state){0};
}

/* ---- the file ---- */

/* The tensors of a state. Saving and loading follow the same list; their data is the state's. */
struct list {
    struct safetensors_tensor tensor[5 * NETWORK_TENSORS + 16];
    int count;
};

static void add(struct list *list, const char *name, const char *dtype, int count,
                const void *data) {
    struct safetensors_tensor *to = &list->tensor[list->count++];
    *to = (struct safetensors_tensor){.rank = count > 1,
                                      .shape = {count},
                                      .size = (size_t)count * safetensors_size(dtype),
                                      .data = (void *)(uintptr_t)data};
    snprintf(to->name, sizeof to->name, MORE "%s", name);
    snprintf(to->dtype, sizeof to->dtype, "%s", dtype);
}

/* A block of floats, as one tensor for each parameter. */
static void add_parameters(struct list *list, const char *name, float *block) {
    struct safetensors_tensor parameters[NETWORK_TENSORS];
    const struct network_state in_block = {.parameters = block, .statistics = block};
    checkpoint_list(parameters, &in_block, name);
    for (int i = 0; i < NETWORK_TENSORS; i++)
        if (network_plan()->tensors[i].kind == PARAMETER)
            list->tensor[list->count++] = parameters[i];
}

static void add_network(struct list *list, const struct network_state *network,
                        const char *prefix) {
    checkpoint_list(list->tensor + list->count, network, prefix);
    list->count += NETWORK_TENSORS;
}

/* What the training goes on from. */
static void list_training(struct list *list, const struct train_state *s) {
    list->count = 0;
    add_network(list, &s->network, "");
    add_parameters(list, MORE "exp_avg.", s->exp_avg);
    add_parameters(list, MORE "exp_avg_sq.", s->exp_avg_sq);
    if (s->averaged)
        add_parameters(list, MORE "average.", s->average);
}

static void list_numbers(struct list *list, const struct train_state *s) {
    add(list, "adam.step", "I64", 1, &s->steps);
    add(list, "random", "U32", RANDOM_WORDS, &s->random);
    add(list, "epoch", "I64", 1, &s->epoch);
    add(list, "step", "I64", 1, &s->step);
    add(list, "loss.total", "F64", 1, &s->total);
    add(list, "loss.running", "F64", 1, &s->running);
    add(list, "best.epoch", "I64", 1, &s->best.epoch);
}

static void list_best(struct list *list, const struct train_state *s) {
    add(list, "best.accuracy", "F64", 1, &s->best.accuracy);
    add(list, "best.loss", "F64", 1, &s->best.loss);
    add_network(list, &s->best.network, MORE "best.");
}

bool train_state_save(const char *path, const struct train_state *state,
                      const struct metadata *metadata, struct error *error) {
    struct list list;
    list_training(&list, state);
    list_numbers(&list, state);
    if (state->best.epoch > 0)
        list_best(&list, state);
    return safetensors_save(path, list.tensor, list.count, metadata, error);
}

bool train_state_is_wrong(const struct train_state *state, char name[SAFETENSORS_NAME],
                          double *value) {
    struct list list;
    size_t element;
    list_training(&list, state);
    const int wrong = checkpoint_find_wrong(list.tensor, list.count, &element, value);
    if (wrong < 0)
        return false;
    const char *found = list.tensor[wrong].name;
    const bool more = strncmp(found, MORE, strlen(MORE)) == 0;
    snprintf(name, SAFETENSORS_NAME, "%s", found + (more ? strlen(MORE) : 0));
    return true;
}

/* MT19937 has one state that it never leaves: all zeros, where the first word counts by its highest
 * bit only. */
static bool is_stuck(const struct random *random) {
    uint32_t bits = random->state[0] & 0x80000000U;
    for (int i = 1; i < RANDOM_WORDS - 1; i++)
        bits |= random->state[i];
    return bits == 0;
}

/* The network has one number of batches, its file one for each batch normalisation. */
static bool check_counters(const struct safetensors *file, const char *prefix, int64_t batches,
                           struct error *error) {
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        char name[SAFETENSORS_NAME];
        int64_t found;
        if (network_plan()->tensors[i].kind != COUNTER)
            continue;
        snprintf(name, sizeof name, "%s%s", prefix, network_plan()->tensors[i].name);
        memcpy(&found, safetensors_find(file, name)->data, sizeof found);
        if (found != batches)
            return refuse(file, error,
                          "tensor %s: is %lld, but %lld in another layer: the file is damaged",
                          name, (long long)found, (long long)batches);
    }
    return true;
}

/* The numbers that no training leaves behind, each with what is expected in its place. */
static bool check_numbers(const struct safetensors *file, const struct train_state *s,
                          struct error *error) {
    static const char FINITE[] = "a finite number from 0";
    const struct train_best *best = &s->best;
    const bool has_best = best->epoch > 0, begins = s->step == 0;
    const struct {
        bool good;
        const char *name;
        double value;
        const char *expected;
    } CHECKS[] = {
        {s->epoch >= 1 && s->epoch <= MOST_EPOCHS, "epoch", (double)s->epoch, "an epoch from 1"},
        {s->random.next >= 0 && s->random.next < RANDOM_WORDS, "random", s->random.next,
         "an index up to 624 as its last element"},
        {!is_stuck(&s->random), "random", 0, "a generator that is not all zeros"},
        {s->total >= 0 && isfinite(s->total), "loss.total", s->total, FINITE},
        {s->running >= 0 && isfinite(s->running), "loss.running", s->running, FINITE},
        {!begins || (s->total == 0 && s->running == 0), "loss.total", s->total + s->running,
         "0 in an epoch without steps so far"},
        {best->epoch >= 0 && best->epoch < s->epoch, "best.epoch", (double)best->epoch,
         "an epoch that is over"},
        {!has_best || (best->accuracy >= 0 && best->accuracy <= 100), "best.accuracy",
         best->accuracy, "a number from 0 to 100"},
        {!has_best || (best->loss >= 0 && isfinite(best->loss)), "best.loss", best->loss, FINITE},
    };
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++)
        if (!CHECKS[i].good)
            return refuse(file, error,
                          "tensor " MORE "%s: is %.17g; %s is expected: the file is damaged",
                          CHECKS[i].name, CHECKS[i].value, CHECKS[i].expected);
    return true;
}

bool train_state_load(const char *path, struct train_state *state, struct metadata *metadata,
                      struct error *error) {
    struct safetensors file;
    struct list list;
    if (!safetensors_load(&file, path, error))
        return false;
    train_state_new(state);
    bool good = safetensors_find(&file, MORE "epoch") != NULL ||
                refuse(&file, error,
                       "holds no training state to go on from, but a network alone at most; "
                       "--resume takes the file that --last named (last.ckpt)");
    state->averaged = safetensors_find(&file, MORE "average.conv1.weight") != NULL;
    list_training(&list, state);
    list_numbers(&list, state);
    good = good && checkpoint_take(&file, list.tensor, list.count, error) &&
           check_counters(&file, "", state->network.batches, error) &&
           check_numbers(&file, state, error);
    if (good && state->best.epoch > 0) {
        const int before = list.count;
        list_best(&list, state);
        good = checkpoint_take(&file, list.tensor + before, list.count - before, error) &&
               check_counters(&file, MORE "best.", state->best.network.batches, error) &&
               check_numbers(&file, state, error);
    }
    if (good && list.count != file.count)
        good = refuse(&file, error,
                      "holds %d tensors, but a training state has %d: the file is damaged or comes "
                      "from another version of this program",
                      file.count, list.count);
    if (good)
        *metadata = file.metadata;
    else
        train_state_free(state);
    safetensors_free(&file);
    return good;
}

bool train_state_fits(const struct train_state *s, int64_t epochs, int64_t steps, bool averaged,
                      const char *path, struct error *error) {
    const double done = (double)(s->epoch - 1) * (double)steps + (double)s->step;
    const double best = (double)s->best.epoch * (double)steps;
    if (s->epoch > epochs && (s->epoch > epochs + 1 || s->step > 0))
        return error_set(
            error, STATUS_CHECKPOINT,
            "%s: is in epoch %lld after step %lld of a run of %lld epochs: the file is damaged",
            path, (long long)s->epoch, (long long)s->step, (long long)epochs);
    if (s->averaged != averaged)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: holds %s average of the network, but its run takes %s: the file is "
                         "damaged",
                         path, s->averaged ? "an" : "no", averaged ? "one" : "none");
    if (s->best.epoch > 0 && (double)s->best.network.batches != best)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: its best network is of epoch %lld and of %lld steps, which do not "
                         "belong together where an epoch has %lld steps: the file is damaged",
                         path, (long long)s->best.epoch, (long long)s->best.network.batches,
                         (long long)steps);
    if (s->step < steps && (double)s->steps == done && (double)s->network.batches == done)
        return true;
    return error_set(error, STATUS_CHECKPOINT,
                     "%s: is in epoch %lld after step %lld, and %lld steps, %lld of batch "
                     "normalisation, which do not belong together where an epoch has %lld steps: "
                     "the file is damaged",
                     path, (long long)s->epoch, (long long)s->step, (long long)s->steps,
                     (long long)s->network.batches, (long long)steps);
}
