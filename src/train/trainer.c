#include "train/trainer.h"

#include "base/clock.h"
#include "base/memory.h"
#include "net/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Images in a batch of the evaluation after each epoch: work for every core, and little memory
 * (scripts/pytorch/bench.py has PyTorch evaluate as many at once). */
enum { EVALUATION_BATCH = 100 };

/* Steps are queued in runs that last about so many seconds, so that progress shows; a device that
 * works on its own has the next run queued before the losses of one are waited for. */
static const double RUN_SECONDS = 0.05;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void trainer_init(struct trainer *t, struct device *device, const struct train_settings *settings,
                  const struct cifar10 *train, const struct cifar10 *test,
                  const struct metadata *about) {
    const struct device_ops *op = device->ops;
    const size_t parameters = network_plan()->parameters;
    const int batch = (int)least(settings->batch, train->count);
    const int evaluation = (int)least(EVALUATION_BATCH, test->count);
    *t = (struct trainer){.settings = *settings, .about = *about, .device = device, .run = 1};

    network_state_new(&t->state);
    random_seed(&t->random, settings->seed);
    network_init(&t->state, &t->random);
    t->network = network_new(device, batch > evaluation ? batch : evaluation);
    network_upload(t->network, &t->state);

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

    metadata_set(&t->about, "seed", "%llu", (unsigned long long)settings->seed);
    metadata_set(&t->about, "epochs", "%d", settings->epochs);
    metadata_set(&t->about, "batch", "%d", batch);
    metadata_set(&t->about, "lr", "%.9g", settings->lr);
    metadata_set(&t->about, "weight_decay", "%.9g", settings->weight_decay);
    metadata_set(&t->about, "train_images", "%lld", (long long)train->count);
    metadata_set(&t->about, "test_images", "%lld", (long long)test->count);
}

void trainer_free(struct trainer *t) {
    evaluator_free(&t->evaluator);
    network_free(t->network);
    network_state_free(&t->state);
    free(t->order);
    free(t->losses);
}

/* `what` is the loss of a step, say, and `value` what it has become. */
static bool diverged(const struct trainer *t, int epoch, const char *what, double value,
                     struct error *error) {
    char kept[512] = "no checkpoint had been saved yet";
    if (t->best_epoch > 0)
        snprintf(kept, sizeof kept, "%.300s still holds epoch %d with %.2f %%", t->settings.model,
                 t->best_epoch, t->best_accuracy);
    return error_set(error, STATUS_DIVERGED,
                     "epoch %d: %s is %s: no longer a finite number; training stops and %s; a "
                     "smaller --lr (now %g) or another --seed usually helps",
                     epoch, what, isnan(value) ? "NaN" : "infinite", kept, t->settings.lr);
}

/* Queues the run of steps that begins at `first` and answers how long it is: no longer than to the
 * next log, so that logs come when they should. */
static int64_t queue_run(struct trainer *t, int64_t first) {
    const int64_t to_log = t->settings.log_every - first % t->settings.log_every;
    const int64_t count = least(least(t->run, to_log), t->pass.steps - first);
    pass_run(&t->pass, first, count);
    return count;
}

/* The training of one epoch; its mean loss goes to *mean. */
static bool train_epoch(struct trainer *t, int epoch, const struct train_observer *observer,
                        double *mean, struct error *error) {
    const struct device_ops *op = t->device->ops;
    const int64_t steps = t->pass.steps, log_every = t->settings.log_every;
    double total = 0;   /* of the loss, over images */
    double running = 0; /* of the loss, over the steps since the last log */
    const double epoch_began = clock_seconds();

    random_permutation(&t->random, t->order, (uint32_t)t->pass.images);
    op->loader_rewind(t->device, t->loader, t->order, t->pass.images);
    int64_t count, ahead = 0; /* steps in this run, and queued behind it */
    double began = clock_seconds();
    for (int64_t first = 0; first < steps; first += count) {
        count = ahead > 0 ? ahead : queue_run(t, first);
        ahead = t->device->runs_ahead && first + count < steps ? queue_run(t, first + count) : 0;
        if (!op->losses(t->device, t->loader, t->losses, first, count, error))
            return false;
        for (int64_t i = 0; i < count; i++) {
            const double loss = (double)t->losses[i];
            if (!isfinite(loss)) {
                char what[64];
                snprintf(what, sizeof what, "the loss of step %lld", (long long)(first + i + 1));
                return diverged(t, epoch, what, loss, error);
            }
            total += loss * pass_batch(&t->pass, first + i);
            running += loss;
        }
        const int64_t done = first + count, since = (done - 1) % log_every + 1;
        const struct train_progress progress = {
            .epoch = epoch,
            .images = least(done * t->pass.whole.n, t->pass.images),
            .seconds = clock_seconds() - epoch_began,
            .loss = running / (double)since,
        };
        observer->progress(observer->context, &progress);
        if (done % log_every == 0) {
            if (!observer->step(observer->context, epoch, done, running / (double)log_every, error))
                return false;
            running = 0;
        }
        const double now = clock_seconds(), seconds = now - began;
        began = now;
        if (seconds < RUN_SECONDS / 2 && count == t->run)
            t->run *= 2;
        else if (seconds > RUN_SECONDS * 2 && t->run > 1)
            t->run /= 2;
    }
    t->state.batches += steps;
    *mean = total / (double)t->pass.images;
    return true;
}

/* A loss can stay finite while a running variance overflows. No checkpoint may hold that. */
static bool check_state(const struct trainer *t, int epoch, struct error *error) {
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        const float *data = network_tensor_data(&t->state, tensor);
        for (size_t j = 0; data != NULL && j < tensor->count; j++)
            if (!isfinite(data[j]))
                return diverged(t, epoch, tensor->name, (double)data[j], error);
    }
    return true;
}

static bool save(struct trainer *t, const struct train_epoch *report, struct error *error) {
    metadata_set(&t->about, "epoch", "%d", report->epoch);
    metadata_set(&t->about, "test_accuracy", "%.2f", evaluation_accuracy(&report->test));
    metadata_set(&t->about, "test_loss", "%.6f", report->test.loss);
    return network_download(t->network, &t->state, error) && check_state(t, report->epoch, error) &&
           checkpoint_save(t->settings.model, &t->state, &t->about, error);
}

bool train(struct trainer *t, const struct train_observer *observer, struct error *error) {
    for (int epoch = 1; epoch <= t->settings.epochs; epoch++) {
        struct train_epoch report = {.epoch = epoch};
        const double began = clock_seconds();
        if (!train_epoch(t, epoch, observer, &report.train_loss, error))
            return false;
        report.train_seconds = clock_seconds() - began;
        report.images_per_second = (double)t->pass.images / report.train_seconds;

        if (!evaluate(&t->evaluator, &report.test, error))
            return false;
        if (!isfinite(report.test.loss))
            return diverged(t, epoch, "the loss on the test images", report.test.loss, error);
        const double accuracy = evaluation_accuracy(&report.test);
        report.best = t->best_epoch == 0 || accuracy > t->best_accuracy;
        if (report.best) {
            if (!save(t, &report, error))
                return false;
            t->best_epoch = epoch;
            t->best_accuracy = accuracy;
        }
        if (!observer->epoch(observer->context, &report, error))
            return false;
    }
    return true;
}
