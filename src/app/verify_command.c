#include "app/classes.h"
#include "app/commands.h"
#include "app/outputs.h"
#include "app/print.h"
#include "app/run_log.h"
#include "app/run_settings.h"
#include "base/digest.h"
#include "base/memory.h"
#include "train/trainer.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A run's three files, and whether they belong together. */
struct verification {
    const struct settings *settings;
    struct train_state state;
    struct metadata about;
    int64_t steps;           /* in an epoch */
    const char *mark;        /* of the run */
    const char *what, *path; /* of the file that is looked at; path "": it has none */
    bool good;
};

/* The line on a file: whether what it says is as it should be. */
static void tell(struct verification *v, bool good, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void tell(struct verification *v, bool good, const char *format, ...) {
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    print_line("%-7s%s%s%s", v->what, v->path, v->path[0] != '\0' ? ": " : "", words);
    v->good = v->good && good;
}

/* 0: there is none, or none that a run could have. */
static int64_t number_of(const struct metadata *about, const char *key) {
    const char *text = metadata_get(about, key);
    const long long number = text != NULL ? strtoll(text, NULL, 10) : 0;
    return number > 0 && number <= INT_MAX ? number : 0;
}

static bool is_averaged(const struct metadata *about) {
    const char *average = metadata_get(about, "recipe.average");
    return average != NULL && strcmp(average, "none") != 0;
}

/* The state itself has been read, which checks nearly all of it. */
static bool check_state(struct verification *v, struct error *error) {
    const struct train_state *state = &v->state;
    const int64_t images = number_of(&v->about, "train_images");
    const int64_t batch = number_of(&v->about, "batch"), epochs = number_of(&v->about, "epochs");
    struct cifar10_names names;
    bool told;
    v->what = "state";
    v->path = v->settings->state;
    v->mark = metadata_get(&v->about, "run");
    if (v->mark == NULL || images == 0 || batch == 0 || epochs == 0)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: its metadata does not tell of its run (run, train_images, batch, "
                         "epochs): the file is damaged or comes from another version of this "
                         "program",
                         v->path);
    v->steps = images / batch + (images % batch > 0);
    if (!train_state_fits(state, epochs, v->steps, is_averaged(&v->about), v->path, error) ||
        !classes_find(&names, &told, &v->about, v->path, error))
        return false;
    if (state->epoch > epochs)
        tell(v, true, "whole; run %s, finished after %lld epochs", v->mark, (long long)epochs);
    else
        tell(v, true, "whole; run %s, in epoch %lld of %lld after step %lld of %lld", v->mark,
             (long long)state->epoch, (long long)epochs, (long long)state->step,
             (long long)v->steps);
    return true;
}

static bool is_given_up(const char *path, const char *expected) {
    char digest[DIGEST_DIGITS + 1];
    return expected != NULL && digest_file(digest, path) && strstr(expected, digest) != NULL;
}

static void check_model(struct verification *v) {
    const long long best = v->state.best.epoch;
    struct network_state network;
    struct error error;
    v->what = "model";
    v->path = v->settings->model != NULL ? v->settings->model : "";
    if (v->path[0] == '\0' || (access(v->path, F_OK) != 0 && errno == ENOENT)) {
        if (best == 0)
            tell(v, true, "there is none yet, before the end of the first epoch");
        else
            tell(v, false, "is missing; a resume writes it: epoch %lld", best);
        return;
    }
    network_state_new(&network);
    const bool whole = checkpoint_load(v->path, &network, NULL, &error);
    network_state_free(&network);
    const struct found found = outputs_look_at(v->path);
    const long long epoch = found.reached.epoch - 1;
    if (!whole) {
        v->path = ""; /* with which the error begins */
        tell(v, false, "%.500s", error.text);
    } else if (found.content != NETWORK)
        tell(v, false, "is no network alone (%s)", found.text);
    else if (is_given_up(v->path, metadata_get(&v->about, TRAINER_UNTIL_MODEL)))
        tell(v, true, "whole; of another run, whose place this one takes");
    else if (strcmp(found.mark, v->mark) != 0)
        tell(v, false, "whole, but of another run (%s)", found.text);
    else if (epoch > best)
        tell(v, false, "whole; epoch %lld, further than the state, which knows %lld", epoch, best);
    else if (epoch < best)
        tell(v, true, "whole; epoch %lld; a resume writes epoch %lld", epoch, best);
    else
        tell(v, true, "whole; epoch %lld, %s accuracy %.2f %%", epoch,
             metadata_get(&v->about, "validation") != NULL ? "validation" : "test",
             v->state.best.accuracy);
}

static void check_log(struct verification *v) {
    const struct train_state *state = &v->state;
    const int64_t every = number_of(&v->about, "log_every");
    struct run_log_summary log;
    v->what = "log";
    v->path = v->settings->log != NULL ? v->settings->log : "";
    if (v->settings->log == NULL) {
        tell(v, true, "the run keeps none");
        return;
    }
    if (!run_log_summarize(v->path, v->steps, every, &log)) {
        tell(v, false, "is missing, or no run's log");
        return;
    }
    const struct run_position next = {state->epoch + 1, 0};
    const struct run_position due = {state->epoch,
                                     every > 0 ? state->step - state->step % every : 0};
    const long long epoch = log.reached.epoch, step = log.reached.step, gap = log.gap.epoch;
    if (strcmp(log.mark, v->mark) != 0)
        tell(v, false, "of another run (%s)", log.mark);
    else if (run_log_is_before(log.reached, due))
        tell(v, false, "records are missing: it ends in epoch %lld after step %lld", epoch, step);
    else if (gap > 0 && log.gap.step > 0)
        tell(v, false, "the record of epoch %lld, step %lld is not where it belongs", gap,
             (long long)log.gap.step);
    else if (gap > 0)
        tell(v, false, "the record of the end of epoch %lld is not where it belongs", gap - 1);
    else if (run_log_is_before(next, log.reached))
        tell(v, false, "whole; further than the state: epoch %lld after step %lld", epoch, step);
    else
        tell(v, true, "%s; %lld record%s, to epoch %lld after step %lld",
             log.torn ? "a torn record at its end, which a resume cuts off" : "whole",
             (long long)log.records, log.records == 1 ? "" : "s", epoch, step);
}

bool command_verify(const struct settings *given, struct error *error) {
    struct settings settings = *given;
    struct verification *v = memory_new(1, sizeof *v);
    v->settings = &settings;
    v->good = true;
    bool good = train_state_load(settings.state, &v->state, &v->about, error) &&
                run_settings_adopt(&settings, &v->about, error) && check_state(v, error);
    if (good) {
        check_model(v);
        check_log(v);
        const bool held = !v->good && lock_is_held(settings.state);
        good = v->good ||
               error_set(error, STATUS_CHECKPOINT,
                         "%s: the files of its run do not belong together, as is said above%s",
                         settings.state,
                         held ? "; but the run is at work, and they change one by one: verify again"
                              : "");
    }
    train_state_free(&v->state);
    free(v);
    return good;
}
