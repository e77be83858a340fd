/* Six steps of each optimiser against PyTorch's: golden values written by
 * scripts/pytorch/make_golden.py, of images that are shifted and mirrored, smoothed labels,
 * learning rates that change, and an average. */
#include "base/memory.h"
#include "data/cifar10.h"
#include "net/safetensors.h"
#include "train/learner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 10, IMAGES = 30, STEPS = 6, PASS = IMAGES / BATCH, MOST = 8192 };

static struct safetensors golden;

/* Copies a golden tensor of so many bytes. */
static void take_golden(void *to, size_t size, const char *name, const char *part) {
    char wanted[128];
    snprintf(wanted, sizeof wanted, "%s%s", name, part);
    const struct safetensors_tensor *tensor = safetensors_find(&golden, wanted);
    if (tensor == NULL || tensor->size != size)
        fail_msg("no golden %s of %zu bytes", wanted, size);
    memcpy(to, tensor->data, size);
}

/* Numbers of a network side by side, as make_golden.py's vectors(): every 29th of the large
 * tensors. */
struct vector {
    float values[MOST];
    size_t count;
};

static void take_vector(struct vector *vector, const struct network_state *state, int kind) {
    vector->count = 0;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *t = &network_plan()->tensors[i];
        if ((int)t->kind != kind || (t->rank == 1 && strncmp(t->name, "conv", 4) == 0))
            continue;
        const float *data = network_tensor_data(state, t);
        const size_t stride = t->count > 1024 ? 29 : 1;
        for (size_t j = 0; j < t->count; j += stride)
            vector->values[vector->count++] = data[j];
    }
    assert_true(vector->count <= MOST);
}

/* How far PyTorch's float32 is off, as a part of what the steps change, is known; another order of
 * sums has another error, but none of another size. Where a number is almost 0 in front of a ReLU,
 * or almost the largest in a pool, rounding may decide, which comes to less than 1e-3. */
static void check(const char *backend, const char *name, const struct vector *found,
                  const struct vector *before) {
    static float expected[MOST];
    float rounding;
    double off = 0, change = 0;
    take_golden(expected, found->count * sizeof *expected, name, "");
    take_golden(&rounding, sizeof rounding, name, ".rounding");
    for (size_t i = 0; i < found->count; i++) {
        off += pow((double)found->values[i] - (double)expected[i], 2);
        change += pow((double)expected[i] - (double)before->values[i], 2);
    }
    off = sqrt(off / change);
    print_message("%s: %s is off by %.1e; PyTorch in float32 by %.1e\n", backend, name, off,
                  (double)rounding);
    if (!(off <= fmax(4 * (double)rounding, 1e-3)))
        fail_msg("%s: %s is off by more than rounding comes to", backend, name);
}

static void learn(struct learner *learner, struct vector *losses) {
    int32_t all[STEPS * BATCH][5], (*seen)[5] = all;
    double schedule[STEPS];
    struct error error;
    take_golden(all, sizeof all, "views", "");
    take_golden(schedule, sizeof schedule, "schedule", "");
    losses->count = STEPS;
    learner_put(learner);
    for (int pass = 0; pass < STEPS / PASS; pass++, seen += IMAGES) {
        struct view views[IMAGES];
        for (int i = 0; i < IMAGES; i++)
            views[i] = (struct view){.image = (uint32_t)seen[i][0],
                                     .down = (int8_t)seen[i][1],
                                     .right = (int8_t)seen[i][2],
                                     .mirrored = (uint8_t)seen[i][3],
                                     .reflected = (uint8_t)seen[i][4]};
        steps_begin(&learner->steps, views, schedule + pass * PASS, 0, pass * PASS);
        steps_run(&learner->steps, 0, PASS);
        assert_true(steps_losses(&learner->steps, losses->values + pass * PASS, 0, PASS, &error));
    }
    assert_true(learner_take(learner, &learner->state, &error));
}

