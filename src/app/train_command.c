#include "app/classes.h"
#include "app/commands.h"
#include "app/interrupt.h"
#include "app/live_line.h"
#include "app/outputs.h"
#include "app/print.h"
#include "app/run_log.h"
#include "app/run_settings.h"
#include "app/workplace.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* In the files' metadata: the checkpoint that the run began with, and what that held. */
static const char init_key[] = "init", init_digest_key[] = "init_digest";

/* A run, from the command line to its end. */
struct run {
    struct settings settings;
    struct outputs outputs;
    struct workplace workplace;
    struct train_state from;                 /* the state to go on from; nothing: the run is new */
    struct metadata kept;                    /* what that says of itself */
    struct metadata model_about, last_about; /* what the run's two files will say */
    const char *mark;
    char fingerprint[20];              /* of the data */
    char device[512], arithmetic[512]; /* in words; all of that which results depend on */
    char also[2048];                   /* what --resume does not find by itself */
    char selection[80];                /* how the epoch is chosen whose network is the result */
    struct network_state init;         /* of --init, if that was given, */
    char init_digest[2 * DIGEST_DIGITS + 1]; /* and what is in it */
    struct trainer trainer;
    struct run_log log;
    struct live_line line;
};

static void warn(struct run *r, const char *text) {
    live_line_clear(&r->line);
    print_warning(r->settings.program, "%s", text);
}

/* A log that cannot be written does not end the training: what is missing waits in memory. */
static void log_record(struct run *r, json_t *record) {
    struct error error;
    const bool waited = r->log.waiting_size > 0;
    if (!run_log_write(&r->log, record, &error) && !waited)
        warn(r, error.text);
}

static void on_progress(void *context, const struct train_progress *p) {
    struct run *r = context;
    const int epochs = (int)r->settings.recipe.epochs;
    const int64_t images = r->workplace.train.count; /* in an epoch */
    live_line_draw(&r->line, p->epoch, epochs, (p->epoch - 1) * images + p->images, epochs * images,
                   p->loss, p->images_per_second);
}

static void on_step(void *context, int epoch, int64_t step, double loss) {
    struct run *r = context;
    live_line_clear(&r->line);
    if (!r->settings.quiet)
        printf("[%d, %5lld] loss: %.3f\n", epoch, (long long)step, loss);
    log_record(r, json_pack("{s:s, s:i, s:I, s:f}", "event", "step", "epoch", epoch, "step",
                            (json_int_t)step, "loss", loss));
}

/* Of which images an epoch's figures are. */
static const char *judged(const struct run *r) {
    return r->settings.validation > 0 ? "validation" : "test";
}

static void on_epoch(void *context, const struct train_epoch *e) {
    struct run *r = context;
    const bool last = r->settings.recipe.select == SELECT_LAST;
    const double accuracy = evaluation_accuracy(&e->judged);
    const char *of = judged(r);
    char loss_key[32], accuracy_key[32], seconds_key[32];
    snprintf(loss_key, sizeof loss_key, "%s_loss", of);
    snprintf(accuracy_key, sizeof accuracy_key, "%s_accuracy", of);
    snprintf(seconds_key, sizeof seconds_key, "%s_seconds", of);
    live_line_clear(&r->line);
    if (!r->settings.quiet)
        print_line("Epoch %d: %s accuracy %.2f %%, %s loss %.4f, train loss %.4f, %.1f s, %.0f "
                   "images/s%s%s",
                   e->epoch, of, accuracy, of, e->judged.loss, e->train_loss, e->train_seconds,
                   e->images_per_second,
                   !e->chosen ? ""
                   : last     ? "; in "
                              : "; best so far: ",
                   e->chosen ? r->settings.model : "");
    log_record(r, json_pack("{s:s, s:i, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:b}", "event", "epoch",
                            "epoch", e->epoch, "lr", e->lr, "train_loss", e->train_loss, loss_key,
                            e->judged.loss, accuracy_key, json_rounded(accuracy, 6),
                            "train_seconds", json_rounded(e->train_seconds, 3), "images_per_second",
                            json_rounded(e->images_per_second, 1), seconds_key,
                            json_rounded(e->judged.seconds, 6), "best", e->chosen));
}

