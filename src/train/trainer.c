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

void trainer_init(struct trainer *t, struct device *device, const struct train_settings *settings,
                  const struct train_data *data, const struct network_state *init,
                  const struct metadata *model_about, const struct metadata *last_about,
                  struct train_state *from) {
    const bool validates = data->validation.images != NULL;
    const struct resident *judged = validates ? &data->validation : &data->test;
    const int batch = (int)least(EVALUATION_BATCH, judged->images->count);
    const int last = (int)least(EVALUATION_BATCH, data->test.images->count);
    const struct learner_settings learner = {.recipe = settings->recipe,
                                             .capacity = batch > last ? batch : last,
                                             .seed = settings->seed,
                                             .init = init};
    *t = (struct trainer){.settings = *settings, .at_once = 1, .validates = validates};
    t->model_about = *model_about;
    t->last_about = *last_about;

    learner_init(&t->learner, device, &data->train, &learner, from);
    train_state_new(&t->room);
    t->room.averaged = t->learner.state.averaged;
    network_state_new(&t->average);
    t->model_waits = t->learner.state.best.epoch > 0;
    evaluator_init(&t->judge, t->learner.network, judged, batch);
    if (validates)
        evaluator_init(&t->test, t->learner.network, &data->test, last);
    t->losses = memory_new((size_t)t->learner.steps.count, sizeof *t->losses);
}

void trainer_free(struct trainer *t) {
    evaluator_free(&t->judge);
    evaluator_free(&t->test);
    learner_free(&t->learner);
    train_state_free(&t->room);
    network_state_free(&t->average);
    free(t->losses);
}

/* ---- the average ---- */

/* Puts the network that is judged in the place of the one that learns, which goes to `room`. */
static bool put_judged(struct trainer *t, struct error *error) {
    struct learner *l = &t->learner;
    if (!learner_averages(l))
        return true;
    if (!learner_take(l, &t->room, error))
        return false;
    learner_put_average(l, t->room.average);
    t->average.batches = l->state.epoch * l->steps.count;
    return network_download(l->network, &t->average, error);
}

/* And back. */
static void put_learning(struct trainer *t) {
    if (learner_averages(&t->learner))
        network_upload(t->learner.network, &t->room.network);
}

/* Which of an epoch's two networks was judged. */
static const struct network_state *judged_network(const struct trainer *t) {
    return learner_averages(&t->learner) ? &t->average : &t->learner.state.network;
}

/* ---- numbers that are no longer finite ---- */

/* `what` is the loss of a step, say, `value` what it has become. */
static bool diverged(const struct trainer *t, const char *what, double value,
                     const struct divergence *first, struct error *error) {
    char kept[512] = "no checkpoint had been saved yet";
    if (t->learner.state.best.epoch > 0 && !t->model_waits)
        snprintf(kept, sizeof kept, "%.300s still holds epoch %lld with %.2f %%", t->settings.model,
                 (long long)t->learner.state.best.epoch, t->learner.state.best.accuracy);
    const struct recipe *recipe = &t->settings.recipe;
    char muon[64] = "";
    if (recipe->optimizer == OPTIMIZER_MUON)
        snprintf(muon, sizeof muon, ", --muon-lr (now %g)", recipe->muon_lr);
    return error_set(error, STATUS_DIVERGED,
                     "epoch %lld: %s is %s: no longer a finite number%s; training stops and %s; a "
                     "smaller --lr (now %g)%s or --weight-decay (now %g) or another --seed usually "
                     "helps",
                     (long long)t->learner.state.epoch, what, divergence_word(value), first->text,
                     kept, recipe->lr, muon, recipe->weight_decay);
}

/* The loss of step number `step` (from 0) is not finite. */
static bool diverged_in_step(struct trainer *t, int64_t step, double loss, struct error *error) {
    struct learner *l = &t->learner;
    struct divergence first;
    char what[64];
    snprintf(what, sizeof what, "the loss of step %lld", (long long)step + 1);
    return divergence_of_numbers(&first, l, step, &t->room, error) &&
           divergence_of_layers(&first, l->network, &l->steps, true, step, error) &&
           diverged(t, what, loss, &first, error);
}

/* The mean loss on the images that the epoch was judged on is not finite, after its last step. */
static bool diverged_in_judgement(struct trainer *t, double loss, struct error *error) {
    struct divergence first;
    struct evaluator *e = &t->judge;
    int64_t step = 0;
    while (step + 1 < e->steps.count && isfinite(e->losses[step]))
        step++;
    if (!divergence_of_numbers(&first, &t->learner, t->learner.steps.count, &t->room, error) ||
        !put_judged(t, error))
        return false;
    steps_begin(&e->steps, e->views, NULL, step, 0);
    return divergence_of_layers(&first, t->learner.network, &e->steps, false, step, error) &&
           diverged(t,
                    t->validates ? "the loss on the validation images"
                                 : "the loss on the test images",
                    loss, &first, error);
}