/* As make_golden.py does. */
static void draw_noise(struct cifar10 *images) {
    struct random random;
    random_seed(&random, 1);
    *images = (struct cifar10){memory_new(IMAGES, CIFAR10_RECORD), IMAGES, CIFAR10_CLASSES};
    for (size_t i = 0; i < (size_t)IMAGES * CIFAR10_RECORD; i++)
        images->records[i] = (uint8_t)(random_draw(&random) % 256);
    for (size_t i = 0; i < IMAGES; i++)
        images->records[i * CIFAR10_RECORD] %= CIFAR10_CLASSES;
}

static void steps_are_pytorchs(const char *backend, const char *name, struct recipe recipe) {
    struct device *device;
    struct cifar10 images;
    struct learner learner;
    struct error error;
    static struct vector losses, found, before;
    static const struct {
        const char *name;
        int kind;
    } KINDS[] = {{"parameters", PARAMETER}, {"statistics", STATISTIC}};
    char key[64];
    if (!device_open(&device, backend, &(struct device_options){.threads = 2}, &error)) {
        print_message("SKIPPED: %s\n", error.text);
        return;
    }
    recipe.batch = BATCH;
    recipe.label_smoothing = 0.1;
    recipe.average = AVERAGE_EMA;
    recipe.average_decay = 0.9;
    draw_noise(&images);
    const struct resident data = resident_new(device, &images);
    learner_init(&learner, device, &data, &(struct learner_settings){.recipe = recipe}, NULL);
    struct train_state initial;
    train_state_new(&initial);
    train_state_begin(&initial, 0, NULL);

    learn(&learner, &losses);
    memset(before.values, 0, sizeof before.values);
    snprintf(key, sizeof key, "%s.losses", name);
    check(backend, key, &losses, &before);
    for (int k = 0; k < 2; k++) {
        take_vector(&before, &initial.network, KINDS[k].kind);
        take_vector(&found, &learner.state.network, KINDS[k].kind);
        snprintf(key, sizeof key, "%s.network.%s", name, KINDS[k].name);
        check(backend, key, &found, &before);
    }
    const struct network_state average = {.parameters = learner.state.average};
    take_vector(&before, &initial.network, PARAMETER);
    take_vector(&found, &average, PARAMETER);
    snprintf(key, sizeof key, "%s.average.parameters", name);
    check(backend, key, &found, &before);
    train_state_free(&initial);
    learner_free(&learner);
    device->ops->close(device);
    cifar10_free(&images);
}

static void on_each_backend(const char *name, const struct recipe *recipe) {
    static const char *const BACKENDS[] = {"openblas", "cpu"};
    for (size_t i = 0; i < sizeof BACKENDS / sizeof *BACKENDS; i++)
        steps_are_pytorchs(BACKENDS[i], name, *recipe);
}

static void adamw_is_pytorchs(void **unused) {
    (void)unused;
    on_each_backend("adamw", &(struct recipe){.optimizer = OPTIMIZER_ADAM,
                                              .lr = 0.0005,
                                              .weight_decay = 20,
                                              .decoupled = true});
}

static void sgd_is_pytorchs(void **unused) {
    (void)unused;
    on_each_backend(
        "sgd", &(struct recipe){
                   .optimizer = OPTIMIZER_SGD, .lr = 0.001, .weight_decay = 2, .momentum = 0.9});
}

static void muon_is_pytorchs(void **unused) {
    (void)unused;
    on_each_backend("muon", &(struct recipe){.optimizer = OPTIMIZER_MUON,
                                             .lr = 0.0005,
                                             .weight_decay = 20,
                                             .decoupled = true,
                                             .muon_lr = 0.01,
                                             .momentum = 0.95});
}

static int open_golden(void **unused) {
    struct error error;
    (void)unused;
    if (safetensors_load(&golden, GOLDEN "/recipes.safetensors", &error))
        return 0;
    print_error("%s\n", error.text);
    return 1;
}

static int close_golden(void **unused) {
    (void)unused;
    safetensors_free(&golden);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_is_pytorchs),
        cmocka_unit_test(sgd_is_pytorchs),
        cmocka_unit_test(muon_is_pytorchs),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