static void on_test(void *context, const struct evaluation *test) {
    struct run *r = context;
    const double accuracy = evaluation_accuracy(test);
    live_line_clear(&r->line);
    if (!r->settings.quiet)
        print_line("The chosen network, of epoch %lld: test accuracy %.2f %%, test loss %.4f",
                   (long long)r->trainer.learner.state.best.epoch, accuracy, test->loss);
    log_record(r, json_pack("{s:s, s:f, s:o, s:o}", "event", "test", "test_loss", test->loss,
                            "test_accuracy", json_rounded(accuracy, 6), "test_seconds",
                            json_rounded(test->seconds, 6)));
}

static void on_warning(void *context, const char *text) {
    struct run *r = context;
    warn(r, text);
    log_record(r, json_pack("{s:s, s:o}", "event", "warning", "text", json_text(text)));
}

static void on_saving(void *context) {
    struct run *r = context;
    run_log_sync(&r->log);
}

static bool on_stop(void *context) {
    (void)context;
    return interrupt_signal() != 0;
}

/* ", 5000 validation", or "" */
static const char *held_out(const struct settings *s, char text[48]) {
    text[0] = '\0';
    if (s->validation > 0)
        snprintf(text, 48, ", %lld validation", (long long)s->validation);
    return text;
}

static void print_recipe(const struct settings *s) {
    struct recipe_setting setting;
    char text[512];
    snprintf(text, sizeof text, "%s", recipe_names[s->recipe_number]);
    for (int i = 0; run_settings_recipe(s, i, &setting); i++)
        if (setting.is_kept)
            snprintf(text + strlen(text), sizeof text - strlen(text), ", %s %s", setting.option,
                     setting.text);
    print_line("  recipe    %s", text);
}

static void print_settings(const struct run *r) {
    const struct settings *s = &r->settings;
    const struct workplace *w = &r->workplace;
    const struct trainer *trainer = &r->trainer;
    const double images =
        (double)(w->train.count + w->validation.count + w->test.count) * CIFAR10_RECORD / 1e6;
    const double memory = (double)w->device->ops->memory(w->device) / 1e6;
    printf("cifar-train %s\n", CIFAR_VERSION);
    printf("  device    %s: %s\n", w->device->ops->name, r->device);
    if (w->device->passed_over[0] != '\0')
        printf("  GPU       not used: %s\n", w->device->passed_over);
    const char *init = metadata_get(&r->model_about, init_key);
    char held[48];
    print_line("  data      %s: %lld training%s and %lld test images (%s)", w->folder,
               (long long)w->train.count, held_out(s, held), (long long)w->test.count,
               workplace_data_kind(w));
    if (init != NULL && text_is_clean(init))
        print_line("  begins    with the network of %s", init);
    printf("  network   %d layers, %zu parameters\n", NETWORK_LAYERS, network_plan()->parameters);
    printf("  training  epochs %lld, steps in each %lld, batch %d, %s lr %g, weight decay %g, "
           "seed %lld\n",
           (long long)s->recipe.epochs, (long long)trainer->learner.steps.count,
           trainer->learner.steps.batch, s->recipe.optimizer == OPTIMIZER_SGD ? "SGD" : "Adam",
           s->recipe.lr, s->recipe.weight_decay, (long long)s->seed);
    print_recipe(s);
    print_line("  result    %s", r->selection);
    printf("  memory    %.1f MB images, %.1f MB on the device\n", images, memory);
    print_line("  model     %s", s->model);
    char every[64] = "";
    if (s->save_every > 0)
        snprintf(every, sizeof every, " and every %lld steps", (long long)s->save_every);
    print_line("  state     %s, after each epoch%s", s->last, every);
    if (s->log != NULL)
        print_line("  log       %s, every %lld steps", s->log, (long long)s->log_every);
}

/* All settings of the recipe, by name. */
static json_t *recipe_record(const struct settings *s) {
    struct recipe_setting setting;
    json_t *record = json_pack("{s:s}", "name", recipe_names[s->recipe_number]);
    for (int i = 0; run_settings_recipe(s, i, &setting); i++)
        json_object_set_new(record, setting.name,
                            setting.is_word ? json_string(setting.text)
                                            : json_loads(setting.text, JSON_DECODE_ANY, NULL));
    return record;
}

