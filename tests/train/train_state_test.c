/* The training state's file: all of it comes back, it is also a checkpoint, and what cannot be is
 * refused. Every test runs in a new folder of its own. That a run goes on from it bit for bit is
 * tested with the trainer. */
#include "train/train_state.h"

#include "scratch.h"

#include <math.h>

/* A state in which every number is another one. */
static struct train_state new_state(bool with_best) {
    const struct network_plan *plan = network_plan();
    struct train_state s;
    train_state_new(&s);
    train_state_begin(&s, 7, NULL);
    for (size_t i = 0; i < plan->parameters; i++) {
        s.exp_avg[i] = random_uniform(&s.random, -1, 1);
        s.exp_avg_sq[i] = random_uniform(&s.random, 0, 1);
        s.average[i] = random_uniform(&s.random, -1, 1);
        s.best.network.parameters[i] = random_uniform(&s.random, -1, 1);
    }
    for (size_t i = 0; i < plan->statistics; i++) {
        s.network.statistics[i] = random_uniform(&s.random, 0, 1);
        s.best.network.statistics[i] = random_uniform(&s.random, 0, 1);
    }
    s.steps = s.network.batches = 105;
    s.epoch = 11;
    s.step = 5;
    s.total = 1.0 / 3;
    s.running = M_PI;
    if (with_best) {
        s.best.epoch = 9;
        s.best.accuracy = 200.0 / 3;
        s.best.loss = M_E;
        s.best.network.batches = 90;
    }
    return s;
}

static void save(const struct train_state *state) {
    struct metadata about = {0};
    struct error error;
    metadata_set(&about, "program", "cifar");
    metadata_set(&about, "epochs", "20");
    assert_good(train_state_save("f", state, &about, &error), &error);
}

static void assert_same_network(const struct network_state *a, const struct network_state *b) {
    const struct network_plan *plan = network_plan();
    assert_memory_equal(a->parameters, b->parameters, plan->parameters * sizeof(float));
    assert_memory_equal(a->statistics, b->statistics, plan->statistics * sizeof(float));
    assert_int_equal(a->batches, b->batches);
}

static void all_of_it_comes_back(void **unused) {
    (void)unused;
    const size_t size = network_plan()->parameters * sizeof(float);
    for (int kind = 0; kind < 4; kind++) {
        const int with_best = kind & 1;
        struct train_state saved = new_state(with_best == 1), loaded;
        struct metadata about;
        struct error error;
        saved.averaged = kind >= 2;
        save(&saved);
        assert_good(train_state_load("f", &loaded, &about, &error), &error);
        assert_int_equal(loaded.averaged, saved.averaged);
        if (saved.averaged)
            assert_memory_equal(loaded.average, saved.average, size);
        assert_same_network(&loaded.network, &saved.network);
        assert_memory_equal(loaded.exp_avg, saved.exp_avg, size);
        assert_memory_equal(loaded.exp_avg_sq, saved.exp_avg_sq, size);
        assert_memory_equal(&loaded.random, &saved.random, sizeof saved.random);
        assert_int_equal(loaded.steps, 105);
        assert_int_equal(loaded.epoch, 11);
        assert_int_equal(loaded.step, 5);
        assert_true(loaded.total == saved.total && loaded.running == saved.running);
        assert_int_equal(loaded.best.epoch, saved.best.epoch);
        if (with_best == 1) {
            assert_true(loaded.best.accuracy == saved.best.accuracy);
            assert_true(loaded.best.loss == saved.best.loss);
            assert_same_network(&loaded.best.network, &saved.best.network);
        }
        assert_string_equal(metadata_get(&about, "epochs"), "20");
        assert_true(train_state_fits(&loaded, 20, 10, saved.averaged, "f", &error));
        assert_false(train_state_fits(&loaded, 20, 10, !saved.averaged, "f", &error));
        assert_says(&error, STATUS_CHECKPOINT, "f: holds ",
                    saved.averaged
                        ? "an average of the network, but its run takes none: the file is damaged"
                        : "no average of the network, but its run takes one: the file is damaged");
        train_state_free(&loaded);
        train_state_free(&saved);
    }
}

