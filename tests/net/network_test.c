/* The network against PyTorch: golden values written by scripts/pytorch/make_golden.py. */
#include "base/memory.h"
#include "data/synth.h"
#include "net/checkpoint.h"
#include "train/learner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 10, IMAGES = 32 };

static void open_golden(struct safetensors *file, const char *name) {
    char path[512];
    struct error error;
    snprintf(path, sizeof path, "%s/%s", GOLDEN, name);
    if (!safetensors_load(file, path, &error))
        fail_msg("%s", error.text);
}

static const struct safetensors_tensor *golden(const struct safetensors *file, const char *prefix,
                                               const char *name) {
    char wanted[128];
    snprintf(wanted, sizeof wanted, "%s%s", prefix, name);
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, wanted) == 0)
            return &file->tensors[i];
    fail_msg("no golden %s", wanted);
    return NULL;
}

/* Element i of a golden tensor. */
static float element(const struct safetensors_tensor *tensor, size_t i) {
    float value;
    assert_true(i < tensor->size / sizeof value);
    memcpy(&value, (const char *)tensor->data + i * sizeof value, sizeof value);
    return value;
}

/* Every how manieth element of a tensor the golden files hold. */
static size_t stride_of(size_t count) {
    return count > 1024 ? 7 : 1;
}

/* ||found - expected|| / ||expected||, over the elements that the golden tensor holds. */
static double distance(const float *found, size_t count,
                       const struct safetensors_tensor *expected) {
    const size_t stride = stride_of(count);
    double difference = 0, norm = 0;
    assert_int_equal((count + stride - 1) / stride, expected->size / sizeof(float));
    for (size_t i = 0; i * stride < count; i++) {
        const double e = (double)element(expected, i), f = (double)found[i * stride];
        difference += (f - e) * (f - e);
        norm += e * e;
    }
    return sqrt(difference / norm);
}

static void assert_close(const float *found, size_t count, const struct safetensors *file,
                         const char *prefix, const char *name, double tolerance) {
    const double d = distance(found, count, golden(file, prefix, name));
    if (!(d <= tolerance))
        fail_msg("%s%s differs by %.2e, more than %.0e", prefix, name, d, tolerance);
}

/* ---- a network on a device, with synthetic images ---- */

/* In the order in which they lie, in training and in evaluation. */
struct bench {
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    struct network_state *state; /* the learner's */
    struct steps evaluation;
};

static const double NO_RATE[IMAGES] = {0};

static void bench_open(struct bench *b, uint64_t seed) {
    struct error error;
    const struct device_options options = {.threads = 2};
    const struct learner_settings settings = {.recipe = {.batch = BATCH}, .seed = seed};
    assert_true(device_open(&b->device, "openblas", &options, &error));
    synth_draw(&b->images, CIFAR10_TRAIN, IMAGES, 0);
    const struct resident data = resident_new(b->device, &b->images);
    learner_init(&b->learner, b->device, &data, &settings, NULL);
    b->state = &b->learner.state.network;
    steps_init(&b->evaluation, b->learner.network, &data, NULL, BATCH);
    learner_put(&b->learner);
}

static void bench_close(struct bench *b) {
    learner_free(&b->learner);
    b->device->ops->close(b->device);
    cifar10_free(&b->images);
}

static const struct steps *steps_of(const struct bench *b, bool training) {
    return training ? &b->learner.steps : &b->evaluation;
}

/* Begins a pass from that step on. */
static void begin(struct bench *b, bool training, int64_t step) {
    struct view views[IMAGES] = {{0}};
    for (uint32_t i = 0; i < IMAGES; i++)
        views[i].image = i;
    steps_begin(training ? &b->learner.steps : &b->evaluation, views, NO_RATE, step, 0);
}

/* A step over the first batch, which in training changes the statistics alone; its loss. */
static float step_over(struct bench *b, bool training) {
    struct error error;
    float loss;
    begin(b, training, 0);
    steps_run(steps_of(b, training), 0, 1);
    assert_true(steps_losses(steps_of(b, training), &loss, 0, 1, &error));
    return loss;
}

static void take_logits(struct bench *b, bool training, float *logits, int64_t n) {
    struct error error;
    assert_true(steps_logits(steps_of(b, training), logits, n, &error));
}

static void assert_logits(struct bench *b, bool training, const struct safetensors *file,
                          const char *name) {
    float logits[BATCH * NETWORK_CLASSES];
    const struct safetensors_tensor *expected = golden(file, "", name);
    take_logits(b, training, logits, BATCH);
    for (size_t i = 0; i < BATCH * NETWORK_CLASSES; i++)
        if (!(fabsf(logits[i] - element(expected, i)) < 1e-4F))
            fail_msg("%s: logit %zu is %g instead of %g", name, i, (double)logits[i],
                     (double)element(expected, i));
}