static json_t *start_record(const struct run *r) {
    const struct settings *s = &r->settings;
    const struct workplace *w = &r->workplace;
    const struct trainer *trainer = &r->trainer;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:I, s:I, s:I, s:i, s:f, s:f, s:I, s:I, s:I, s:I, "
        "s:o, s:o, s:o, s:I, s:s, s:o, s:I, s:s, s:s*, s:s*}",
        "event", "start", "version", CIFAR_VERSION, "device", w->device->ops->name,
        "device_description", r->device, "precision", w->device->tf32 ? "tf32" : "float32", "data",
        json_text(w->folder), "synthetic", w->synthetic, "train_images", (json_int_t)w->train.count,
        "test_images", (json_int_t)w->test.count, "epochs", (json_int_t)s->recipe.epochs, "batch",
        trainer->learner.steps.batch, "lr", s->recipe.lr, "weight_decay", s->recipe.weight_decay,
        "seed", (json_int_t)s->seed, "threads", (json_int_t)w->threads, "log_every",
        (json_int_t)s->log_every, "save_every", (json_int_t)s->save_every, "limit",
        s->limit > 0 ? json_integer(s->limit) : json_null(), "model", json_text(s->model), "last",
        json_text(s->last), "parameters", (json_int_t)network_plan()->parameters, "run", r->mark,
        "recipe", recipe_record(s), "validation_images", (json_int_t)w->validation.count,
        "selection", r->selection, init_key, metadata_get(&r->model_about, init_key),
        init_digest_key, metadata_get(&r->model_about, init_digest_key));
}

static json_t *resume_record(const struct run *r) {
    const struct train_state *state = &r->trainer.learner.state;
    return json_pack("{s:s, s:o, s:I, s:I, s:s, s:s, s:I, s:I, s:s, s:s}", "event", "resume",
                     "from", json_text(r->settings.state), "epoch", (json_int_t)state->epoch,
                     "step", (json_int_t)state->step, "version", CIFAR_VERSION,
                     "device_description", r->device, "threads", (json_int_t)r->workplace.threads,
                     "epochs", (json_int_t)r->settings.recipe.epochs, "run", r->mark, "selection",
                     r->selection);
}

static json_t *end_record(const struct trainer *trainer, double seconds, bool good,
                          const struct error *error) {
    const struct train_best *best = &trainer->learner.state.best;
    const struct evaluation *test = &trainer->tested;
    return json_pack(
        "{s:s, s:b, s:I, s:o, s:o*, s:o, s:o, s:o*}", "event", "end", "finished", good,
        "best_epoch", (json_int_t)best->epoch, "best_accuracy",
        json_rounded(best->epoch > 0 ? best->accuracy : (double)NAN, 6), "test_accuracy",
        test->images > 0 ? json_rounded(evaluation_accuracy(test), 6) : NULL, "seconds",
        json_rounded(seconds, 3), "save_seconds", json_rounded(trainer->save_seconds, 6), "error",
        good ? NULL : json_text(error->text));
}

static void print_resume(const struct run *r) {
    const struct settings *s = &r->settings;
    const struct trainer *trainer = &r->trainer;
    const struct train_state *state = &trainer->learner.state;
    if (state->epoch > s->recipe.epochs)
        print_line(recipe_has_end(&s->recipe)
                       ? "%s: this run is finished, after %lld epochs"
                       : "%s: this run is finished; a larger --epochs than %lld goes on with it",
                   s->state, (long long)s->recipe.epochs);
    else
        print_line("Going on with %s: epoch %lld of %lld, after step %lld of %lld", s->state,
                   (long long)state->epoch, (long long)s->recipe.epochs, (long long)state->step,
                   (long long)trainer->learner.steps.count);
    if (state->best.epoch > 0)
        print_line("%s %s accuracy so far %.2f %% (epoch %lld), in %s",
                   s->recipe.select == SELECT_LAST ? "Last" : "Best", judged(r),
                   state->best.accuracy, (long long)state->best.epoch, s->model);
}

