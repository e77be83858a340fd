#include "train/trainer.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Images in a batch of the evaluation after each epoch: work for every core, and little memory
 * (scripts/pytorch/bench.py has PyTorch evaluate as many at once). */
enum { EVALUATION_BATCH = 100 };

/* Steps are queued in runs that last about so many seconds, so that progress shows; a device that
 * works on its own has the next run queued before the losses of one are waited for. */
static const double RUN_SECONDS = 0.05;

/* Failed saves of the state in a row that are no accident any more. */
enum { TOO_MANY_UNSAVED = 3 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- the state, on the device and on the host ---- */

int64_t trainer_steps(const struct train_settings *settings, const struct cifar10 *train) {
    return (train->count + settings->batch - 1) / settings->batch;
}

void trainer_init(struct trainer *t, struct device *device, const struct train_settings *settings,
                  const struct cifar10 *train, const struct cifar10 *test,
                  const struct metadata *model_about, const struct metadata *last_about,
                  struct train_state *from) {
    const struct device_ops *op = device->ops;
    const size_t parameters = network_plan()->parameters;
    const int batch = (int)least(settings->batch, train->count);
    const int evaluation = (int)least(EVALUATION_BATCH, test->count);
    *t = (struct trainer){.settings = *settings, .device = device, .run = 1};
    t->model_about = *model_about;
    t->last_about = *last_about;

