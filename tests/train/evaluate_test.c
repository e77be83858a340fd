/* The evaluation against single images that go through the network one by one. */
#include "base/memory.h"
#include "data/synth.h"
#include "net/checkpoint.h"
#include "train/evaluate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGES = 25, BATCH = 10 }; /* 10 + 10 + 5 */

static struct device *device;
static struct cifar10 images;
static struct network_state state;
static struct network *network;

/* A network that has learned a little, and so is sometimes right. */
static int open_network(void **unused) {
    struct error error;
    (void)unused;
    network_state_new(&state);
    if (!device_open(&device, "openblas", &(struct device_options){.threads = 2}, &error) ||
        !checkpoint_load(GOLDEN "/after3.safetensors", &state, NULL, &error))
        return 1;
    synth_draw(&images, CIFAR10_TEST, IMAGES, 0);
    network = network_new(device, BATCH);
    network_upload(network, &state);
    return 0;
}

static int close_network(void **unused) {
    (void)unused;
    network_free(network);
    network_state_free(&state);
    device->ops->close(device);
    cifar10_free(&images);
    return 0;
}

static void is_what_single_images_give(void **unused) {
    (void)unused;
    struct error error;
    struct evaluator evaluator;
    struct evaluation found;
    float single[IMAGES][NETWORK_CLASSES];
    int64_t confusion[CIFAR10_CLASSES][CIFAR10_CLASSES] = {{0}}, correct = 0;
    int predicted[IMAGES];
    double loss = 0;

    const struct resident data = resident_new(device, &images);
    struct steps one; /* image by image */
    struct view views[IMAGES] = {{0}};
    for (uint32_t i = 0; i < IMAGES; i++)
        views[i].image = i;
    steps_init(&one, network, &data, NULL, 1);
    steps_begin(&one, views, NULL, 0, 0);
    steps_run(&one, 0, IMAGES);
    assert_true(steps_logits(&one, &single[0][0], IMAGES, &error));
    for (int i = 0; i < IMAGES; i++) {
        const int label = images.records[i * CIFAR10_RECORD];
        double sum = 0;
        predicted[i] = 0;
        for (int k = 0; k < NETWORK_CLASSES; k++) {
            sum += exp((double)single[i][k]);
            predicted[i] = single[i][k] > single[i][predicted[i]] ? k : predicted[i];
        }
        loss += log(sum) - (double)single[i][label];
        confusion[label][predicted[i]]++;
        correct += label == predicted[i];
    }

    evaluator_init(&evaluator, network, &data, BATCH);
    for (int twice = 0; twice < 2; twice++) { /* nothing is left over from the first one */
        assert_true(evaluate(&evaluator, &found, &error));
        assert_int_equal(found.images, IMAGES);
        assert_int_equal(found.correct, correct);
        assert_true(evaluation_accuracy(&found) == 100.0 * (double)correct / IMAGES);
        assert_true(fabs(found.loss - loss / IMAGES) < 1e-5);
        assert_memory_equal(found.confusion, confusion, sizeof confusion);
        for (int i = 0; i < IMAGES; i++) {
            assert_int_equal(evaluator.predicted[i], predicted[i]);
            for (int k = 0; k < NETWORK_CLASSES; k++)
                assert_true(fabsf(evaluator.logits[i * NETWORK_CLASSES + k] - single[i][k]) <
                            1e-4F);
        }
    }
    evaluator_free(&evaluator);
}

/* What a network with ten outputs says of images with fewer classes is one of these. */
static void unused_outputs_are_no_prediction(void **unused) {
    (void)unused;
    enum { FEWER = 3 };
    struct error error;
    struct evaluator evaluator;
    struct evaluation found;
    struct cifar10 fewer = {memory_new(IMAGES, CIFAR10_RECORD), IMAGES, FEWER};
    const struct resident data = resident_new(device, &fewer);
    int outside = 0;
    memcpy(fewer.records, images.records, (size_t)IMAGES * CIFAR10_RECORD);
    for (size_t i = 0; i < IMAGES; i++)
        fewer.records[i * CIFAR10_RECORD] %= FEWER;
    evaluator_init(&evaluator, network, &data, BATCH);
    assert_true(evaluate(&evaluator, &found, &error));
    for (int i = 0; i < IMAGES; i++) {
        const float *logits = evaluator.logits + i * NETWORK_CLASSES;
        const int predicted = evaluator.predicted[i];
        assert_true(predicted < FEWER);
        for (int k = 0; k < NETWORK_CLASSES; k++) {
            outside += logits[k] > logits[predicted];
            assert_true(k >= FEWER || logits[k] <= logits[predicted]);
        }
    }
    assert_true(outside > 0); /* or the test says nothing */
    evaluator_free(&evaluator);
    cifar10_free(&fewer);
}

static void changes_nothing(void **unused) {
    (void)unused;
    struct error error;
    struct evaluator evaluator;
    struct evaluation found;
    struct network_state after;
    const struct resident data = resident_new(device, &images);
    evaluator_init(&evaluator, network, &data, BATCH);
    assert_true(evaluate(&evaluator, &found, &error));
    network_state_new(&after);
    assert_true(network_download(network, &after, &error));
    assert_memory_equal(after.parameters, state.parameters,
                        network_plan()->parameters * sizeof *state.parameters);
    assert_memory_equal(after.statistics, state.statistics,
                        network_plan()->statistics * sizeof *state.statistics);
    network_state_free(&after);
    evaluator_free(&evaluator);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_what_single_images_give),
        cmocka_unit_test(unused_outputs_are_no_prediction),
        cmocka_unit_test(changes_nothing),
    };
    return cmocka_run_group_tests(tests, open_network, close_network);
}