/* Warns of what keeps a run that goes on from being as if it had never stopped. */
static void check_continuity(struct run *r) {
    const struct settings *s = &r->settings;
    struct error warning;
    const char *before = metadata_get(&r->kept, "arithmetic"), *log = metadata_get(&r->kept, "log");
    /* a log of another name than the state's may begin here */
    const bool known = log != NULL && s->log != NULL && strcmp(log, s->log) == 0;
    if ((known || r->log.reached.epoch > 0) && !run_log_is_whole(&r->log, s->log_every, &warning))
        on_warning(r, warning.text);
    if (metadata_get(&r->kept, classes_key) == NULL) {
        error_set(&warning, STATUS_CHECKPOINT,
                  "%s: does not name its classes; those of the data are taken", s->state);
        on_warning(r, warning.text);
    }
    if (before != NULL && strcmp(before, r->arithmetic) != 0) {
        error_set(&warning, STATUS_DEVICE,
                  "the run in %s was computed by: %s; it goes on with: %s; results may differ in "
                  "their last bits from those of a run that never changed",
                  s->state, before, r->arithmetic);
        on_warning(r, warning.text);
    }
}

static bool train_and_tell(struct run *r, struct error *error) {
    const struct settings *s = &r->settings;
    struct trainer *trainer = &r->trainer;
    const struct train_best *best = &trainer->learner.state.best;
    const bool resumes = s->state != NULL, over = trainer->learner.state.epoch > s->recipe.epochs;
    const bool last = s->recipe.select == SELECT_LAST;
    if (!s->quiet)
        print_settings(r);
    if (!s->quiet && resumes)
        print_resume(r);
    if (!run_log_write(&r->log, resumes ? resume_record(r) : start_record(r), error))
        return false;
    if (resumes)
        check_continuity(r);

    live_line_init(&r->line, !s->quiet);
    const double began = clock_seconds();
    const struct train_observer observer = {r,       on_progress, on_step,    on_epoch,
                                            on_test, on_saving,   on_warning, on_stop};
    const bool good = train(trainer, &observer, error);
    live_line_clear(&r->line);
    const double seconds = clock_seconds() - began;
    if (good && !over && !s->quiet)
        print_line("Finished Training in %.1f s: %s%s accuracy %.2f %% (epoch %lld%s), in %s",
                   seconds, last ? "" : "best ", judged(r), best->accuracy, (long long)best->epoch,
                   last ? ", the last" : "", s->model);
    log_record(r, end_record(trainer, seconds, good, error));
    if (!good && error->status == STATUS_INTERRUPTED)
        error->status += (enum status)interrupt_signal();
    return good;
}

/* With its log, which must not hide why training ended. */
static bool train_logged(struct run *r, struct error *error) {
    const struct train_state *state = &r->trainer.learner.state;
    struct error second;
    if (!(r->settings.state != NULL
              ? run_log_reopen(&r->log, r->settings.log, r->mark, state->epoch, state->step, error)
              : run_log_open(&r->log, r->settings.log, error)))
        return false;
    const bool good = train_and_tell(r, error);
    const int failures = r->log.failures;
    const bool closed = run_log_close(&r->log, &second);
    if (good && !closed)
        *error = second;
    else if (good && failures > 0)
        error_set(error, STATUS_FAILURE,
                  "%s: the log is complete, but %d of its writes failed on the way",
                  r->settings.log, failures);
    else if (!closed && error->status != STATUS_FAILURE)
        warn(r, second.text);
    return good && closed && failures == 0;
}

/* ---- before a run ---- */

/* Whether the data, all of it, is what the state's run was trained on. */
static bool check_data(const struct run *r, struct error *error) {
    const struct workplace *w = &r->workplace;
    const char *state = r->settings.state;
    const char *before = metadata_get(&r->kept, "data_fingerprint");
    const char *train = metadata_get(&r->kept, "train_images"),
               *test = metadata_get(&r->kept, "test_images");
    struct cifar10_names names;
    char held[48];
    bool told;
    if (before == NULL || strcmp(before, r->fingerprint) != 0)
        return error_set(error, STATUS_DATA,
                         "%s: is not the data of the run in %s: its %lld training and %lld test "
                         "images have fingerprint %s, that run's %s training%s and %s test images "
                         "have %s; name its data with --data",
                         w->folder, state, (long long)w->train.count, (long long)w->test.count,
                         r->fingerprint, train != NULL ? train : "unknown",
                         held_out(&r->settings, held), test != NULL ? test : "unknown",
                         before != NULL ? before : "none");
    if (!classes_find(&names, &told, &r->kept, state, error))
        return false;
    const int label = cifar10_compare_names(&names, &w->names);
    return !told || label == CIFAR10_CLASSES ||
           error_set(error, STATUS_DATA,
                     "%s: calls class %d '%s', but in the run in %s it is '%s'; name that run's "
                     "data with --data, or give this the names that it had (%s)",
                     w->folder, label, w->names.name[label], state, names.name[label],
                     cifar10_names_file);
}

