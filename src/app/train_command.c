#include "app/classes.h"
#include "app/commands.h"
#include "app/interrupt.h"
#include "app/json_output.h"
#include "app/live_line.h"
#include "app/outputs.h"
#include "app/print_line.h"
#include "app/run_log.h"
#include "app/workplace.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Who listens to a run, and what for. */
struct listener {
    const struct settings *settings;
    struct run_log *log;
    struct live_line line;
    int64_t images;  /* in an epoch */
    const char *run; /* its mark */
};

static void warn(struct listener *l, const char *text) {
    live_line_clear(&l->line);
    print_warning(l->settings->program, "%s", text);
}

/* A log that cannot be written does not end the training: what is missing waits in memory. */
static void log_record(struct listener *l, json_t *record) {
    struct error error;
    const bool waited = l->log->waiting_size > 0;
    if (!run_log_write(l->log, record, &error) && !waited)
        warn(l, error.text);
}

static void on_progress(void *context, const struct train_progress *p) {
    struct listener *l = context;
    const int epochs = (int)l->settings->epochs;
    live_line_draw(&l->line, p->epoch, epochs, (p->epoch - 1) * l->images + p->images,
                   epochs * l->images, p->loss, p->images_per_second);
}

static void on_step(void *context, int epoch, int64_t step, double loss) {
    struct listener *l = context;
    live_line_clear(&l->line);
    if (!l->settings->quiet)
        printf("[%d, %5lld] loss: %.3f\n", epoch, (long long)step, loss);
    log_record(l, json_pack("{s:s, s:i, s:I, s:f}", "event", "step", "epoch", epoch, "step",
                            (json_int_t)step, "loss", loss));
}

static void on_epoch(void *context, const struct train_epoch *e) {
    struct listener *l = context;
    const double accuracy = evaluation_accuracy(&e->test);
    live_line_clear(&l->line);
    if (!l->settings->quiet)
        print_line("Epoch %d: test accuracy %.2f %%, test loss %.4f, train loss %.4f, %.1f s, %.0f "
                   "images/s%s%s",
                   e->epoch, accuracy, e->test.loss, e->train_loss, e->train_seconds,
                   e->images_per_second, e->best ? "; best so far: " : "",
                   e->best ? l->settings->model : "");
    log_record(l, json_pack("{s:s, s:i, s:f, s:f, s:o, s:o, s:o, s:o, s:b}", "event", "epoch",
                            "epoch", e->epoch, "train_loss", e->train_loss, "test_loss",
                            e->test.loss, "test_accuracy", json_rounded(accuracy, 6),
                            "train_seconds", json_rounded(e->train_seconds, 3), "images_per_second",
                            json_rounded(e->images_per_second, 1), "test_seconds",
                            json_rounded(e->test.seconds, 6), "best", e->best));
}

static void on_warning(void *context, const char *text) {
    struct listener *l = context;
    warn(l, text);
    log_record(l, json_pack("{s:s, s:o}", "event", "warning", "text", json_text(text)));
}

static void on_saving(void *context) {
    struct listener *l = context;
    run_log_sync(l->log);
}

static bool on_stop(void *context) {
    (void)context;
    return interrupt_signal() != 0;
}

static void print_settings(const struct settings *s, const struct workplace *w, const char *device,
                           const struct trainer *trainer) {
    const double images = (double)(w->train.count + w->test.count) * CIFAR10_RECORD / 1e6;
    const double memory = (double)w->device->ops->memory(w->device) / 1e6;
    printf("cifar-train %s\n", CIFAR_VERSION);
    printf("  device    %s: %s\n", w->device->ops->name, device);
    if (w->device->passed_over[0] != '\0')
        printf("  GPU       not used: %s\n", w->device->passed_over);
    print_line("  data      %s: %lld training and %lld test images (%s)", w->folder,
               (long long)w->train.count, (long long)w->test.count, workplace_data_kind(w));
    printf("  network   %d layers, %zu parameters\n", NETWORK_LAYERS, network_plan()->parameters);
    printf("  training  epochs %lld, steps in each %lld, batch %d, Adam lr %g, weight decay %g, "
           "seed %lld\n",
           (long long)s->epochs, (long long)trainer->pass.steps, trainer->pass.whole.n, s->lr,
           s->weight_decay, (long long)s->seed);
    printf("  memory    %.1f MB images, %.1f MB on the device\n", images, memory);
    print_line("  model     %s", s->model);
    char every[64] = "";
    if (s->save_every > 0)
        snprintf(every, sizeof every, " and every %lld steps", (long long)s->save_every);
    print_line("  state     %s, after each epoch%s", s->last, every);
    if (s->log != NULL)
        print_line("  log       %s, every %lld steps", s->log, (long long)s->log_every);
}