    if (from != NULL) {
        t->state = *from;
        *from = (struct train_state){0};
    } else {
        train_state_new(&t->state);
        train_state_begin(&t->state, settings->seed);
    }
    train_state_new(&t->room);
    t->model_waits = t->state.best.epoch > 0;
    t->network = network_new(device, batch > evaluation ? batch : evaluation);
    t->adam = (struct adam){.count = parameters,
                            .lr = settings->lr,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = settings->weight_decay,
                            .parameters = network_parameters(t->network),
                            .gradients = network_gradients(t->network),
                            .exp_avg = op->block_new(device, parameters),
                            .exp_avg_sq = op->block_new(device, parameters)};
    t->loader = op->loader_new(device, train->records, train->count, CIFAR10_CHANNELS, CIFAR10_SIDE,
                               CIFAR10_SIDE);
    pass_init(&t->pass, t->network, t->loader, &t->adam, train->count, batch);
    evaluator_init(&t->evaluator, t->network, test, evaluation);
    t->order = memory_new((size_t)train->count, sizeof *t->order);
    t->losses = memory_new((size_t)t->pass.steps, sizeof *t->losses);
}

void trainer_free(struct trainer *t) {
    evaluator_free(&t->evaluator);
    network_free(t->network);
    train_state_free(&t->state);
    train_state_free(&t->room);
    free(t->order);
    free(t->losses);
}

/* Puts the state on the device. */
static void put_state(struct trainer *t) {
    const struct device_ops *op = t->device->ops;
    network_upload(t->network, &t->state.network);
    op->upload(t->device, (struct slice){t->adam.exp_avg, 0}, t->state.exp_avg, t->adam.count);
    op->upload(t->device, (struct slice){t->adam.exp_avg_sq, 0}, t->state.exp_avg_sq,
               t->adam.count);
    op->adam_seek(t->device, t->state.adam_step);
}

/* Draws the order of the state's epoch and begins a pass over what is left of it. */
static void begin_pass(struct trainer *t) {
    const int64_t done = t->state.step * t->pass.whole.n;
    t->drawn = t->state.random;
    random_permutation(&t->drawn, t->order, (uint32_t)t->pass.images);
    t->device->ops->loader_rewind(t->device, t->loader, t->order + done, t->pass.images - done);
}

/* Takes the numbers from the device, after so many steps of the epoch, into the host's room. */
static bool take_numbers(struct trainer *t, struct error *error) {
    const struct device_ops *op = t->device->ops;
    return network_download(t->network, &t->room.network, error) &&
           op->download(t->device, t->room.exp_avg, (struct slice){t->adam.exp_avg, 0},
                        t->adam.count, error) &&
           op->download(t->device, t->room.exp_avg_sq, (struct slice){t->adam.exp_avg_sq, 0},
                        t->adam.count, error);
}

/* ---- numbers that are no longer finite ---- */

static const char *in_words(double value) {
    return isnan(value) ? "NaN" : isinf(value) ? "infinite" : "negative";
}

/* `what` is the loss of a step, say, `value` what it has become, `first` a word on where. */
static bool diverged(const struct trainer *t, const char *what, double value, const char *first,
                     struct error *error) {
    char kept[512] = "no checkpoint had been saved yet";
    if (t->state.best.epoch > 0 && !t->model_waits)
        snprintf(kept, sizeof kept, "%.300s still holds epoch %lld with %.2f %%", t->settings.model,
                 (long long)t->state.best.epoch, t->state.best.accuracy);
    return error_set(error, STATUS_DIVERGED,
                     "epoch %lld: %s is %s: no longer a finite number%s; training stops and %s; a "
                     "smaller --lr (now %g) or --weight-decay (now %g) or another --seed usually "
                     "helps",
                     (long long)t->state.epoch, what, in_words(value), first, kept, t->settings.lr,
                     t->settings.weight_decay);
}

/* Takes the epoch's steps up to number `steps` once more from the last state on, one by one, since
 * what many steps leave behind does not tell where it began, and says in which of them which number
 * went wrong first; says nothing if none did. */
static bool name_number(struct trainer *t, int64_t steps, char *first, size_t size,
                        struct error *error) {
    char tensor[SAFETENSORS_NAME];
    double value;
    first[0] = '\0';
    put_state(t);
    begin_pass(t);
    for (int64_t step = t->state.step; step < steps; step++) {
        pass_run(&t->pass, step, 1);
        if (!take_numbers(t, error))
            return false;
        if (train_state_is_wrong(&t->room, tensor, &value)) {
            snprintf(first, size, " (first to go wrong: %s, which became %s in step %lld)", tensor,
                     in_words(value), (long long)step + 1);
            return true;
        }
    }
    return true;
}

/* Says what a layer makes of the loader's next n images, if nothing was said before. */
static bool name_layer(struct trainer *t, struct loader *loader, bool training, int n, char *first,
                       size_t size, struct error *error) {
    const char *layer;
    double value;
    if (first[0] != '\0')
        return true;
    network_forward(t->network, loader, training, n);
    if (!network_find_infinite(t->network, n, &layer, &value, error))
        return false;
    if (layer[0] == '\0')
        snprintf(first, size, " (first to go wrong: the loss itself)");
    else
        snprintf(first, size, " (first to go wrong: the output of %s, with %s numbers)", layer,
                 in_words(value));
    return true;
}

/* The loss of step number `step` (from 0) is not finite. */
static bool diverged_in_step(struct trainer *t, int64_t step, double loss, struct error *error) {
    char what[64], first[160];
    snprintf(what, sizeof what, "the loss of step %lld", (long long)step + 1);
    return name_number(t, step, first, sizeof first, error) &&
           name_layer(t, t->loader, true, pass_batch(&t->pass, step), first, sizeof first, error) &&
           diverged(t, what, loss, first, error);
}

/* The mean loss on the test images is not finite, after the epoch's last step. */
static bool diverged_in_test(struct trainer *t, double loss, struct error *error) {
    char first[160];
    const struct evaluator *e = &t->evaluator;
    int64_t batch = 0;
    while (batch + 1 < e->pass.steps && isfinite(e->losses[batch]))
        batch++;
    const int64_t done = batch * e->pass.whole.n;
    if (!name_number(t, t->pass.steps, first, sizeof first, error))
        return false;
    t->device->ops->loader_rewind(t->device, e->loader, e->order + done, e->pass.images - done);
    return name_layer(t, e->loader, false, pass_batch(&e->pass, batch), first, sizeof first,
                      error) &&
           diverged(t, "the loss on the test images", loss, first, error);
}

static void swap_numbers(struct train_state *a, struct train_state *b) {
    const struct train_state was = *a;
    a->network = b->network;
    a->exp_avg = b->exp_avg;
    a->exp_avg_sq = b->exp_avg_sq;
    b->network = was.network;
    b->exp_avg = was.exp_avg;
    b->exp_avg_sq = was.exp_avg_sq;
}

/* Makes what is on the device the state, in `epoch` after `step` steps. A loss can stay finite
 * while a running variance overflows: no file may hold that. */
static bool take_state(struct trainer *t, int64_t epoch, int64_t step, double total, double running,
                       struct error *error) {
    struct train_state *s = &t->state;
    char tensor[SAFETENSORS_NAME], first[160];
    double value;
    if (!take_numbers(t, error))
        return false;
    if (train_state_is_wrong(&t->room, tensor, &value))
        return name_number(t, step > 0 ? step : t->pass.steps, first, sizeof first, error) &&
               diverged(t, tensor, value, first, error);
    swap_numbers(s, &t->room);
    if (epoch != s->epoch)
        s->random = t->drawn;
    s->epoch = epoch;
    s->step = step;
    s->total = total;
    s->running = running;
    s->adam_step = s->network.batches = (epoch - 1) * t->pass.steps + step;
    t->last_waits = true;
    return true;
}

/* ---- files ---- */

static bool save_last(struct trainer *t, struct error *error) {
    const struct train_state *s = &t->state;
    if (s->step > 0)
        metadata_set(&t->last_about, "epoch", "%lld (step %lld of %lld)", (long long)s->epoch,
                     (long long)s->step, (long long)t->pass.steps);
    else
        metadata_set(&t->last_about, "epoch", "%lld", (long long)s->epoch - 1);
    const int keep = t->settings.last_is_from ? 1 : t->settings.keep;
    if (!file_keep(t->settings.last, keep, error) ||
        !train_state_save(t->settings.last, s, &t->last_about, error))
        return false;
    t->settings.last_is_from = false;
    return true;
}

static bool save_model(struct trainer *t, struct error *error) {
    const struct train_best *best = &t->state.best;
    metadata_set(&t->model_about, "epoch", "%lld", (long long)best->epoch);
    metadata_set(&t->model_about, "test_accuracy", "%.2f", best->accuracy);
    metadata_set(&t->model_about, "test_loss", "%.6f", best->loss);
    return checkpoint_save(t->settings.model, &best->network, &t->model_about, error);
}

/* Whether a file that should be written still waits for it. */
static bool waits(struct trainer *t, bool written, const struct error *failure,
                  const struct train_observer *observer) {
    char text[sizeof failure->text + 64];
    if (written)
        return false;
    snprintf(text, sizeof text, "%s; training goes on, and the next save tries again",
             failure->text);
    observer->warning(observer->context, text);
    t->failed_writes++;
    t->failure = *failure;
    return true;
}

/* What it means that the state has not been written for some time. */
static bool unsaved(const struct trainer *t, struct error *error) {
    const struct train_state *s = &t->state;
    return error_set(error, STATUS_FAILURE,
                     "THIS RUN IS NOT BEING SAVED: the last %d times that %s was to be written it "
                     "could not be, and all since its last save would be lost (now: epoch %lld "
                     "after step %lld); free space there, or stop the run: %.3000s",
                     t->unsaved, t->settings.last, (long long)s->epoch, (long long)s->step,
                     t->last_failure.text);
}

/* Writes what has changed: the state first, since it holds the best network, too, so that whatever
 * happens between the two can be made good. */
static void save(struct trainer *t, const struct train_observer *observer) {
    const double began = clock_seconds();
    struct error failure;
    if (t->last_waits || t->model_waits)
        observer->saving(observer->context);
    if (t->last_waits) {
        t->last_waits = waits(t, save_last(t, &failure), &failure, observer);
        if (t->last_waits)
            t->last_failure = failure;
        t->unsaved = t->last_waits ? t->unsaved + 1 : 0;
    }
    if (t->model_waits) {
        t->model_waits = waits(t, save_model(t, &failure), &failure, observer);
        if (!t->model_waits && metadata_remove(&t->last_about, TRAINER_UNTIL_MODEL) &&
            !t->last_waits) {
            /* the same state, which gives nothing up any more; if it cannot be written, no harm */
            t->settings.last_is_from = true;
            waits(t, save_last(t, &failure), &failure, observer);
            t->settings.last_is_from = false;
        }
    }
    t->save_seconds += clock_seconds() - began;
}

/* Saves on the way. Error: the state could not be saved for too long. */
static bool save_and_go_on(struct trainer *t, const struct train_observer *observer,
                           struct error *error) {
    save(t, observer);
    if (t->unsaved == 0 || t->unsaved % TOO_MANY_UNSAVED != 0)
        return true;
    unsaved(t, error);
    if (!t->settings.stop_if_unsaved)
        observer->warning(observer->context, error->text);
    return !t->settings.stop_if_unsaved;
}

static bool interrupted(const struct trainer *t, struct error *error) {
    const struct train_state *s = &t->state;
    if (t->last_waits)
        return error_set(error, STATUS_FAILURE,
                         "interrupted in epoch %lld after step %lld, and the training state could "
                         "not be saved: %s",
                         (long long)s->epoch, (long long)s->step, t->last_failure.text);
    return error_set(error, STATUS_INTERRUPTED,
                     "interrupted in epoch %lld after step %lld of %lld, and saved; go on with "
                     "--resume %s%s",
                     (long long)s->epoch, (long long)s->step, (long long)t->pass.steps,
                     t->settings.last, t->settings.also != NULL ? t->settings.also : "");
}

/* How a training ends whose last step has been taken. */
static bool finished(const struct trainer *t, struct error *error) {
    if (t->failed_writes == 0)
        return true;
    if (t->last_waits || t->model_waits)
        return error_set(error, STATUS_FAILURE,
                         "training is finished, but %s does not hold its end: %s",
                         t->model_waits ? t->settings.model : t->settings.last, t->failure.text);
    return error_set(error, STATUS_FAILURE,
                     "training is finished and its files are complete, but %d of the writes on "
                     "the way failed; the last one: %s",
                     t->failed_writes, t->failure.text);
}

/* ---- the loop ---- */

/* What happens every so many steps (0: never): whether it does after this one, and in how many. */
static bool is_due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

static int64_t steps_to(int64_t step, int64_t every) {
    return every > 0 ? every - step % every : INT64_MAX;
}

/* Queues the run of steps that begins at `first` and answers how long it is: no longer than to the
 * next log or save, so that they come when they should. */
static int64_t queue_run(struct trainer *t, int64_t first) {
    const int64_t to_stop =
        least(steps_to(first, t->settings.log_every), steps_to(first, t->settings.save_every));
    const int64_t count = least(least(t->run, to_stop), t->pass.steps - first);
    pass_run(&t->pass, first, count);
    return count;
}

/* Takes the steps of the state's epoch that are left. With an error, STATUS_INTERRUPTED among them,
 * the state is that of before, or the one that was saved. */
static bool take_steps(struct trainer *t, const struct train_observer *observer, double *total,
                       struct error *error) {
    const struct device_ops *op = t->device->ops;
    const int64_t steps = t->pass.steps, log_every = t->settings.log_every;
    const int epoch = (int)t->state.epoch;
    double running = t->state.running;
    *total = t->state.total;
    const double epoch_began = clock_seconds();

