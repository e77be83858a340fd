#include "app/outputs.h"

#include "base/file.h"
#include "net/checkpoint.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What a file can hold. */
enum content { OTHER, CHECKPOINT, STATE, LOG };

struct output {
    const char *option, *path; /* path NULL: not wanted */
    enum content content;
    const char *own; /* its name in the run that goes on; NULL: none */
};

/* What is in a file that is there already, and a word on it. */
static enum content content_of(const char *path, char *text, size_t size) {
    static const char RECORD[] = "{\"event\":\"";
    struct safetensors file;
    struct error error;
    char begin[sizeof RECORD] = "";
    FILE *stream = fopen(path, "r");
    const size_t got = stream != NULL ? fread(begin, 1, strlen(RECORD), stream) : 0;
    if (stream != NULL)
        fclose(stream);
    snprintf(text, size, got > 0 ? "a run's log" : "empty");
    if (stream != NULL && memcmp(begin, RECORD, got) == 0)
        return LOG; /* also one whose run was killed before it wrote anything */

    snprintf(text, size, "no checkpoint and no log, or a damaged one");
    if (!safetensors_load(&file, path, &error))
        return OTHER;
    const bool is_state = safetensors_find(&file, CHECKPOINT_MORE "epoch") != NULL;
    const char *epoch = metadata_get(&file.metadata, "epoch");
    const char *seed = metadata_get(&file.metadata, "seed");
    const char *accuracy = metadata_get(&file.metadata, "test_accuracy");
    if (epoch == NULL || seed == NULL)
        snprintf(text, size, "another program's checkpoint");
    else if (accuracy == NULL)
        snprintf(text, size, "a run's state: epoch %.40s, seed %.40s", epoch, seed);
    else
        snprintf(text, size, "a run's checkpoint: epoch %.40s, seed %.40s, accuracy %.40s %%",
                 epoch, seed, accuracy);
    safetensors_free(&file);
    return is_state ? STATE : CHECKPOINT;
}

/* Whether nothing is there that the run must not write over. */
static bool check_overwriting(const struct settings *s, const struct output *o,
                              struct error *error) {
    struct stat info;
    char found[256], state[256], go_on[4200] = "";
    if (stat(o->path, &info) != 0 || !S_ISREG(info.st_mode))
        return true;
    const enum content content = content_of(o->path, found, sizeof found);
    const bool own = o->own != NULL && file_same(o->path, o->own);
    if (own && (content == o->content || (content == STATE && o->content == CHECKPOINT)))
        return true;
    if (s->resume != NULL)
        return error_set(error, STATUS_USAGE,
                         "--%s %s: is there already (%s), but is no file of the run in %s; name "
                         "another file",
                         o->option, o->path, found, s->resume);
    if (content_of(s->last, state, sizeof state) == STATE)
        snprintf(go_on, sizeof go_on, "--resume %s goes on with that run, ", s->last);
    return error_set(error, STATUS_USAGE,
                     "--%s %s: is there already (%s); %s--overwrite begins a new one in its "
                     "place, and --model, --last and --log name other files",
                     o->option, o->path, found, go_on);
}

bool outputs_check(const struct settings *s, const struct workplace *w, const struct metadata *kept,
                   struct error *error) {
    enum { OUTPUTS = 3 };
    const bool goes_on = s->resume != NULL;
    const char *model = goes_on ? metadata_get(kept, "model") : NULL;
    const struct output outputs[OUTPUTS] = {
        /* metadata cannot hold every name */
        {"model", s->model, CHECKPOINT, goes_on && model == NULL ? s->model : model},
        {"last", s->last, STATE, s->resume},
        {"log", s->log, LOG, goes_on ? metadata_get(kept, "log") : NULL},
    };
    for (int i = 0; i < OUTPUTS; i++) {
        const struct output *o = &outputs[i];
        for (int j = 0; o->path != NULL && j < i; j++)
            if (file_same(o->path, outputs[j].path))
                return error_set(error, STATUS_USAGE,
                                 "--%s and --%s are the same file, %s; name two", o->option,
                                 outputs[j].option, o->path);
        if (o->path != NULL && !workplace_spares(w, o->option, o->path, error))
            return false;
    }
    if (!file_check_replaceable(s->model, error) || !file_check_replaceable(s->last, error))
        return false;
    for (int i = 0; i < OUTPUTS && !s->overwrite; i++)
        if (outputs[i].path != NULL && !check_overwriting(s, &outputs[i], error))
            return false;
    return true;
}