static json_t *start_record(const struct settings *s, const struct workplace *w, const char *device,
                            const char *run, const struct trainer *trainer) {
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:I, s:I, s:I, s:i, s:f, s:f, s:I, s:I, s:I, "
        "s:I, s:o, s:o, s:o, s:I, s:s}",
        "event", "start", "version", CIFAR_VERSION, "device", w->device->ops->name,
        "device_description", device, "precision", w->device->tf32 ? "tf32" : "float32", "data",
        json_text(w->folder), "synthetic", w->synthetic, "train_images", (json_int_t)w->train.count,
        "test_images", (json_int_t)w->test.count, "epochs", (json_int_t)s->epochs, "batch",
        trainer->pass.whole.n, "lr", s->lr, "weight_decay", s->weight_decay, "seed",
        (json_int_t)s->seed, "threads", (json_int_t)w->threads, "log_every",
        (json_int_t)s->log_every, "save_every", (json_int_t)s->save_every, "limit",
        s->limit > 0 ? json_integer(s->limit) : json_null(), "model", json_text(s->model), "last",
        json_text(s->last), "parameters", (json_int_t)network_plan()->parameters, "run", run);
}

static json_t *resume_record(const struct settings *s, const struct workplace *w,
                             const char *device, const char *run, const struct train_state *state) {
    return json_pack("{s:s, s:o, s:I, s:I, s:s, s:s, s:I, s:I, s:s}", "event", "resume", "from",
                     json_text(s->state), "epoch", (json_int_t)state->epoch, "step",
                     (json_int_t)state->step, "version", CIFAR_VERSION, "device_description",
                     device, "threads", (json_int_t)w->threads, "epochs", (json_int_t)s->epochs,
                     "run", run);
}

static json_t *end_record(const struct trainer *trainer, double seconds, bool good,
                          const struct error *error) {
    const struct train_best *best = &trainer->state.best;
    return json_pack("{s:s, s:b, s:I, s:o, s:o, s:o, s:o*}", "event", "end", "finished", good,
                     "best_epoch", (json_int_t)best->epoch, "best_accuracy",
                     json_rounded(best->epoch > 0 ? best->accuracy : (double)NAN, 6), "seconds",
                     json_rounded(seconds, 3), "save_seconds",
                     json_rounded(trainer->save_seconds, 6), "error",
                     good ? NULL : json_text(error->text));
}

static void print_resume(const struct settings *s, const struct trainer *trainer) {
    const struct train_state *state = &trainer->state;
    if (state->epoch > s->epochs)
        print_line("%s: this run is finished; a larger --epochs than %lld goes on with it",
                   s->state, (long long)s->epochs);
    else
        print_line("Going on with %s: epoch %lld of %lld, after step %lld of %lld", s->state,
                   (long long)state->epoch, (long long)s->epochs, (long long)state->step,
                   (long long)trainer->pass.steps);
    if (state->best.epoch > 0)
        print_line("Best test accuracy so far %.2f %% (epoch %lld), in %s", state->best.accuracy,
                   (long long)state->best.epoch, s->model);
}

/* What results depend on in their last bits: the device without its number of threads. */
static void arithmetic_of(const struct device *device, char *text, size_t size) {
    device->ops->describe(device, text, size);
    char *last = strrchr(text, ',');
    if (last != NULL && strstr(last, " thread") != NULL)
        *last = '\0';
}

