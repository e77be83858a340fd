#include "app/commands.h"
#include "app/json_output.h"
#include "app/live_line.h"
#include "app/run_log.h"
#include "app/workplace.h"
#include "base/clock.h"
#include "base/file.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>

/* Who listens to a run, and what for. */
struct listener {
    const struct settings *settings;
    struct run_log *log;
    struct live_line line;
    int64_t images; /* in an epoch */
};

static void on_progress(void *context, const struct train_progress *p) {
    struct listener *l = context;
    const int epochs = (int)l->settings->epochs;
    live_line_draw(&l->line, p->epoch, epochs, (p->epoch - 1) * l->images + p->images,
                   epochs * l->images, p->loss, (double)p->images / p->seconds);
}

static bool on_step(void *context, int epoch, int64_t step, double loss, struct error *error) {
    struct listener *l = context;
    live_line_clear(&l->line);
    if (!l->settings->quiet)
        printf("[%d, %5lld] loss: %.3f\n", epoch, (long long)step, loss);
    return run_log_write(l->log,
                         json_pack("{s:s, s:i, s:I, s:f}", "event", "step", "epoch", epoch, "step",
                                   (json_int_t)step, "loss", loss),
                         error);
}

static bool on_epoch(void *context, const struct train_epoch *e, struct error *error) {
    struct listener *l = context;
    const double accuracy = evaluation_accuracy(&e->test);
    live_line_clear(&l->line);
    if (!l->settings->quiet)
        printf("Epoch %d: test accuracy %.2f %%, test loss %.4f, train loss %.4f, %.1f s, %.0f "
               "images/s%s%s\n",
               e->epoch, accuracy, e->test.loss, e->train_loss, e->train_seconds,
               e->images_per_second, e->best ? "; best so far, saved to " : "",
               e->best ? l->settings->model : "");
    return run_log_write(
        l->log,
        json_pack("{s:s, s:i, s:f, s:f, s:o, s:o, s:o, s:o, s:b}", "event", "epoch", "epoch",
                  e->epoch, "train_loss", e->train_loss, "test_loss", e->test.loss, "test_accuracy",
                  json_rounded(accuracy, 6), "train_seconds", json_rounded(e->train_seconds, 3),
                  "images_per_second", json_rounded(e->images_per_second, 1), "test_seconds",
                  json_rounded(e->test.seconds, 6), "best", e->best),
        error);
}

static void print_settings(const struct settings *s, const struct workplace *w, const char *device,
                           const struct trainer *trainer) {
    const double images = (double)(w->train.count + w->test.count) * CIFAR10_RECORD / 1e6;
    const double memory = (double)w->device->ops->memory(w->device) / 1e6;
    printf("cifar-train %s\n", CIFAR_VERSION);
    printf("  device    %s: %s\n", w->device->ops->name, device);
    if (w->device->passed_over[0] != '\0')
        printf("  GPU       not used: %s\n", w->device->passed_over);
    printf("  data      %s: %lld training and %lld test images (%s)\n", w->folder,
           (long long)w->train.count, (long long)w->test.count, workplace_data_kind(w));
    printf("  network   %d layers, %zu parameters\n", NETWORK_LAYERS, network_plan()->parameters);
    printf("  training  epochs %lld, steps in each %lld, batch %d, Adam lr %g, weight decay %g, "
           "seed %lld\n",
           (long long)s->epochs, (long long)trainer->pass.steps, trainer->pass.whole.n, s->lr,
           s->weight_decay, (long long)s->seed);
    printf("  memory    %.1f MB images, %.1f MB on the device\n", images, memory);
    printf("  model     %s\n", s->model);
    if (s->log != NULL)
        printf("  log       %s, every %lld steps\n", s->log, (long long)s->log_every);
}