/* The loss of an average can stay finite while its running variance overflows. */
static bool check_average(struct trainer *t, struct error *error) {
    struct safetensors_tensor list[NETWORK_TENSORS];
    struct divergence first;
    size_t element;
    double value;
    if (!learner_averages(&t->learner))
        return true;
    checkpoint_list(list, &t->average, "");
    const int wrong = checkpoint_find_wrong(list, NETWORK_TENSORS, &element, &value);
    return wrong < 0 ||
           (divergence_of_numbers(&first, &t->learner, t->learner.steps.count, &t->room, error) &&
            diverged(t, list[wrong].name, value, &first, error));
}

/* ---- the state ---- */

static void swap_numbers(struct train_state *a, struct train_state *b) {
    const struct train_state was = *a;
    a->network = b->network;
    a->average = b->average;
    a->exp_avg = b->exp_avg;
    a->exp_avg_sq = b->exp_avg_sq;
    b->network = was.network;
    b->average = was.average;
    b->exp_avg = was.exp_avg;
    b->exp_avg_sq = was.exp_avg_sq;
}

/* Makes what is on the device the state, in `epoch` after `step` steps. A loss can stay finite
 * while a running variance overflows: no file may hold that. */
static bool take_state(struct trainer *t, int64_t epoch, int64_t step, double total, double running,
                       struct error *error) {
    struct train_state *s = &t->learner.state;
    const int64_t steps = t->learner.steps.count;
    char tensor[SAFETENSORS_NAME];
    struct divergence first;
    double value;
    if (!learner_take(&t->learner, &t->room, error))
        return false;
    if (train_state_is_wrong(&t->room, tensor, &value))
        return divergence_of_numbers(&first, &t->learner, step > 0 ? step : steps, &t->room,
                                     error) &&
               diverged(t, tensor, value, &first, error);
    swap_numbers(s, &t->room);
    if (epoch != s->epoch)
        s->random = t->learner.drawn;
    s->epoch = epoch;
    s->step = step;
    s->total = total;
    s->running = running;
    s->steps = s->network.batches = (epoch - 1) * steps + step;
    t->last_waits = true;
    return true;
}

/* ---- files ---- */