/* Warns of what keeps a run that goes on from being as if it had never stopped. */
static void check_continuity(struct listener *l, const struct workplace *w,
                             const struct metadata *kept) {
    struct error warning;
    char now[512];
    const char *before = metadata_get(kept, "arithmetic"), *log = metadata_get(kept, "log");
    /* a log of another name than the state's may begin here */
    const bool known =
        log != NULL && l->settings->log != NULL && strcmp(log, l->settings->log) == 0;
    if ((known || l->log->reached.epoch > 0) &&
        !run_log_is_whole(l->log, l->settings->log_every, &warning))
        on_warning(l, warning.text);
    arithmetic_of(w->device, now, sizeof now);
    if (before != NULL && strcmp(before, now) != 0) {
        error_set(&warning, STATUS_DEVICE,
                  "the run in %s was computed by: %s; it goes on with: %s; results may differ in "
                  "their last bits from those of a run that never changed",
                  l->settings->state, before, now);
        on_warning(l, warning.text);
    }
}

static bool run(struct trainer *trainer, struct listener *listener, const struct workplace *w,
                const struct metadata *kept, struct error *error) {
    const struct settings *s = listener->settings;
    const struct train_best *best = &trainer->state.best;
    const bool resumes = s->state != NULL, over = trainer->state.epoch > s->epochs;
    char device[512];
    w->device->ops->describe(w->device, device, sizeof device);
    if (!s->quiet)
        print_settings(s, w, device, trainer);
    if (!s->quiet && resumes)
        print_resume(s, trainer);
    if (!run_log_write(listener->log,
                       resumes ? resume_record(s, w, device, listener->run, &trainer->state)
                               : start_record(s, w, device, listener->run, trainer),
                       error))
        return false;
    if (resumes)
        check_continuity(listener, w, kept);

    live_line_init(&listener->line, !s->quiet);
    const double began = clock_seconds();
    const struct train_observer observer = {listener,  on_progress, on_step, on_epoch,
                                            on_saving, on_warning,  on_stop};
    const bool good = train(trainer, &observer, error);
    live_line_clear(&listener->line);
    const double seconds = clock_seconds() - began;
    if (good && !over && !s->quiet)
        print_line("Finished Training in %.1f s: best test accuracy %.2f %% (epoch %lld), in %s",
                   seconds, best->accuracy, (long long)best->epoch, s->model);
    log_record(listener, end_record(trainer, seconds, good, error));
    if (!good && error->status == STATUS_INTERRUPTED)
        error->status += (enum status)interrupt_signal();
    return good;
}

/* ---- before a run ---- */

/* Whether the data is what the state's run was trained on. */
static bool check_data(const struct settings *s, const struct workplace *w,
                       const struct metadata *kept, const char *fingerprint, struct error *error) {
    const char *before = metadata_get(kept, "data_fingerprint");
    const char *train = metadata_get(kept, "train_images"),
               *test = metadata_get(kept, "test_images");
    struct cifar10_names names;
    bool told;
    if (before == NULL || strcmp(before, fingerprint) != 0)
        return error_set(
            error, STATUS_DATA,
            "%s: is not the data of the run in %s: its %lld training and %lld test images "
            "have fingerprint %s, that run's %s training and %s test images have %s; "
            "name its data with --data",
            w->folder, s->state, (long long)w->train.count, (long long)w->test.count, fingerprint,
            train != NULL ? train : "unknown", test != NULL ? test : "unknown",
            before != NULL ? before : "none");
    if (!classes_find(&names, &told, kept, s->state, error))
        return false;
    const int label = classes_compare(&names, &w->names);
    return !told || label == CIFAR10_CLASSES ||
           error_set(error, STATUS_DATA,
                     "%s: calls class %d '%s', but in the run in %s it is '%s'; name that run's "
                     "data with --data, or give this the names that it had (%s)",
                     w->folder, label, w->names.name[label], s->state, names.name[label],
                     cifar10_names_file);
}

/* The texts that the run's two files carry. Its mark comes from all that decides its result, so
 * that its files are known again: whatever else has the same mark holds the same bits. */