static void is_a_checkpoint_too(void **unused) {
    (void)unused;
    struct train_state saved = new_state(true);
    struct network_state loaded;
    struct error error;
    save(&saved);
    network_state_new(&loaded);
    assert_good(checkpoint_load("f", &loaded, NULL, &error), &error);
    assert_same_network(&loaded, &saved.network);
    network_state_free(&loaded);
    train_state_free(&saved);
}

static void refused(const char *found) {
    struct train_state state;
    struct metadata about;
    struct error error;
    if (train_state_load("f", &state, &about, &error))
        fail_msg("accepted, where '%s' should be found", found);
    assert_says(&error, STATUS_CHECKPOINT, "f: ", found);
}

static void impossible_numbers_are_refused(void **unused) {
    (void)unused;
    struct train_state s = new_state(true);
    const struct train_state good = s;
    const size_t end = network_plan()->parameters - 1;
/* A number becomes impossible, the file is refused, the number is put back. */
#define REFUSED(place, value, found)                                                               \
    do {                                                                                           \
        (place) = (value);                                                                         \
        save(&s);                                                                                  \
        refused(found);                                                                            \
        s = good;                                                                                  \
    } while (0)
    REFUSED(s.epoch, 0, "tensor run.epoch: is 0; an epoch from 1 is expected");
    REFUSED(s.epoch, -3, "tensor run.epoch, at byte ");
    REFUSED(s.epoch, INT64_C(1) << 40, "tensor run.epoch: is 1099511627776; ");
    REFUSED(s.epoch, 9, "tensor run.best.epoch: is 9; an epoch that is over is expected");
    REFUSED(s.step, -1, "tensor run.step, at byte ");
    REFUSED(s.steps, -1, "tensor run.adam.step, at byte ");
    REFUSED(s.random.next, 625, "tensor run.random: is 625; an index up to 624");
    REFUSED(s.random.next, -1, "tensor run.random: is -1; an index up to 624");
    REFUSED(s.total, (double)INFINITY, "tensor run.loss.total: is inf; a finite number from 0");
    REFUSED(s.total, -1, "tensor run.loss.total: is -1; a finite number from 0");
    REFUSED(s.running, (double)NAN, "tensor run.loss.running: is nan; a finite number from 0");
    REFUSED(s.running, -1, "tensor run.loss.running: is -1; a finite number from 0");
    REFUSED(s.best.epoch, 11, "tensor run.best.epoch: is 11; an epoch that is over is expected");
    REFUSED(s.best.accuracy, 100.5, "tensor run.best.accuracy: is 100.5; a number from 0 to 100");
    REFUSED(s.best.loss, (double)INFINITY, "tensor run.best.loss: is inf; a finite number from 0");
#undef REFUSED
    const float before = s.exp_avg[end];
    s.exp_avg[end] = NAN;
    save(&s);
    refused("tensor run.exp_avg.fc1.bias: element 9, at byte ");
    s.exp_avg[end] = before;
    s.exp_avg_sq[0] = -0x1p-149F;
    save(&s);
    refused("tensor run.exp_avg_sq.conv1.weight: element 0, at byte ");
    s.exp_avg_sq[0] = 0;
    s.averaged = true;
    s.average[end] = INFINITY;
    save(&s);
    refused("tensor run.average.fc1.bias: element 9, at byte ");
    s.average[end] = 0;
    s.best.network.statistics[0] = INFINITY;
    save(&s);
    refused("tensor run.best.bn1.running_mean: element 0, at byte ");
    train_state_free(&s);
}

static void other_files_are_refused(void **unused) {
    (void)unused;
    struct train_state s = new_state(true);
    struct error error;
    const struct metadata none = {0};
    s.averaged = true;
    assert_true(checkpoint_save("f", &s.network, &none, &error));
    refused("holds no training state to go on from");
    refused("--resume takes the file that --last named");

    /* one tensor too many, and one too few */
    struct safetensors file;
    struct safetensors_tensor more[200];
    save(&s);
    assert_true(safetensors_load(&file, "f", &error));
    memcpy(more, file.tensors, (size_t)file.count * sizeof *more);
    more[file.count] = more[0];
    strcpy(more[file.count].name, "run.more");
    assert_true(safetensors_save("f", more, file.count + 1, &none, &error));
    refused("but a training state has ");
    for (int i = 0; i < file.count; i++) {
        struct safetensors_tensor without = more[i];
        more[i] = more[file.count - 1];
        assert_true(safetensors_save("f", more, file.count - 1, &none, &error));
        refused(strcmp(without.name, "run.epoch") == 0 ? "holds no training state"
                : strcmp(without.name, "run.average.conv1.weight") == 0 /* is there an average? */
                    ? "but a training state has "
                    : without.name);
        more[i] = without;
    }
    safetensors_free(&file);
    train_state_free(&s);
}

