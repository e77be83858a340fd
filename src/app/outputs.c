#include "app/outputs.h"

#include "app/grid.h"
#include "base/digest.h"
#include "base/file.h"
#include "data/cifar10.h"
#include "net/checkpoint.h"
#include "net/onnx.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- what a file holds ---- */

/* A number of a state's, which may be no whole number in somebody's file. */
static int64_t number_of(const struct safetensors *file, const char *name, int64_t otherwise) {
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    if (tensor != NULL && tensor->size == sizeof otherwise)
        memcpy(&otherwise, tensor->data, sizeof otherwise);
    return otherwise;
}

/* The next epoch, whatever a file may say. */
static int64_t after(int64_t epoch) {
    return epoch < INT64_MAX ? epoch + 1 : epoch;
}

static void look_at_checkpoint(struct found *found, const struct safetensors *file) {
    const struct metadata *about = &file->metadata;
    const char *epoch = metadata_get(about, "epoch"), *seed = metadata_get(about, "seed");
    const char *accuracy = metadata_get(about, "test_accuracy"), *mark = metadata_get(about, "run");
    if (accuracy == NULL) /* which is not known before the end of a run that validates */
        accuracy = metadata_get(about, "validation_accuracy");
    const bool is_state = safetensors_find(file, CHECKPOINT_MORE "epoch") != NULL;
    found->content = is_state ? STATE : NETWORK;
    if (is_state)
        found->reached = (struct run_position){number_of(file, CHECKPOINT_MORE "epoch", INT64_MAX),
                                               number_of(file, CHECKPOINT_MORE "step", 0)};
    else if (epoch != NULL)
        found->reached.epoch = after(strtoll(epoch, NULL, 10));
    snprintf(found->mark, sizeof found->mark, "%s", mark != NULL ? mark : "");
    if (epoch == NULL || seed == NULL)
        snprintf(found->text, sizeof found->text, "another program's checkpoint");
    else if (accuracy == NULL)
        snprintf(found->text, sizeof found->text, "a run's state: epoch %.40s, seed %.40s", epoch,
                 seed);
    else
        snprintf(found->text, sizeof found->text,
                 "a run's checkpoint: epoch %.40s, seed %.40s, accuracy %.40s %%", epoch, seed,
                 accuracy);
}

static bool begins_with(const char *path, const char *bytes, size_t size) {
    uint8_t begin[8];
    struct file file;
    struct error error;
    if (!file_open(&file, path, STATUS_FAILURE, &error))
        return false;
    const bool is = file.size >= size && file_read(&file, begin, size, &error) &&
                    memcmp(begin, bytes, size) == 0;
    file_close(&file);
    return is;
}

struct found outputs_look_at(const char *path) {
    struct found found = {.content = OTHER, .text = "no checkpoint and no log, or a damaged one"};
    struct stat info;
    struct safetensors file;
    struct run_log_summary log;
    struct error error;
    if (cifar10_is_file(path)) {
        found.content = DATA;
    } else if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
        found.content = NOTHING;
    } else if (safetensors_load(&file, path, &error)) {
        look_at_checkpoint(&found, &file);
        safetensors_free(&file);
    } else if (begins_with(path, "{", 1) && run_log_summarize(path, 0, 0, &log)) {
        found.content = LOG;
        found.reached = log.reached;
        snprintf(found.mark, sizeof found.mark, "%s", log.mark);
        snprintf(found.text, sizeof found.text, "a run's log");
    } else if (begins_with(path, "\x89PNG\r\n\x1a\n", 8)) {
        found.content = PICTURE;
        snprintf(found.text, sizeof found.text, "a picture");
    } else if (onnx_is_file(path)) {
        found.content = ONNX;
        snprintf(found.text, sizeof found.text, "an ONNX model");
    }
    return found;
}

/* ---- the files of a training, and their locks ---- */

enum { MODEL, LAST, LOG_FILE, FIRST_KEPT };

/* options.c has the most that --keep takes: 10 */
_Static_assert(OUTPUTS_KEPT == 10 - 1, "room for all");

static const struct lock NO_LOCK = {.descriptor = -1};

bool outputs_lock_state(struct outputs *outputs, const struct settings *s, struct error *error) {
    *outputs = (struct outputs){.count = FIRST_KEPT,
                                .output = {[MODEL] = {"model", NULL, NETWORK, NO_LOCK},
                                           [LAST] = {"last", s->last, STATE, NO_LOCK},
                                           [LOG_FILE] = {"log", NULL, LOG, NO_LOCK}}};
    return lock_take(&outputs->output[LAST].lock, s->last, error);
}