/* The texts that the run's two files carry. Its mark comes from all that decides its result, so
 * that its files are known again: whatever else has the same mark holds the same bits. */
static bool write_about(struct run *r, struct error *error) {
    struct metadata *model = &r->model_about, *last = &r->last_about;
    const struct workplace *w = &r->workplace;
    struct settings kept = r->settings;
    const bool begins = r->settings.init != NULL;
    const char *init = begins ? r->settings.init : metadata_get(&r->kept, init_key);
    const char *init_digest = begins ? r->init_digest : metadata_get(&r->kept, init_digest_key);
    unsigned long mark = 0;
    metadata_set(model, "format", "pt"); /* what PyTorch's own tools write and ask for */
    metadata_set(model, "format_version", "1");
    metadata_set(model, "program", "cifar %s", CIFAR_VERSION);
    if (!run_settings_record(&kept, false, model, error))
        return false;
    metadata_set(model, "trained_on", "%s", workplace_data_kind(w));
    metadata_set(model, "data_fingerprint", "%s", r->fingerprint);
    metadata_set(model, "train_images", "%lld", (long long)w->train.count);
    metadata_set(model, "test_images", "%lld", (long long)w->test.count);
    if (init_digest != NULL)
        metadata_set(model, init_digest_key, "%s", init_digest);
    for (int i = 0; i < model->count; i++) {
        const char *key = model->entry[i].key, *value = model->entry[i].value;
        /* a run may become longer, and go on with a later version of the program */
        if ((strcmp(key, "epochs") == 0 && !recipe_has_end(&kept.recipe)) ||
            strcmp(key, "program") == 0)
            continue;
        if (strncmp(key, "recipe.", strlen("recipe.")) == 0) /* not each is always there */
            mark = crc32_z(mark, (const unsigned char *)key, strlen(key) + 1);
        mark = crc32_z(mark, (const unsigned char *)value, strlen(value) + 1);
    }
    metadata_set(model, "run", "%08lx", mark);
    if (init != NULL && metadata_holds(init) && text_is_clean(init))
        metadata_set(model, init_key, "%s", init);
    classes_record(model, &w->names);
    r->mark = metadata_get(model, "run");
    *last = *model;
    metadata_set(model, "selection", "%s", r->selection);
    if (kept.log != NULL && !run_log_lasts(kept.log))
        kept.log = NULL;
    if (!run_settings_record(&kept, true, last, error))
        return false;
    metadata_set(last, "arithmetic", "%s", r->arithmetic);
    return true;
}

/* What there is to say of the run: device, data, files. */
static void describe(struct run *r) {
    const struct settings *s = &r->settings;
    const struct workplace *w = &r->workplace;
    const bool model = !file_lies_beside(s->model, s->last);
    const bool log =
        s->log != NULL && (!run_log_lasts(s->log) || !file_lies_beside(s->log, s->last));
    snprintf(r->also, sizeof r->also, "%s%s%s%s", model ? " --model " : "", model ? s->model : "",
             log ? " --log " : "", log ? s->log : "");
    snprintf(r->fingerprint, sizeof r->fingerprint, "%016llx",
             (unsigned long long)cifar10_fingerprint(&w->test, cifar10_fingerprint(&w->train, 0)));
    if (s->recipe.select == SELECT_LAST)
        snprintf(r->selection, sizeof r->selection, "the last epoch");
    else if (s->validation > 0)
        snprintf(r->selection, sizeof r->selection, "the best epoch on %lld validation images",
                 (long long)s->validation);
    else
        snprintf(r->selection, sizeof r->selection, "the best epoch on the test images");
    workplace_describe_device(w, r->device, sizeof r->device);
    w->device->ops->describe(w->device, r->arithmetic, sizeof r->arithmetic);
}