static void fits_only_its_own_run(void **unused) {
    (void)unused;
    static const struct {
        int64_t step, adam_step, batches, epochs, steps;
        const char *refused; /* NULL: it fits */
    } CASES[] = {
        {5, 105, 105, 20, 10, NULL},
        {5, 105, 105, 20, 11, "f: is in epoch 11 after step 5, and 105 steps, "},
        {5, 105, 105, 20, 5, ""},
        {5, 105, 105, 11, 10, NULL},
        /* over, and yet in the middle */
        {5, 105, 105, 10, 10, "f: is in epoch 11 after step 5 of a run of 10 epochs"},
        {0, 100, 100, 10, 10, NULL}, /* over */
        {0, 100, 100, 9, 10, ""},
        {5, 106, 105, 20, 10, ""},
        {5, 105, 104, 20, 10, ""},
    };
    struct train_state s = new_state(false);
    struct error error;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        s.step = CASES[i].step;
        s.steps = CASES[i].adam_step;
        s.network.batches = CASES[i].batches;
        assert_int_equal(train_state_fits(&s, CASES[i].epochs, CASES[i].steps, false, "f", &error),
                         CASES[i].refused == NULL);
        if (CASES[i].refused != NULL)
            assert_says(&error, STATUS_CHECKPOINT, CASES[i].refused);
    }
    train_state_free(&s);
}

static void names_what_is_wrong(void **unused) {
    (void)unused;
    struct train_state s = new_state(false);
    char name[SAFETENSORS_NAME];
    double value;
    assert_false(train_state_is_wrong(&s, name, &value));
    s.exp_avg_sq[0] = INFINITY;
    assert_true(train_state_is_wrong(&s, name, &value));
    assert_string_equal(name, "exp_avg_sq.conv1.weight");
    assert_true(isinf(value));
    s.network.parameters[0] = NAN;
    assert_true(train_state_is_wrong(&s, name, &value));
    assert_string_equal(name, "conv1.weight");
    s.network.parameters[0] = s.exp_avg_sq[0] = 0;
    s.average[0] = NAN; /* which means nothing yet */
    assert_false(train_state_is_wrong(&s, name, &value));
    s.averaged = true;
    assert_true(train_state_is_wrong(&s, name, &value));
    assert_string_equal(name, "average.conv1.weight");
    train_state_free(&s);
}

/* A new run begins with drawn weights, or with another network's numbers, at its own first step;
 * the generator, which draws the first epoch, is the same. */
static void begins_with_drawn_or_given_numbers(void **unused) {
    (void)unused;
    const size_t size = network_plan()->parameters * sizeof(float);
    struct train_state given = new_state(false), drawn, begun;
    train_state_new(&drawn);
    train_state_new(&begun);
    train_state_begin(&drawn, 3, NULL);
    train_state_begin(&begun, 3, &given.network);
    assert_memory_equal(begun.network.parameters, given.network.parameters, size);
    assert_memory_equal(begun.network.statistics, given.network.statistics,
                        network_plan()->statistics * sizeof(float));
    assert_memory_equal(begun.average, given.network.parameters, size);
    assert_memory_equal(drawn.average, drawn.network.parameters, size);
    assert_memory_not_equal(drawn.network.parameters, given.network.parameters, size);
    assert_memory_equal(&begun.random, &drawn.random, sizeof drawn.random);
    assert_int_equal(begun.network.batches, 0);
    assert_int_equal(begun.epoch, 1);
    assert_int_equal(begun.steps, 0);
    train_state_free(&given);
    train_state_free(&drawn);
    train_state_free(&begun);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(all_of_it_comes_back),
        IN_SCRATCH(is_a_checkpoint_too),
        IN_SCRATCH(impossible_numbers_are_refused),
        IN_SCRATCH(other_files_are_refused),
        IN_SCRATCH(fits_only_its_own_run),
        IN_SCRATCH(names_what_is_wrong),
        IN_SCRATCH(begins_with_drawn_or_given_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