/* ---- tests ---- */

static void plan_is_the_tutorials(void **unused) {
    (void)unused;
    static const struct {
        const char *name;
        int rank, shape[4];
    } EXPECTED[] = {
        {"conv1.weight", 4, {12, 3, 5, 5}},
        {"conv1.bias", 1, {12}},
        {"conv2.weight", 4, {12, 12, 5, 5}},
        {"conv4.weight", 4, {24, 12, 5, 5}},
        {"conv5.weight", 4, {24, 24, 5, 5}},
        {"bn5.running_var", 1, {24}},
        {"bn5.num_batches_tracked", 0, {0}},
        {"fc1.weight", 2, {10, 2400}},
        {"fc1.bias", 1, {10}},
    };
    const struct network_plan *plan = network_plan();
    assert_int_equal(plan->parameters, 50326);
    assert_int_equal(plan->statistics, 2 * (12 + 12 + 24 + 24));
    for (size_t i = 0; i < sizeof EXPECTED / sizeof *EXPECTED; i++) {
        int j = 0;
        while (j < NETWORK_TENSORS && strcmp(plan->tensors[j].name, EXPECTED[i].name) != 0)
            j++;
        assert_true(j < NETWORK_TENSORS);
        assert_int_equal(plan->tensors[j].rank, EXPECTED[i].rank);
        for (int k = 0; k < EXPECTED[i].rank; k++)
            assert_int_equal(plan->tensors[j].shape[k], EXPECTED[i].shape[k]);
    }
}

static void seed_draws_pytorchs_weights_and_order(void **unused) {
    (void)unused;
    static const uint64_t SEEDS[] = {0, 7};
    for (int s = 0; s < 2; s++) {
        char name[64];
        struct safetensors file;
        struct network_state state;
        struct random random;
        snprintf(name, sizeof name, "seed%d.safetensors", (int)SEEDS[s]);
        open_golden(&file, name);
        network_state_new(&state);
        random_seed(&random, SEEDS[s]);
        state.batches = 9; /* of what was in it before, nothing may stay */
        network_init(&state, &random);
        assert_int_equal(state.batches, 0);
        for (int i = 0; i < NETWORK_TENSORS; i++) {
            const struct network_tensor *tensor = &network_plan()->tensors[i];
            if (tensor->kind != PARAMETER)
                continue;
            const struct safetensors_tensor *expected = golden(&file, "", tensor->name);
            const float *found = network_tensor_data(&state, tensor);
            const size_t stride = stride_of(tensor->count);
            for (size_t j = 0; j * stride < tensor->count; j++) {
                const float e = element(expected, j), f = found[j * stride];
                if (f != e)
                    fail_msg("seed %d, %s, element %zu: %.9g instead of %.9g", (int)SEEDS[s],
                             tensor->name, j * stride, (double)f, (double)e);
            }
        }
        static const char *const ORDERS[] = {"order1", "order2"};
        for (int epoch = 0; epoch < 2; epoch++) {
            const struct safetensors_tensor *expected = golden(&file, "", ORDERS[epoch]);
            uint32_t order[1000];
            assert_int_equal(expected->size, sizeof order);
            random_permutation(&random, order, 1000);
            assert_memory_equal(order, expected->data, sizeof order);
        }
        network_state_free(&state);
        safetensors_free(&file);
    }
}

static void forward_and_backward_are_pytorchs(void **unused) {
    (void)unused;
    struct safetensors file;
    struct bench b;
    struct error error;
    const struct network_plan *plan = network_plan();
    open_golden(&file, "step.safetensors");
    bench_open(&b, 0);

    step_over(&b, false);
    assert_logits(&b, false, &file, "logits_evaluation");

    const float loss = step_over(&b, true);
    const float expected = element(golden(&file, "", "loss"), 0);
    assert_true(fabsf(loss - expected) <= 1e-6F * expected);
    assert_logits(&b, true, &file, "logits_training");

    float *gradients = memory_new(plan->parameters, sizeof *gradients);
    assert_true(b.device->ops->download(b.device, gradients,
                                        (struct slice){network_gradients(b.learner.network), 0},
                                        plan->parameters, &error));
    assert_true(learner_take(&b.learner, &b.learner.state, &error));
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &plan->tensors[i];
        const bool before_norm = strncmp(tensor->name, "conv", 4) == 0 && tensor->rank == 1;
        if (tensor->kind == STATISTIC)
            assert_close(network_tensor_data(b.state, tensor), tensor->count, &file, "",
                         tensor->name, 1e-6);
        else if (tensor->kind == PARAMETER && !before_norm)
            assert_close(gradients + tensor->offset, tensor->count, &file, "gradient.",
                         tensor->name, 1e-5);
        else if (tensor->kind == PARAMETER)
            /* the true gradient of a bias in front of a batch normalisation is 0; what comes out
             * is rounding in either program */
            for (size_t j = 0; j < tensor->count; j++)
                assert_true(fabsf(gradients[tensor->offset + j]) < 1e-6F);
    }
    free(gradients);
    bench_close(&b);
    safetensors_free(&file);
}

