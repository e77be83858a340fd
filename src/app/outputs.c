#include "app/outputs.h"

#include "app/run_log.h"
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
};

/* What is in a file that is there already. */
struct found {
    enum content content;
    char run[40]; /* the mark of the run that wrote it; "": none */
    char text[256];
};

static void look_at_checkpoint(struct found *found, const struct safetensors *file) {
    const struct metadata *about = &file->metadata;
    const char *epoch = metadata_get(about, "epoch"), *seed = metadata_get(about, "seed");
    const char *accuracy = metadata_get(about, "test_accuracy"), *run = metadata_get(about, "run");
    const bool is_state = safetensors_find(file, CHECKPOINT_MORE "epoch") != NULL;
    found->content = is_state ? STATE : CHECKPOINT;
    snprintf(found->run, sizeof found->run, "%s", run != NULL ? run : "");
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

static struct found look_at(const char *path) {
    struct found found = {OTHER, "", "no checkpoint and no log, or a damaged one"};
    struct run_log_summary log;
    struct safetensors file;
    struct error error;
    if (safetensors_load(&file, path, &error)) {
        look_at_checkpoint(&found, &file);
        safetensors_free(&file);
    } else if (run_log_summarize(path, &log)) {
        found = (struct found){LOG, "", "a run's log"};
        memcpy(found.run, log.run, sizeof log.run);
    }
    return found;
}

/* Whether nothing is there that the run must not write over. */
static bool check_overwriting(const struct settings *s, const struct output *o, const char *run,
                              bool given_up, struct error *error) {
    struct stat info;
    char go_on[4200] = "";
    if (stat(o->path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0 ||
        (o->content == LOG && run_log_is_stream(o->path)))
        return true;
    const struct found found = look_at(o->path);
    if (s->resume != NULL) {
        if (found.content == o->content && (given_up || strcmp(found.run, run) == 0))
            return true;
        return error_set(error, STATUS_USAGE,
                         "--%s %s: is there already (%s), but is no file of the run in %s; remove "
                         "it or name another file",
                         o->option, o->path, found.text, s->resume);
    }
    if (look_at(s->last).content == STATE)
        snprintf(go_on, sizeof go_on, "--resume %s goes on with that run, ", s->last);
    return error_set(error, STATUS_USAGE,
                     "--%s %s: is there already (%s); %s--overwrite begins a new one in its "
                     "place, and --model, --last and --log name other files",
                     o->option, o->path, found.text, go_on);
}

bool outputs_check(const struct settings *s, const struct workplace *w, const char *run,
                   bool has_no_model, struct error *error) {
    enum { OUTPUTS = 3 };
    const struct output outputs[OUTPUTS] = {
        {"model", s->model, CHECKPOINT}, {"last", s->last, STATE}, {"log", s->log, LOG}};
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
        if (outputs[i].path != NULL &&
            !check_overwriting(s, &outputs[i], run, has_no_model && i == 0, error))
            return false;
    return true;
}