static bool check_names(const struct outputs *outputs, struct error *error) {
    for (int i = 0; i < outputs->count; i++) {
        const struct output *a = &outputs->output[i];
        if (a->path != NULL && lock_has_name(a->path))
            return error_set(error, STATUS_USAGE,
                             "--%s %s: names with this ending are those of locks, which go when a "
                             "run ends; name another file",
                             a->option, a->path);
        for (const struct output *b = outputs->output; b < a; b++)
            if (a->path != NULL && b->path != NULL && file_same(a->path, b->path))
                return error_set(error, STATUS_USAGE,
                                 "--%s and --%s are the same file, %s; name two", a->option,
                                 b->option, a->path);
    }
    return true;
}

bool outputs_lock_rest(struct outputs *outputs, const struct settings *s, struct error *error) {
    outputs->output[MODEL].path = s->model;
    if (s->log != NULL && !run_log_is_stream(s->log)) /* else it has no file of its own */
        outputs->output[LOG_FILE].path = s->log;
    for (int i = 0; i < s->keep - 1; i++) {
        if (!file_kept_path(outputs->kept[i], s->last, i + 1, error))
            return false;
        outputs->output[outputs->count++] =
            (struct output){"last", outputs->kept[i], STATE, NO_LOCK};
    }
    bool good = check_names(outputs, error);
    for (int i = 0; good && i < outputs->count; i++) {
        struct output *o = &outputs->output[i];
        good = i == LAST || o->path == NULL || lock_take(&o->lock, o->path, error);
    }
    return good;
}

void outputs_release(struct outputs *outputs) {
    for (int i = 0; i < outputs->count; i++)
        lock_release(&outputs->output[i].lock);
}

bool outputs_tell(const struct outputs *outputs, const char *mark, struct error *warning) {
    bool locked = true;
    for (int i = 0; i < outputs->count; i++) {
        const struct output *o = &outputs->output[i];
        lock_tell(&o->lock, mark);
        if (o->lock.problem[0] != '\0' && (locked || i == LAST)) /* the state's is told first */
            locked = error_set(warning, STATUS_FAILURE,
                               "%s: cannot be locked here (%s): nothing but care keeps a second "
                               "run from writing to it at the same time",
                               o->path, o->lock.problem);
    }
    return locked;
}

/* ---- writing over what is there ---- */

/* What a run may write over, and what would be lost. */
struct check {
    const struct settings *settings;
    const char *mark;
    const struct train_state *from;
    struct metadata *about;
    char further[2048]; /* than `from`; "": nothing */
};

/* How what a run wrote compares with where the run goes on from. */
static bool is_further(const struct found *found, const struct train_state *from) {
    const struct run_position at = found->reached;
    switch (found->content) {
    case NETWORK:
        return at.epoch > after(from->best.epoch);
    case STATE:
        return run_log_is_before((struct run_position){from->epoch, from->step}, at);
    case LOG: /* it may be up to an epoch ahead: the records come before the state is saved */
        return run_log_is_before((struct run_position){from->epoch + 1, 0}, at);
    default:
        return false;
    }
}

static void add_further(struct check *c, const struct output *o, const struct found *found) {
    const size_t used = strlen(c->further);
    char *end = c->further + used; /* a path may be too long for a list */
    const char *comma = used > 0 ? ", " : "";
    if (found->content == NETWORK)
        snprintf(end, sizeof c->further - used, "%s%.300s holds epoch %lld", comma, o->path,
                 (long long)found->reached.epoch - 1);
    else
        snprintf(end, sizeof c->further - used, "%s%.300s %s epoch %lld, step %lld", comma, o->path,
                 found->content == LOG ? "has records up to" : "is in",
                 (long long)found->reached.epoch, (long long)found->reached.step);
}

/* Where the state remembers what is given up in the place of an output. */
static const char *key_of(const struct output *o) {
    return o->content == NETWORK ? TRAINER_UNTIL_MODEL : GIVEN_UP_STATES;
}

static bool refuse(const struct settings *s, const struct output *o, const struct found *found,
                   struct error *error) {
    char go_on[4200] = "";
    if (s->state != NULL)
        return error_set(error, STATUS_USAGE,
                         "--%s %s: is there already (%s), but is no file of the run in %s; name "
                         "another file, or let it be replaced with --overwrite",
                         o->option, o->path, found->text, s->state);
    const struct found last = outputs_look_at(s->last);
    if (last.content == STATE && strcmp(last.mark, found->mark) == 0)
        snprintf(go_on, sizeof go_on, "--resume %s goes on with that run, ", s->last);
    return error_set(error, STATUS_USAGE,
                     "--%s %s: is there already (%s); %s--overwrite begins a new one in its place, "
                     "and --model, --last and --log name other files",
                     o->option, o->path, found->text, go_on);
}

