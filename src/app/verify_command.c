#include "app/classes.h"
#include "app/commands.h"
#include "app/outputs.h"
#include "app/print.h"
#include "app/run_log.h"
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
    const struct train_state *state;
    const struct metadata *about;
    int64_t steps; /* in an epoch */
    bool good;
};

/* One of the three lines: whether what it says is as it should be. */
static void tell(struct verification *v, bool good, const char *what, const char *path,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
static void tell(struct verification *v, bool good, const char *what, const char *path,
                 const char *format, ...) {
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    print_line("%-7s%s%s%s", what, path, path[0] != '\0' ? ": " : "", words);
    v->good = v->good && good;
}

/* 0: there is none, or none that a run could have. */
static int64_t number_of(const struct metadata *about, const char *key) {
    const char *text = metadata_get(about, key);
    const long long number = text != NULL ? strtoll(text, NULL, 10) : 0;
    return number > 0 && number <= INT_MAX ? number : 0;
}

/* The state itself has been read, which checks nearly all of it. */
static bool check_state(struct verification *v, struct error *error) {
    const struct train_state *state = v->state;
    const char *run = metadata_get(v->about, "run"), *path = v->settings->state;
    const int64_t images = number_of(v->about, "train_images"),
                  batch = number_of(v->about, "batch");
    const int64_t epochs = number_of(v->about, "epochs");
    struct cifar10_names names;
    bool told;
    if (run == NULL || images == 0 || batch == 0 || epochs == 0)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: its metadata does not tell of its run (run, train_images, batch, "
                         "epochs): the file is damaged or comes from another version of this "
                         "program",
                         path);
    const int64_t steps = v->steps = images / batch + (images % batch > 0);
    if (!train_state_fits(state, epochs, steps, path, error) ||
        !classes_find(&names, &told, v->about, path, error))
        return false;
    if (state->epoch > epochs)
        tell(v, true, "state", path, "whole; run %s, finished after %lld epochs", run,
             (long long)epochs);
    else
        tell(v, true, "state", path, "whole; run %s, in epoch %lld of %lld after step %lld of %lld",
             run, (long long)state->epoch, (long long)epochs, (long long)state->step,
             (long long)steps);
    return true;
}

static bool is_given_up(const char *path, const char *expected) {
    char digest[DIGEST_DIGITS + 1];
    return expected != NULL && digest_file(digest, path) && strstr(expected, digest) != NULL;
}

static void check_model(struct verification *v) {
    const char *path = v->settings->model != NULL ? v->settings->model : "";
    const int64_t best = v->state->best.epoch;
    struct network_state network;
    struct error error;
    if (path[0] == '\0' || (access(path, F_OK) != 0 && errno == ENOENT)) {
        if (best == 0)
            tell(v, true, "model", path, "there is none yet, before the end of the first epoch");
        else
            tell(v, false, "model", path, "is missing; a resume writes it: epoch %lld",
                 (long long)best);
        return;
    }
    network_state_new(&network);
    const bool whole = checkpoint_load(path, &network, NULL, &error);
    network_state_free(&network);
    const struct found found = outputs_look_at(path);
    const int64_t epoch = found.reached.epoch - 1;
    if (!whole)
        tell(v, false, "model", "", "%.500s", error.text); /* which begins with the path */
    else if (found.content != NETWORK)
        tell(v, false, "model", path, "is no network alone (%s)", found.text);
    else if (is_given_up(path, metadata_get(v->about, TRAINER_UNTIL_MODEL)))
        tell(v, true, "model", path, "whole; of another run, whose place this one takes");
    else if (strcmp(found.mark, metadata_get(v->about, "run")) != 0)
        tell(v, false, "model", path, "whole, but of another run (%s)", found.text);
    else if (epoch > best)
        tell(v, false, "model", path, "whole; epoch %lld, further than the state, which knows %lld",
             (long long)epoch, (long long)best);
    else if (epoch < best)
        tell(v, true, "model", path, "whole; epoch %lld; a resume writes epoch %lld",
             (long long)epoch, (long long)best);
    else
        tell(v, true, "model", path, "whole; epoch %lld, test accuracy %.2f %%", (long long)epoch,
             v->state->best.accuracy);
}

static void check_log(struct verification *v) {
    const char *path = v->settings->log;
    const struct train_state *state = v->state;
    struct run_log_summary log;
    if (path == NULL) {
        tell(v, true, "log", "", "the run keeps none");
        return;
    }
    const int64_t every = number_of(v->about, "log_every");
    if (!run_log_summarize(path, v->steps, every, &log)) {
        tell(v, false, "log", path, "is missing, or no run's log");
        return;
    }
    const struct run_position at = log.reached, next = {state->epoch + 1, 0};
    const struct run_position due = {state->epoch,
                                     every > 0 ? state->step - state->step % every : 0};
    if (strcmp(log.mark, metadata_get(v->about, "run")) != 0)
        tell(v, false, "log", path, "of another run (%s)", log.mark);
    else if (run_log_is_before(at, due))
        tell(v, false, "log", path, "records are missing: it ends in epoch %lld after step %lld",
             (long long)at.epoch, (long long)at.step);
    else if (log.gap.epoch > 0 && log.gap.step > 0)
        tell(v, false, "log", path, "the record of epoch %lld, step %lld is not where it belongs",
             (long long)log.gap.epoch, (long long)log.gap.step);
    else if (log.gap.epoch > 0)
        tell(v, false, "log", path, "the record of the end of epoch %lld is not where it belongs",
             (long long)log.gap.epoch - 1);
    else if (run_log_is_before(next, at))
        tell(v, false, "log", path, "whole; further than the state: epoch %lld after step %lld",
             (long long)at.epoch, (long long)at.step);
    else
        tell(v, true, "log", path, "%s; %lld record%s, to epoch %lld after step %lld",
             log.torn ? "a torn record at its end, which a resume cuts off" : "whole",
             (long long)log.records, log.records == 1 ? "" : "s", (long long)at.epoch,
             (long long)at.step);
}

bool command_verify(const struct settings *given, struct error *error) {
    struct settings settings = *given;
    struct metadata *about = memory_new(1, sizeof *about);
    struct train_state state;
    struct verification v = {&settings, &state, about, 0, true};
    bool good = train_state_load(settings.state, &state, about, error);
    if (good) {
        good = settings_adopt(&settings, about, error) && check_state(&v, error);
        if (good) {
            check_model(&v);
            check_log(&v);
            good =
                v.good ||
                error_set(error, STATUS_CHECKPOINT,
                          "%s: the files of its run do not belong together, as is said above%s",
                          settings.state,
                          lock_is_held(settings.state)
                              ? "; but the run is at work, and they change one by one: verify again"
                              : "");
        }
        train_state_free(&state);
    }
    free(about);
    return good;
}
