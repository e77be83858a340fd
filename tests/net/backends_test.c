/* The same training on every backend: step by step it is that of `openblas`. */
#include "data/synth.h"
#include "device/harness.h"
#include "train/evaluate.h"
#include "train/learner.h"

#include <math.h>

enum { IMAGES = 196, BATCH = 10, STEPS = 20 }; /* the last one of 6 images */

/* What a training leaves. */
struct trace {
    float losses[STEPS];
    float *gradients;  /* of the first step, [parameters] */
    double evaluation; /* the loss of the last network, with running statistics */
};

static struct trace trace_of(struct device *d, const struct cifar10 *images) {
    const size_t parameters = network_plan()->parameters;
    const struct learner_settings settings = {.batch = BATCH, .lr = 1e-3, .weight_decay = 1e-4};
    const struct resident data = resident_new(d, images);
    struct trace trace = {.gradients = row_new(parameters, sizeof(float))};
    struct learner learner;
    struct evaluator evaluator;
    struct evaluation evaluation;
    struct error error;
    learner_init(&learner, d, &data, &settings, NULL);
    evaluator_init(&evaluator, learner.network, &data, BATCH);
    learner_put(&learner);
    learner_begin(&learner);
    steps_run(&learner.steps, 0, 1);
    must(d->ops->download(d, trace.gradients, (struct slice){network_gradients(learner.network), 0},
                          parameters, &error),
         &error);
    steps_run(&learner.steps, 1, STEPS - 1);
    must(steps_losses(&learner.steps, trace.losses, 0, STEPS, &error), &error);
    must(evaluate(&evaluator, &evaluation, &error), &error);
    trace.evaluation = evaluation.loss;
    evaluator_free(&evaluator);
    learner_free(&learner);
    return trace;
}

/* The first losses agree to rounding; later ones drift apart as Adam makes whole steps of the
 * rounding of gradients near 0: `openblas` with its kernels for one processor and for another
 * differs by up to 1e-2 within 20 steps (OPENBLAS_CORETYPE=Nehalem and Haswell, in 4 of 8 seeds). A
 * convolution's bias has such a gradient always, since the batch normalisation behind it takes the
 * bias away: it is not compared. */
static void training_is_that_of_openblas(void **state) {
    struct device *reference;
    struct cifar10 images;
    struct error error;
    must(device_open(&reference, "openblas", &(struct device_options){.threads = 2}, &error),
         &error);
    synth_draw(&images, CIFAR10_TRAIN, IMAGES, 0);
    const struct trace want = trace_of(reference, &images), got = trace_of(*state, &images);
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        const bool is_conv_bias = tensor->rank == 1 && i > 0 && tensor[-1].rank == 4;
        if (tensor->kind == PARAMETER && !is_conv_bias)
            check("gradient", tensor->name, doubles(got.gradients + tensor->offset, tensor->count),
                  doubles(want.gradients + tensor->offset, tensor->count), tensor->count, 1e-4);
    }
    for (int i = 0; i < STEPS; i++) {
        const double difference = fabs((double)got.losses[i] - (double)want.losses[i]);
        const double allowed = i < 10 ? 1e-5 : 2e-2;
        if (!(difference <= allowed * (double)want.losses[i]))
            fail_msg("step %d: loss %.7g instead of %.7g", i + 1, (double)got.losses[i],
                     (double)want.losses[i]);
    }
    if (!(fabs(got.evaluation - want.evaluation) <= 2e-2 * want.evaluation))
        fail_msg("evaluation: loss %.7g instead of %.7g", got.evaluation, want.evaluation);
    cifar10_free(&images);
    reference->ops->close(reference);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(training_is_that_of_openblas),
    };
    return test_backends(tests, COUNT(tests));
}