/* Holds out the images that epochs are judged on. */
static bool hold_out(struct workplace *w, const struct settings *s, struct error *error) {
    if (s->validation == 0)
        return true;
    if (s->validation >= w->train.count)
        return error_set(error, STATUS_USAGE,
                         "--validation %lld: there are %lld training images, of which some must be "
                         "left to train on",
                         (long long)s->validation, (long long)w->train.count);
    cifar10_hold_out(&w->train, &w->validation, s->validation, (uint64_t)s->seed);
    return true;
}

/* Once the files are locked and the data is there. */
static bool train_with(struct run *r, struct error *error) {
    struct settings *s = &r->settings;
    struct workplace *w = &r->workplace;
    struct train_state *from = s->state != NULL ? &r->from : NULL;
    struct error warning;
    s->device = w->device->ops->name; /* what "auto" has come to */
    s->data = w->folder;
    const struct train_settings settings = {
        .recipe = s->recipe,
        .log_every = s->log_every,
        .save_every = s->save_every,
        .seed = (uint64_t)s->seed,
        .model = s->model,
        .last = s->last,
        .also = r->also,
        .keep = (int)s->keep,
        .last_is_from = s->state != NULL && file_same(s->state, s->last),
        .stop_if_unsaved = s->stop_if_unsaved,
    };
    describe(r);
    if ((from != NULL && !check_data(r, error)) || !hold_out(w, s, error) ||
        !write_about(r, error) ||
        (from != NULL && !train_state_fits(from, s->recipe.epochs,
                                           steps_count(w->train.count, (int)s->recipe.batch),
                                           s->recipe.average != AVERAGE_NONE, s->state, error)) ||
        !outputs_check(&r->outputs, s, r->mark, from, &r->kept, &r->last_about, error))
        return false;
    if (!outputs_tell(&r->outputs, r->mark, &warning))
        warn(r, warning.text);
    /* takes the memory: an earlier log is not emptied for a training that cannot begin */
    struct train_data data = {.train = resident_new(w->device, &w->train),
                              .test = resident_new(w->device, &w->test)};
    if (s->validation > 0)
        data.validation = resident_new(w->device, &w->validation);
    trainer_init(&r->trainer, w->device, &settings, &data, s->init != NULL ? &r->init : NULL,
                 &r->model_about, &r->last_about, from);
    const bool good = train_logged(r, error);
    trainer_free(&r->trainer);
    return good;
}

/* Loads the network that a new run begins with. */
static bool load_init(struct run *r, struct error *error) {
    if (r->settings.init == NULL)
        return true;
    const struct network_plan *plan = network_plan();
    network_state_new(&r->init);
    if (!checkpoint_load(r->settings.init, &r->init, NULL, error))
        return false;
    digest_bytes(r->init_digest, r->init.parameters, plan->parameters * sizeof(float));
    digest_bytes(r->init_digest + DIGEST_DIGITS, r->init.statistics,
                 plan->statistics * sizeof(float));
    return true;
}

/* Loads the state to go on from, under its lock, and makes the settings those of its run. */
static bool load_run(struct run *r, struct error *error) {
    return r->settings.state == NULL ||
           (train_state_load(r->settings.state, &r->from, &r->kept, error) &&
            run_settings_adopt(&r->settings, &r->kept, error));
}

bool command_train(const struct settings *settings, struct error *error) {
    interrupt_watch();
    if (settings->state != NULL && access(settings->state, F_OK) != 0 && errno == ENOENT)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: there is no such training state; cifar-train writes one, last.ckpt, "
                         "or where --last says",
                         settings->state);
    struct run *r = memory_new(1, sizeof *r);
    r->settings = *settings;
    const bool good = outputs_lock_state(&r->outputs, settings, error) && load_run(r, error) &&
                      outputs_lock_rest(&r->outputs, &r->settings, error) && load_init(r, error) &&
                      workplace_open(&r->workplace, &r->settings, true, error) &&
                      train_with(r, error);
    workplace_close(&r->workplace);
    train_state_free(&r->from);
    network_state_free(&r->init);
    outputs_release(&r->outputs);
    free(r);
    return good;
}