    begin_pass(t);
    const int64_t began_at = t->state.step;
    int64_t count, ahead = 0; /* steps in this run, and queued behind it */
    double began = clock_seconds();
    for (int64_t first = began_at; first < steps; first += count) {
        count = ahead > 0 ? ahead : queue_run(t, first);
        const int64_t done = first + count;
        /* nothing may be queued behind a step whose state is to be saved */
        const bool due = is_due(done, t->settings.save_every) || observer->stop(observer->context);
        ahead = t->device->runs_ahead && !due && done < steps ? queue_run(t, done) : 0;
        if (!op->losses(t->device, t->loader, t->losses, first - began_at, count, error))
            return false;
        for (int64_t i = 0; i < count; i++) {
            const double loss = (double)t->losses[i];
            if (!isfinite(loss))
                return diverged_in_step(t, first + i, loss, error);
            *total += loss * pass_batch(&t->pass, first + i);
            running += loss;
        }
        const int64_t since = (done - 1) % log_every + 1;
        const double now = clock_seconds(), seconds = now - began;
        const int64_t images = least(done * t->pass.whole.n, t->pass.images);
        const struct train_progress progress = {
            .epoch = epoch,
            .images = images,
            .images_per_second =
                (double)(images - began_at * t->pass.whole.n) / (now - epoch_began),
            .loss = running / (double)since,
        };
        observer->progress(observer->context, &progress);
        if (is_due(done, log_every)) {
            observer->step(observer->context, epoch, done, running / (double)log_every);
            running = 0;
        }
        if (ahead == 0 && done < steps && (due || observer->stop(observer->context))) {
            if (!take_state(t, epoch, done, *total, running, error))
                return false;
            const bool saved = save_and_go_on(t, observer, error);
            if (observer->stop(observer->context))
                return interrupted(t, error);
            if (!saved)
                return false;
        }
        began = clock_seconds();
        if (seconds < RUN_SECONDS / 2 && count == t->run)
            t->run *= 2;
        else if (seconds > RUN_SECONDS * 2 && t->run > 1)
            t->run /= 2;
    }
    return true;
}

static bool train_epoch(struct trainer *t, const struct train_observer *observer,
                        struct error *error) {
    const int64_t left = t->pass.images - t->state.step * t->pass.whole.n;
    struct train_epoch report = {.epoch = (int)t->state.epoch};
    const double began = clock_seconds();
    const double saving = t->save_seconds;
    double total;
    if (!take_steps(t, observer, &total, error))
        return false;
    report.train_loss = total / (double)t->pass.images;
    report.train_seconds = clock_seconds() - began - (t->save_seconds - saving);
    report.images_per_second = (double)left / report.train_seconds;

    if (!evaluate(&t->evaluator, &report.test, error))
        return false;
    if (!isfinite(report.test.loss))
        return diverged_in_test(t, report.test.loss, error);
    if (!take_state(t, t->state.epoch + 1, 0, 0, 0, error))
        return false;
    struct train_best *best = &t->state.best;
    const double accuracy = evaluation_accuracy(&report.test);
    report.best = best->epoch == 0 || accuracy > best->accuracy;
    if (report.best) {
        network_state_copy(&best->network, &t->state.network);
        best->epoch = report.epoch;
        best->accuracy = accuracy;
        best->loss = report.test.loss;
        t->model_waits = true;
    }
    observer->epoch(observer->context, &report);
    return save_and_go_on(t, observer, error);
}

bool train(struct trainer *t, const struct train_observer *observer, struct error *error) {
    put_state(t);
    t->last_waits = true;
    if (!save_and_go_on(t, observer, error))
        return false;
    while (t->state.epoch <= t->settings.epochs) {
        if (observer->stop(observer->context))
            return interrupted(t, error);
        if (!train_epoch(t, observer, error))
            return false;
    }
    save(t, observer); /* what still waits */
    return finished(t, error);
}