static bool save_last(struct trainer *t, struct error *error) {
    const struct train_state *s = &t->learner.state;
    if (s->step > 0)
        metadata_set(&t->last_about, "epoch", "%lld (step %lld of %lld)", (long long)s->epoch,
                     (long long)s->step, (long long)t->learner.steps.count);
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
    const struct train_best *best = &t->learner.state.best;
    struct metadata *about = &t->model_about;
    metadata_set(about, "epoch", "%lld", (long long)best->epoch);
    metadata_set(about, t->validates ? "validation_accuracy" : "test_accuracy", "%.2f",
                 best->accuracy);
    metadata_set(about, t->validates ? "validation_loss" : "test_loss", "%.6f", best->loss);
    if (t->tested.images > 0) {
        metadata_set(about, "test_accuracy", "%.2f", evaluation_accuracy(&t->tested));
        metadata_set(about, "test_loss", "%.6f", t->tested.loss);
    }
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
    const struct train_state *s = &t->learner.state;
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
    const struct train_state *s = &t->learner.state;
    if (t->last_waits)
        return error_set(error, STATUS_FAILURE,
                         "interrupted in epoch %lld after step %lld, and the training state could "
                         "not be saved: %s",
                         (long long)s->epoch, (long long)s->step, t->last_failure.text);
    return error_set(error, STATUS_INTERRUPTED,
                     "interrupted in epoch %lld after step %lld of %lld, and saved; go on with "
                     "--resume %s%s",
                     (long long)s->epoch, (long long)s->step, (long long)t->learner.steps.count,
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
    const int64_t count = least(least(t->at_once, to_stop), t->learner.steps.count - first);
    steps_run(&t->learner.steps, first, count);
    return count;
}

/* Takes the steps of the state's epoch that are left. With an error, STATUS_INTERRUPTED among them,
 * the state is that of before, or the one that was saved. */
static bool take_steps(struct trainer *t, const struct train_observer *observer, double *total,
                       struct error *error) {
    const struct steps *of = &t->learner.steps;
    const int64_t steps = of->count, log_every = t->settings.log_every;
    const int epoch = (int)t->learner.state.epoch;
    double running = t->learner.state.running;
    *total = t->learner.state.total;
    const double epoch_began = clock_seconds();

    learner_begin(&t->learner);
    const int64_t began_at = t->learner.state.step;
    int64_t count, ahead = 0; /* steps in this run, and queued behind it */
    double began = clock_seconds();
    for (int64_t first = began_at; first < steps; first += count) {
        count = ahead > 0 ? ahead : queue_run(t, first);
        const int64_t done = first + count;
        /* nothing may be queued behind a step whose state is to be saved */
        const bool due = is_due(done, t->settings.save_every) || observer->stop(observer->context);
        ahead = t->learner.device->runs_ahead && !due && done < steps ? queue_run(t, done) : 0;
        if (!steps_losses(of, t->losses, first, count, error))
            return false;
        for (int64_t i = 0; i < count; i++) {
            const double loss = (double)t->losses[i];
            if (!isfinite(loss))
                return diverged_in_step(t, first + i, loss, error);
            *total += loss * steps_batch(of, first + i);
            running += loss;
        }
        const int64_t since = (done - 1) % log_every + 1;
        const double now = clock_seconds(), seconds = now - began;
        const int64_t images = least(done * of->batch, of->images);
        const struct train_progress progress = {
            .epoch = epoch,
            .images = images,
            .images_per_second = (double)(images - began_at * of->batch) / (now - epoch_began),
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
        if (seconds < RUN_SECONDS / 2 && count == t->at_once)
            t->at_once *= 2;
        else if (seconds > RUN_SECONDS * 2 && t->at_once > 1)
            t->at_once /= 2;
    }
    return true;
}

static bool train_epoch(struct trainer *t, const struct train_observer *observer,
                        struct error *error) {
    const struct steps *of = &t->learner.steps;
    const int64_t left = of->images - t->learner.state.step * of->batch;
    struct train_epoch report = {.epoch = (int)t->learner.state.epoch};
    const double began = clock_seconds();
    const double saving = t->save_seconds;
    double total;
    if (!take_steps(t, observer, &total, error))
        return false;
    report.train_loss = total / (double)of->images;
    report.train_seconds = clock_seconds() - began - (t->save_seconds - saving);
    report.images_per_second = (double)left / report.train_seconds;
    report.lr = t->settings.recipe.lr * t->learner.schedule[of->count - 1];

    const double judging = clock_seconds();
    if (!put_judged(t, error) || !evaluate(&t->judge, &report.judged, error))
        return false;
    report.judged.seconds = clock_seconds() - judging;
    if (!isfinite(report.judged.loss))
        return diverged_in_judgement(t, report.judged.loss, error);
    if (!check_average(t, error))
        return false;
    put_learning(t);
    if (!take_state(t, t->learner.state.epoch + 1, 0, 0, 0, error))
        return false;
    struct train_best *best = &t->learner.state.best;
    const double accuracy = evaluation_accuracy(&report.judged);
    report.chosen =
        best->epoch == 0 || accuracy > best->accuracy || t->settings.recipe.select == SELECT_LAST;
    if (report.chosen) {
        network_state_copy(&best->network, judged_network(t));
        best->epoch = report.epoch;
        best->accuracy = accuracy;
        best->loss = report.judged.loss;
        t->model_waits = true;
    }
    observer->epoch(observer->context, &report);
    return save_and_go_on(t, observer, error);
}

/* Judges the chosen network on the test images, at the end of a run. */
static bool test(struct trainer *t, const struct train_observer *observer, struct error *error) {
    network_upload(t->learner.network, &t->learner.state.best.network);
    if (!evaluate(&t->test, &t->tested, error))
        return false;
    if (!isfinite(t->tested.loss))
        return error_set(
            error, STATUS_DIVERGED,
            "epoch %lld: its network is the run's result, but its loss on the test images is %s",
            (long long)t->learner.state.best.epoch, divergence_word(t->tested.loss));
    t->model_waits = true;
    observer->test(observer->context, &t->tested);
    return true;
}

bool train(struct trainer *t, const struct train_observer *observer, struct error *error) {
    learner_put(&t->learner);
    t->last_waits = true;
    if (!save_and_go_on(t, observer, error))
        return false;
    while (t->learner.state.epoch <= t->settings.recipe.epochs) {
        if (observer->stop(observer->context))
            return interrupted(t, error);
        if (!train_epoch(t, observer, error))
            return false;
    }
    if (t->validates) {
        save(t, observer); /* a test that fails does not keep what waits from being written */
        if (!test(t, observer, error))
            return false;
    }
    save(t, observer); /* what still waits */
    return finished(t, error);
}