static void pytorchs_checkpoint_gives_pytorchs_logits(void **unused) {
    (void)unused;
    struct safetensors file;
    struct bench b;
    struct error error;
    open_golden(&file, "step.safetensors");
    bench_open(&b, 1);
    if (!checkpoint_load(GOLDEN "/after3.safetensors", b.state, NULL, &error))
        fail_msg("%s", error.text);
    assert_int_equal(b.state->batches, 3);
    learner_put(&b.learner);
    step_over(&b, false);
    assert_logits(&b, false, &file, "logits_after");
    bench_close(&b);
    safetensors_free(&file);
}

/* The last batch of a pass is smaller: the same images alone, which is all that a network with a
 * capacity of so many has room for, come to the same. */
static void smaller_batch_is_the_same_as_a_small_network(void **unused) {
    (void)unused;
    enum { REST = IMAGES % BATCH };
    struct bench b;
    float whole[IMAGES * NETWORK_CLASSES], part[REST * NETWORK_CLASSES];
    const struct device_options options = {.threads = 2};
    struct device *small_device;
    struct error error;
    bench_open(&b, 0);
    begin(&b, false, 0);
    steps_run(&b.evaluation, 0, b.evaluation.count);
    take_logits(&b, false, whole, IMAGES);

    assert_true(device_open(&small_device, "openblas", &options, &error));
    struct network *small = network_new(small_device, REST);
    const struct cifar10 rest = {b.images.records + (IMAGES - REST) * CIFAR10_RECORD, REST,
                                 CIFAR10_CLASSES};
    const struct resident data = resident_new(small_device, &rest);
    struct steps steps;
    network_upload(small, b.state);
    steps_init(&steps, small, &data, NULL, REST);
    steps_begin(&steps, (struct view[]){{.image = 0}, {.image = 1}}, NULL, 0, 0);
    steps_run(&steps, 0, 1);
    assert_true(steps_logits(&steps, part, REST, &error));
    for (int i = 0; i < REST * NETWORK_CLASSES; i++)
        assert_true(fabsf(part[i] - whole[(IMAGES - REST) * NETWORK_CLASSES + i]) < 1e-5F);
    network_free(small);
    small_device->ops->close(small_device);
    bench_close(&b);
}

static void finds_the_first_layer_that_is_not_finite(void **unused) {
    (void)unused;
    static const char *const LAYERS[] = {"", "fc1", "bn4", "conv4", "bn1", "conv1"};
    struct bench b;
    struct error error;
    bench_open(&b, 0);
    for (size_t i = 0; i < sizeof LAYERS / sizeof *LAYERS; i++) {
        char bias[16];
        snprintf(bias, sizeof bias, "%s.bias", LAYERS[i]);
        for (int j = 0; j < NETWORK_TENSORS; j++)
            if (strcmp(network_plan()->tensors[j].name, bias) == 0)
                *network_tensor_data(b.state, &network_plan()->tensors[j]) = INFINITY;
        learner_put(&b.learner);
        for (int training = 0; training < 2; training++) {
            /* in evaluation a convolution's output is not looked at, but what is made of it is */
            const bool conv = !training && strncmp(LAYERS[i], "conv", 4) == 0;
            const char *name;
            double value;
            begin(&b, training, 0);
            assert_true(network_find_infinite(b.learner.network, steps_of(&b, training)->pass,
                                              training, BATCH, &name, &value, &error));
            assert_string_equal(conv ? name + 2 : name, conv ? LAYERS[i] + 4 : LAYERS[i]);
            assert_true(i == 0 || !isfinite(value));
        }
    }
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_is_the_tutorials),
        cmocka_unit_test(seed_draws_pytorchs_weights_and_order),
        cmocka_unit_test(forward_and_backward_are_pytorchs),
        cmocka_unit_test(pytorchs_checkpoint_gives_pytorchs_logits),
        cmocka_unit_test(smaller_batch_is_the_same_as_a_small_network),
        cmocka_unit_test(finds_the_first_layer_that_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