static bool write_about(struct metadata *model, struct metadata *last, const struct settings *s,
                        const struct workplace *w, const char *fingerprint, struct error *error) {
    struct settings kept = *s;
    char text[512];
    unsigned long mark = 0;
    *model = (struct metadata){0};
    metadata_set(model, "format", "pt"); /* what PyTorch's own tools write and ask for */
    metadata_set(model, "format_version", "1");
    metadata_set(model, "program", "cifar %s", CIFAR_VERSION);
    if (!settings_record(s, false, model, error))
        return false;
    metadata_set(model, "trained_on", "%s", workplace_data_kind(w));
    metadata_set(model, "data_fingerprint", "%s", fingerprint);
    metadata_set(model, "train_images", "%lld", (long long)w->train.count);
    metadata_set(model, "test_images", "%lld", (long long)w->test.count);
    for (int i = 0; i < model->count; i++)
        /* a run may become longer, and go on with a later version of the program */
        if (strcmp(model->entry[i].key, "epochs") != 0 &&
            strcmp(model->entry[i].key, "program") != 0)
            mark = crc32_z(mark, (const unsigned char *)model->entry[i].value,
                           strlen(model->entry[i].value) + 1);
    metadata_set(model, "run", "%08lx", mark);
    classes_record(model, &w->names);
    *last = *model;
    if (s->log != NULL && !run_log_lasts(s->log))
        kept.log = NULL;
    if (!settings_record(&kept, true, last, error))
        return false;
    arithmetic_of(w->device, text, sizeof text);
    metadata_set(last, "arithmetic", "%s", text);
    return true;
}

/* What the state `kept` remembers to have given up, and back. */
static void read_given_up(struct given_up *given_up, const struct metadata *kept) {
    const char *model = metadata_get(kept, TRAINER_UNTIL_MODEL);
    const char *states = metadata_get(kept, GIVEN_UP_STATES);
    snprintf(given_up->model, sizeof given_up->model, "%s", model != NULL ? model : "");
    snprintf(given_up->states, sizeof given_up->states, "%s", states != NULL ? states : "");
}

static void write_given_up(const struct given_up *given_up, const struct settings *s,
                           struct metadata *last) {
    if (given_up->model[0] != '\0')
        metadata_set(last, TRAINER_UNTIL_MODEL, "%s", given_up->model);
    if (given_up->states[0] != '\0' && s->keep > 1)
        metadata_set(last, GIVEN_UP_STATES, "%s", given_up->states);
}

/* Once the files may be written, whatever cannot be said before. */
static bool train_into(const struct settings *s, struct workplace *w,
                       const struct train_settings *settings, const struct metadata *model_about,
                       const struct metadata *last_about, struct train_state *from,
                       const struct metadata *kept, struct error *error) {
    struct trainer *trainer = memory_new(1, sizeof *trainer);
    const char *run_mark = metadata_get(model_about, "run");
    struct run_log log;
    const int64_t epoch = from != NULL ? from->epoch : 0, step = from != NULL ? from->step : 0;
    const bool resumes = from != NULL;
    /* takes the memory: an earlier log is not emptied for a training that cannot begin */
    trainer_init(trainer, w->device, settings, &w->train, &w->test, model_about, last_about, from);
    bool good = resumes ? run_log_reopen(&log, s->log, run_mark, epoch, step, error)
                        : run_log_open(&log, s->log, error);
    if (good) {
        struct listener listener = {
            .settings = s, .log = &log, .images = w->train.count, .run = run_mark};
        good = run(trainer, &listener, w, kept, error);
        const int failures = log.failures;
        struct error second;
        const bool closed = run_log_close(&log, &second);
        if (good && !closed)
            *error = second;
        else if (good && failures > 0)
            error_set(error, STATUS_FAILURE,
                      "%s: the log is complete, but %d of its writes failed on the way", s->log,
                      failures);
        else if (!closed && error->status != STATUS_FAILURE) /* must not hide why training ended */
            warn(&listener, second.text);
        good = good && closed && failures == 0;
    }
    trainer_free(trainer);
    free(trainer);
    return good;
}