static json_t *start_record(const struct settings *s, const struct workplace *w, const char *device,
                            const struct trainer *trainer) {
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:I, s:I, s:I, s:i, s:f, s:f, s:I, s:I, s:I, "
        "s:o, s:o, s:I}",
        "event", "start", "version", CIFAR_VERSION, "device", w->device->ops->name,
        "device_description", device, "precision", w->device->tf32 ? "tf32" : "float32", "data",
        json_text(w->folder), "synthetic", w->synthetic, "train_images", (json_int_t)w->train.count,
        "test_images", (json_int_t)w->test.count, "epochs", (json_int_t)s->epochs, "batch",
        trainer->pass.whole.n, "lr", s->lr, "weight_decay", s->weight_decay, "seed",
        (json_int_t)s->seed, "threads", (json_int_t)w->threads, "log_every",
        (json_int_t)s->log_every, "limit", s->limit > 0 ? json_integer(s->limit) : json_null(),
        "model", json_text(s->model), "parameters", (json_int_t)network_plan()->parameters);
}

static bool run(struct trainer *trainer, struct listener *listener, const struct workplace *w,
                struct error *error) {
    const struct settings *s = listener->settings;
    char device[512];
    w->device->ops->describe(w->device, device, sizeof device);
    if (!s->quiet)
        print_settings(s, w, device, trainer);
    if (!run_log_write(listener->log, start_record(s, w, device, trainer), error))
        return false;

    live_line_init(&listener->line, !s->quiet);
    const double began = clock_seconds();
    const struct train_observer observer = {listener, on_progress, on_step, on_epoch};
    const bool good = train(trainer, &observer, error);
    live_line_clear(&listener->line);
    const double seconds = clock_seconds() - began;
    if (good && !s->quiet)
        printf("Finished Training in %.1f s: best test accuracy %.2f %% (epoch %d), in %s\n",
               seconds, trainer->best_accuracy, trainer->best_epoch, s->model);
    struct error second; /* a log that fails now must not hide why training failed */
    return run_log_write(
               listener->log,
               json_pack(
                   "{s:s, s:b, s:i, s:o, s:o, s:o*}", "event", "end", "finished", good,
                   "best_epoch", trainer->best_epoch, "best_accuracy",
                   json_rounded(trainer->best_epoch > 0 ? trainer->best_accuracy : (double)NAN, 6),
                   "seconds", json_rounded(seconds, 3), "error",
                   good ? NULL : json_text(error->text)),
               good ? error : &second) &&
           good;
}

/* What cannot be written, or would be written over, is found out now, not after an hour. */
static bool check_outputs(const struct settings *s, const struct workplace *w,
                          struct error *error) {
    if (s->log != NULL && file_same(s->log, s->model))
        return error_set(error, STATUS_USAGE, "--log and --model are the same file, %s; name two",
                         s->model);
    return workplace_spares(w, "model", s->model, error) &&
           (s->log == NULL || workplace_spares(w, "log", s->log, error)) &&
           file_check_replaceable(s->model, error);
}

bool command_train(const struct settings *s, struct error *error) {
    struct workplace w;
    struct run_log log;
    if (!workplace_open(&w, s, true, error))
        return false;
    if (s->limit > 0)
        cifar10_limit(&w.train, s->limit);
    if (!check_outputs(s, &w, error) || !run_log_open(&log, s->log, error)) {
        workplace_close(&w);
        return false;
    }

    struct trainer trainer;
    const struct train_settings settings = {
        .epochs = (int)s->epochs,
        .batch = (int)s->batch,
        .log_every = s->log_every,
        .lr = s->lr,
        .weight_decay = s->weight_decay,
        .seed = (uint64_t)s->seed,
        .model = s->model,
    };
    struct metadata about = {0};
    metadata_set(&about, "format", "pt"); /* what PyTorch's own tools write and ask for */
    metadata_set(&about, "format_version", "1");
    metadata_set(&about, "program", "cifar %s", CIFAR_VERSION);
    metadata_set(&about, "device", "%s", w.device->ops->name);
    metadata_set(&about, "data", "%s", workplace_data_kind(&w));
    trainer_init(&trainer, w.device, &settings, &w.train, &w.test, &about);
    struct listener listener = {.settings = s, .log = &log, .images = w.train.count};

    bool good = run(&trainer, &listener, &w, error);
    struct error second;
    good = run_log_close(&log, good ? error : &second) && good;
    trainer_free(&trainer);
    workplace_close(&w);
    return good;
}