/* No option lets a file change its kind. */
static bool check_kind(const struct output *o, const struct found *found, struct error *error) {
    if (found->content == DATA)
        return error_set(error, STATUS_USAGE,
                         "--%s %s: is a file of a data set, or has the name of one, and will not "
                         "be overwritten; name another file",
                         o->option, o->path);
    if (found->content == NOTHING || found->content == OTHER || found->content == o->content)
        return true;
    return error_set(error, STATUS_USAGE,
                     "--%s %s: is something else already (%s) and will not be overwritten; name "
                     "another file, or remove it",
                     o->option, o->path, found->text);
}

/* Whether what is there may be written over, perhaps since it is given up now. */
static bool check_overwriting(struct check *c, const struct output *o, const struct found *found,
                              struct error *error) {
    char digest[DIGEST_DIGITS + 1];
    const bool own =
        c->from != NULL && found->content == o->content && strcmp(found->mark, c->mark) == 0;
    const bool behind = own && is_further(found, c->from);
    if (found->content == NOTHING || (own && !behind))
        return true;
    if (!digest_file(digest, o->path))
        return error_set(error, STATUS_FAILURE, "%s: is there already, and cannot be read",
                         o->path);
    const char *digests = metadata_get(c->about, key_of(o));
    const bool is_log = o->content == LOG; /* which is begun anew at once */
    if (!is_log && digests != NULL && strstr(digests, digest) != NULL)
        return true;
    if (c->settings->overwrite && !is_log) {
        char more[METADATA_VALUE];
        snprintf(more, sizeof more, "%s%s%s", digests != NULL ? digests : "",
                 digests != NULL ? " " : "", digest);
        metadata_set(c->about, key_of(o), "%s", more);
    }
    if (c->settings->overwrite)
        return true;
    if (!behind)
        return refuse(c->settings, o, found, error);
    add_further(c, o, found);
    return true;
}

bool outputs_check(const struct outputs *outputs, const struct settings *s, const char *mark,
                   const struct train_state *from, const struct metadata *kept,
                   struct metadata *about, struct error *error) {
    static const char *const KEYS[] = {TRAINER_UNTIL_MODEL, GIVEN_UP_STATES};
    const struct output *first = outputs->output, *end = first + outputs->count, *o;
    struct check check = {s, mark, from, about, ""};
    struct found found[OUTPUTS];
    for (int i = 0; i < 2; i++)
        if (metadata_get(kept, KEYS[i]) != NULL)
            metadata_set(about, KEYS[i], "%s", metadata_get(kept, KEYS[i]));
    for (o = first; o < end; o++) {
        struct found *here = &found[o - first];
        *here = o->path != NULL ? outputs_look_at(o->path) : (struct found){.content = NOTHING};
        if (o->path != NULL && !check_kind(o, here, error))
            return false;
    }
    for (o = first; o < end; o++)
        if (o->content != LOG && !file_check_replaceable(o->path, error))
            return false;
    for (o = first; o < end; o++)
        if (!check_overwriting(&check, o, &found[o - first], error))
            return false;
    if (check.further[0] != '\0')
        return error_set(error, STATUS_USAGE,
                         "%s: is in epoch %lld after step %lld, but its run has been further: %s; "
                         "that would be lost, until it comes again: --overwrite goes back all the "
                         "same, and --model, --last and --log name other files",
                         s->state, (long long)from->epoch, (long long)from->step, check.further);
    for (o = first; o < end; o++)
        if (o->content != LOG)
            file_clean(o->path);
    if (s->keep == 1)
        metadata_remove(about, GIVEN_UP_STATES);
    return true;
}

bool outputs_check_file(const char *option, const char *path, enum content content,
                        struct error *error) {
    const struct output output = {.option = option, .path = path, .content = content};
    const struct found found = outputs_look_at(path);
    if (!check_kind(&output, &found, error))
        return false;
    const bool strange =
        found.content == PICTURE && !grid_is_file(path); /* somebody's photograph */
    if (found.content == OTHER || strange)
        return error_set(error, STATUS_USAGE,
                         "--%s %s: is there already and is no %s, so it will not be overwritten; "
                         "name another file, or remove it",
                         option, path,
                         content == ONNX ? "ONNX model"
                                         : "grid that this version of the program drew");
    if (!file_check_replaceable(path, error))
        return false;
    file_clean(path);
    return true;
}