/* What --resume does not find by itself: settings_adopt(). */
static void write_also(char *also, size_t size, const struct settings *s) {
    const bool model = !file_lies_beside(s->model, s->last);
    const bool log =
        s->log != NULL && (!run_log_lasts(s->log) || !file_lies_beside(s->log, s->last));
    snprintf(also, size, "%s%s%s%s", model ? " --model " : "", model ? s->model : "",
             log ? " --log " : "", log ? s->log : "");
}

static bool train_with(const struct settings *s, struct workplace *w, struct train_state *from,
                       struct metadata *kept, const struct output_locks *locks,
                       struct error *error) {
    struct metadata *about = memory_new(2, sizeof *about); /* of the model, of the state */
    struct given_up given_up = {0};
    struct error warning;
    char fingerprint[20], also[2048];
    const struct train_settings settings = {
        .epochs = (int)s->epochs,
        .batch = (int)s->batch,
        .log_every = s->log_every,
        .save_every = s->save_every,
        .lr = s->lr,
        .weight_decay = s->weight_decay,
        .seed = (uint64_t)s->seed,
        .model = s->model,
        .last = s->last,
        .also = also,
        .keep = (int)s->keep,
        .last_is_from = s->state != NULL && file_same(s->state, s->last),
        .stop_if_unsaved = s->stop_if_unsaved,
    };
    write_also(also, sizeof also, s);
    snprintf(fingerprint, sizeof fingerprint, "%016llx",
             (unsigned long long)cifar10_fingerprint(&w->test, cifar10_fingerprint(&w->train, 0)));
    bool good = write_about(&about[0], &about[1], s, w, fingerprint, error);
    if (good && from != NULL) {
        const int64_t steps = trainer_steps(&settings, &w->train);
        read_given_up(&given_up, kept);
        good = check_data(s, w, kept, fingerprint, error) &&
               train_state_fits(from, s->epochs, steps, s->state, error);
    }
    const char *run_mark = good ? metadata_get(&about[0], "run") : NULL;
    good = good && outputs_check(s, run_mark, from, &given_up, error);
    if (good) {
        write_given_up(&given_up, s, &about[1]);
        if (!outputs_tell(locks, run_mark, &warning))
            print_warning(s->program, "%s", warning.text);
        good = train_into(s, w, &settings, &about[0], &about[1], from, kept, error);
    }
    free(about);
    return good;
}

/* Loads the state to go on from, under its lock, and makes the settings those of its run. */
static bool load_run(struct settings *s, struct train_state *state, struct metadata *kept,
                     struct error *error) {
    if (!train_state_load(s->state, state, kept, error))
        return false;
    if (settings_adopt(s, kept, error))
        return true;
    train_state_free(state);
    return false;
}

static bool train_locked(struct settings *s, struct output_locks *locks, struct error *error) {
    struct metadata *kept = memory_new(1, sizeof *kept);
    struct train_state state;
    struct workplace w;
    const bool resumes = s->state != NULL;
    bool good = !resumes || load_run(s, &state, kept, error);
    if (good) {
        good = outputs_lock_rest(locks, s, error) && workplace_open(&w, s, true, error);
        if (good) {
            s->device = w.device->ops->name; /* what "auto" has come to */
            s->data = w.folder;
            good = train_with(s, &w, resumes ? &state : NULL, kept, locks, error);
            workplace_close(&w);
        }
        if (resumes)
            train_state_free(&state);
    }
    free(kept);
    return good;
}

bool command_train(const struct settings *given, struct error *error) {
    struct settings settings = *given;
    interrupt_watch();
    if (settings.state != NULL && access(settings.state, F_OK) != 0 && errno == ENOENT)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: there is no such training state; cifar-train writes one, "
                         "last.ckpt, or where --last says",
                         settings.state);
    struct output_locks *locks = memory_new(1, sizeof *locks);
    const bool good =
        outputs_lock_state(locks, &settings, error) && train_locked(&settings, locks, error);
    outputs_release(locks);
    free(locks);
    return good;
}
