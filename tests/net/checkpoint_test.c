/* Every test runs in a new folder of its own and reads the file "f" there. That PyTorch reads these
 * files, and this program PyTorch's, is tested with the golden files. */
#include "net/checkpoint.h"

#include "handmade.h"

#include <float.h>
#include <math.h>

static const int64_t BATCHES = 0x123456789abc; /* more than 32 bits */

/* A state of any finite numbers, the strangest among them; variances are not negative. */
static struct network_state new_state(uint64_t seed) {
    static const float strange[] = {-0.0F, 0x1p-149F, FLT_MIN, FLT_MAX, 0x1.000002p0F};
    const struct network_plan *plan = network_plan();
    struct network_state state;
    struct random random;
    network_state_new(&state);
    random_seed(&random, seed);
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        float *data = network_tensor_data(&state, &plan->tensors[i]);
        for (size_t j = 0; data != NULL && j < plan->tensors[i].count; j++)
            data[j] = j < 5 ? strange[j] : random_uniform(&random, 0, 1);
        if (data != NULL && plan->tensors[i].kind == PARAMETER)
            data[plan->tensors[i].count - 1] = -FLT_MAX;
    }
    state.batches = BATCHES + (int64_t)seed;
    return state;
}

static void assert_same_state(const struct network_state *a, const struct network_state *b) {
    const struct network_plan *plan = network_plan();
    assert_memory_equal(a->parameters, b->parameters, plan->parameters * sizeof(float));
    assert_memory_equal(a->statistics, b->statistics, plan->statistics * sizeof(float));
    assert_int_equal(a->batches, b->batches);
}

/* The file is refused with a message that names it and holds these parts; what was in the state and
 * the metadata is still there. */
static void refused(const char *found, const char *expected) {
    static struct network_state state, before;
    static struct metadata metadata, metadata_before;
    struct error error = {0};
    if (state.parameters == NULL) {
        state = new_state(2);
        before = new_state(2);
        metadata_set(&metadata, "key", "value");
        metadata_before = metadata;
    }
    if (checkpoint_load("f", &state, &metadata, &error)) {
        network_state_free(&state); /* so that the next test begins anew */
        network_state_free(&before);
        fail_msg("accepted, where '%s' should be found", found);
    }
    assert_says(&error, STATUS_CHECKPOINT, "f: ", found, expected);
    assert_same_state(&state, &before);
    assert_memory_equal(&metadata, &metadata_before, sizeof metadata);
}

/* ---- files made by hand ---- */

/* How a tensor differs from the network's; what is NULL stays as it is. */
struct change {
    const char *tensor, *name, *dtype, *shape;
    size_t size; /* bytes, where dtype or shape is given */
};

static const char LEFT_OUT[] = ""; /* as a name */

/* Makes a file of zeros with the tensors in the order of the state_dict, which checkpoint_save()
 * does not keep, and behind them `extra`, if it is not NULL. Answers where the data begins. */
static size_t make_checkpoint(const struct change *change, const char *extra) {
    char header[8192] = "{", *at = header + 1;
    size_t offset = 0;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        const bool counter = tensor->kind == COUNTER;
        const char *name = tensor->name, *dtype = counter ? "'I64'" : "'F32'";
        char shape[64] = "[", *end = shape + 1;
        size_t size = counter ? 8 : 4 * tensor->count;
        for (int j = 0; j < tensor->rank; j++)
            end += sprintf(end, "%s%d", j == 0 ? "" : ",", tensor->shape[j]);
        strcpy(end, "]");
        if (change != NULL && strcmp(change->tensor, name) == 0) {
            if (change->name == LEFT_OUT)
                continue;
            name = change->name != NULL ? change->name : name;
            dtype = change->dtype != NULL ? change->dtype : dtype;
            if (change->shape != NULL)
                strcpy(shape, change->shape);
            size = change->dtype != NULL || change->shape != NULL ? change->size : size;
        }
        at += sprintf(at, ENTRY("%s", "%s", "%s", "[%zu,%zu]") ",", name, dtype, shape, offset,
                      offset + size);
        offset += size;
    }
    if (extra != NULL) {
        at += sprintf(at, ENTRY("%s", "'F32'", "[]", "[%zu,%zu]") ",", extra, offset, offset + 4);
        offset += 4;
    }
    at[-1] = '}';
    return make_header(header, offset);
}

/* Makes a file with this in one of its tensors. Answers the byte where it is. */
static size_t make_with(const char *tensor, size_t element, const void *value, size_t size) {
    size_t at = make_checkpoint(NULL, NULL) + element * size;
    for (const struct network_tensor *t = network_plan()->tensors; strcmp(t->name, tensor) != 0;
         t++)
        at += t->kind == COUNTER ? 8 : 4 * t->count;
    poke_file("f", at, value, size);
    return at;
}

static int index_of(const char *name) {
    for (int i = 0; i < NETWORK_TENSORS; i++)
        if (strcmp(network_plan()->tensors[i].name, name) == 0)
            return i;
    fail_msg("no tensor %s", name);
    return -1;
}

/* ---- files that are good ---- */

static void loads_what_was_saved(void **unused) {
    struct network_state saved = new_state(1), loaded;
    struct metadata about = {0}, read = {0};
    struct error error;
    (void)unused;
    metadata_set(&about, "epoch", "%d", 3);
    metadata_set(&about, "program", "cifar \"x\" \xc3\xa9");
    assert_true(checkpoint_save("f", &saved, &about, &error));
    network_state_new(&loaded);
    metadata_set(&read, "epoch", "of before");
    metadata_set(&read, "other", "of before");
    assert_true(checkpoint_load("f", &loaded, &read, &error));
    assert_same_state(&loaded, &saved);
    assert_int_equal(read.count, 2);
    assert_string_equal(metadata_get(&read, "epoch"), "3");
    assert_string_equal(metadata_get(&read, "program"), "cifar \"x\" \xc3\xa9");
    assert_true(checkpoint_load("f", &loaded, NULL, &error)); /* nobody asks for metadata */
    assert_same_state(&loaded, &saved);
    network_state_free(&loaded);
    network_state_free(&saved);
}

/* The file holds the state_dict: every tensor with its shape, aligned to its elements. */
static void saves_a_state_dict(void **unused) {
    struct network_state state = new_state(1);
    struct safetensors file;
    struct error error;
    int counters = 0;
    (void)unused;
    assert_true(checkpoint_save("f", &state, &(struct metadata){0}, &error));
    assert_true(safetensors_load(&file, "f", &error));
    assert_int_equal(file.count, NETWORK_TENSORS);
    for (int i = 0; i < file.count; i++) {
        const struct safetensors_tensor *found = &file.tensors[i];
        const struct network_tensor *expected = &network_plan()->tensors[index_of(found->name)];
        const float *data = network_tensor_data(&state, expected);
        assert_int_equal(found->rank, expected->rank);
        for (int j = 0; j < found->rank; j++)
            assert_int_equal(found->shape[j], expected->shape[j]);
        assert_string_equal(found->dtype, data == NULL ? "I64" : "F32");
        assert_int_equal(found->at % (data == NULL ? 8 : 4), 0);
        if (data == NULL) {
            counters++;
            assert_int_equal(found->size, 8);
            assert_memory_equal(found->data, &state.batches, 8);
        } else {
            assert_int_equal(found->size, expected->count * 4);
            assert_memory_equal(found->data, data, found->size);
        }
    }
    assert_int_equal(counters, 4); /* bn1, bn2, bn4, bn5 */
    safetensors_free(&file);
    network_state_free(&state);
}

static void loads_tensors_in_another_order(void **unused) {
    struct network_state state = new_state(1);
    struct metadata metadata;
    struct error error;
    const int64_t batches = 77;
    const float value = -2.5F;
    (void)unused;
    size_t at = make_with("fc1.weight", 23999, &value, sizeof value) - 23999 * sizeof value;
    for (int i = index_of("fc1.weight") - 1; i >= 0; i--) {
        const bool counter = network_plan()->tensors[i].kind == COUNTER;
        at -= counter ? sizeof batches : network_plan()->tensors[i].count * sizeof value;
        if (counter)
            poke_file("f", at, &batches, sizeof batches);
    }
    assert_true(checkpoint_load("f", &state, &metadata, &error));
    assert_int_equal(state.batches, batches);
    const struct network_tensor *weight = &network_plan()->tensors[index_of("fc1.weight")];
    assert_true(network_tensor_data(&state, weight)[23999] == value);
    assert_true(network_tensor_data(&state, weight)[23998] == 0);
    assert_int_equal(metadata.count, 0);
    network_state_free(&state);
}

static void saving_reports_what_file_replace_does(void **unused) {
    struct network_state state = new_state(1);
    struct error error;
    (void)unused;
    assert_false(checkpoint_save("no/f", &state, &(struct metadata){0}, &error));
    assert_says(&error, STATUS_FAILURE, "no/f: cannot be written");
    network_state_free(&state);
}

/* ---- files that are refused ---- */

static void other_tensors_are_refused(void **unused) {
    (void)unused;
    static const struct {
        struct change change;
        const char *found; /* at the tensor */
    } cases[] = {
        {{"conv1.weight", .name = "module.conv1.weight"},
         "is missing among the file's 30 tensors: the file comes from another network"},
        {{"conv1.weight", .name = "conv1.Weight"},
         "is missing among the file's 30 tensors: the file comes from another network"},
        {{"fc1.weight", .shape = "[24000]", .size = 96000},
         "its shape is [24000], but [10, 2400] is expected"},
        {{"fc1.weight", .shape = "[2400,10]", .size = 96000},
         "its shape is [2400, 10], but [10, 2400] is expected"},
        {{"conv1.weight", .shape = "[3,12,5,5]", .size = 3600},
         "its shape is [3, 12, 5, 5], but [12, 3, 5, 5] is expected"},
        {{"conv1.weight", .shape = "[12,3,25]", .size = 3600},
         "its shape is [12, 3, 25], but [12, 3, 5, 5] is expected"},
        {{"conv1.weight", .shape = "[12,3,5,5,1,1,1,1]", .size = 3600},
         "its shape is [12, 3, 5, 5, 1, 1, 1, 1], but"},
        {{"conv1.weight", .shape = "[12,3,3,3]", .size = 1296},
         "its shape is [12, 3, 3, 3], but [12, 3, 5, 5]"},
        {{"conv1.bias", .shape = "[13]", .size = 52}, "its shape is [13], but [12] is expected"},
        {{"conv1.bias", .shape = "[0]", .size = 0}, "its shape is [0], but [12] is expected"},
        {{"conv1.bias", .shape = "[]", .size = 4}, "its shape is [], but [12] is expected"},
        {{"bn1.num_batches_tracked", .shape = "[1]", .size = 8},
         "its shape is [1], but [] is expected"},
        {{"bn1.num_batches_tracked", .shape = "[0]", .size = 0},
         "its shape is [0], but [] is expected"},
        {{"conv1.bias", .dtype = "'F16'", .size = 24}, "its dtype is F16, but F32 is expected"},
        {{"conv1.bias", .dtype = "'F64'", .size = 96}, "its dtype is F64, but F32 is expected"},
        {{"conv1.bias", .dtype = "'I32'", .size = 48}, "its dtype is I32, but F32 is expected"},
        {{"conv1.bias", .dtype = "'I64'", .size = 96}, "its dtype is I64, but F32 is expected"},
        {{"bn5.num_batches_tracked", .dtype = "'F32'", .size = 4},
         "its dtype is F32, but I64 is expected"},
        {{"bn5.num_batches_tracked", .dtype = "'U64'", .size = 8},
         "its dtype is U64, but I64 is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char tensor[64];
        snprintf(tensor, sizeof tensor, "tensor %s", cases[i].change.tensor);
        make_checkpoint(&cases[i].change, NULL);
        refused(tensor, cases[i].found);
    }
    make_checkpoint(&(struct change){"fc1.bias", .name = LEFT_OUT}, NULL);
    refused("tensor fc1.bias is missing among the file's 29", "another network");
    make_checkpoint(NULL, "conv3.weight");
    refused("tensor conv3.weight, at byte", "none of this network's 30");
    make_checkpoint(NULL, "");
    refused("tensor , at byte", "none of this network's 30");
}

/* No tensor goes unchecked: each is left out, renamed, given another shape and dtype. */
static void every_tensor_is_needed_as_it_is(void **unused) {
    (void)unused;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        const size_t size = tensor->kind == COUNTER ? 8 : 4 * tensor->count;
        char shape[32], found[64];
        snprintf(shape, sizeof shape, "[1,%zu,1]", tensor->count);
        snprintf(found, sizeof found, "tensor %s", tensor->name);
        make_checkpoint(&(struct change){tensor->name, .name = LEFT_OUT}, NULL);
        refused(found, "is missing among the file's 29 tensors");
        make_checkpoint(&(struct change){tensor->name, .name = "other"}, NULL);
        refused(found, "is missing among the file's 30 tensors");
        make_checkpoint(&(struct change){tensor->name, .shape = shape, .size = size}, NULL);
        refused(found, "its shape is [1, ");
        const char *dtype = tensor->kind == COUNTER ? "'F64'" : "'I32'";
        make_checkpoint(&(struct change){tensor->name, .dtype = dtype, .size = size}, NULL);
        refused(found, "its dtype is");
    }
}

static void impossible_values_are_refused(void **unused) {
    (void)unused;
    static const struct {
        const char *tensor;
        size_t element;
        float value;
        const char *found, *expected;
    } cases[] = {
        {"conv1.weight", 0, NAN, "is nan; a finite number is expected", "damaged"},
        {"conv1.weight", 899, INFINITY, "is inf; a finite number is expected", "diverged"},
        {"fc1.weight", 23999, -INFINITY, "is -inf; a finite number is expected", "diverged"},
        {"fc1.bias", 9, NAN, "is nan; a finite number is expected", "diverged"},
        {"bn1.weight", 3, NAN, "is nan; a finite number is expected", "diverged"},
        {"bn2.running_mean", 11, INFINITY, "is inf; a finite number is expected", "diverged"},
        {"bn4.running_var", 23, NAN, "is nan; a finite number from 0 is expected", "diverged"},
        {"bn4.running_var", 0, -1e-30F, "is -1e-30; a finite number from 0 is", "diverged"},
        {"bn1.running_var", 0, -0x1p-149F, "is -1.4013e-45; a finite number from 0", "damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char place[128];
        const size_t byte =
            make_with(cases[i].tensor, cases[i].element, &cases[i].value, sizeof cases[i].value);
        snprintf(place, sizeof place, "tensor %s: element %zu, at byte %zu, ", cases[i].tensor,
                 cases[i].element, byte);
        refused(place, cases[i].found);
        refused(place, cases[i].expected);
    }
}

static void impossible_counts_are_refused(void **unused) {
    (void)unused;
    static const int64_t counts[] = {-1, INT64_MIN, (INT64_C(1) << 53) + 1, INT64_MAX};
    for (int i = 0; i < NETWORK_TENSORS; i++)
        for (size_t j = 0; network_plan()->tensors[i].kind == COUNTER && j < 4; j++) {
            char place[128];
            const char *name = network_plan()->tensors[i].name;
            const size_t byte = make_with(name, 0, &counts[j], sizeof counts[j]);
            snprintf(place, sizeof place, "tensor %s, at byte %zu: is %lld;", name, byte,
                     (long long)counts[j]);
            refused(place, "from 0 to 9007199254740992 is expected");
        }
}

/* The first and the last number of every tensor. */
static void every_tensor_must_be_finite(void **unused) {
    static const float nan = NAN;
    (void)unused;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        for (int last = 0; tensor->kind != COUNTER && last < 2; last++) {
            char place[128];
            const size_t element = last ? tensor->count - 1 : 0;
            const size_t byte = make_with(tensor->name, element, &nan, sizeof nan);
            snprintf(place, sizeof place, "tensor %s: element %zu, at byte %zu, is nan",
                     tensor->name, element, byte);
            refused(place, "is expected");
        }
    }
}

static void every_shorter_and_longer_file_is_refused(void **unused) {
    struct network_state state = new_state(1);
    struct error error;
    struct stat info;
    const struct network_plan *plan = network_plan();
    (void)unused;
    assert_true(checkpoint_save("f", &state, &(struct metadata){0}, &error));
    network_state_free(&state);
    assert_int_equal(stat("f", &info), 0);
    const off_t whole = info.st_size,
                data = whole - (off_t)(plan->parameters + plan->statistics) * 4 - 4 * 8;
    cut_file("f", whole + 1);
    refused("the last tensor ends at byte", "something else has been added");
    /* every length at the end and in the header, one of many in the data between them */
    for (off_t size = whole - 1; size >= 0;
         size -= size < whole - 64 && size > data + 61 ? 61 : 1) {
        cut_file("f", size);
        refused(size < 8      ? "bytes; from 8 to"
                : size < data ? "bytes 0 to 7 give"
                              : "data_offsets",
                size < 8 ? "is expected" : "is cut short");
    }
}

/* As safetensors_test.c tells; here, that they change nothing. */
static void files_that_are_no_checkpoints_are_refused(void **unused) {
    (void)unused;
    make_text("f", "{\"a\": 1}");
    refused("bytes 0 to 7 give", "a safetensors checkpoint, as cifar-train or");
    make_header("{'a':1}", 0);
    refused("tensor a", "dtype");
    unlink("f");
    refused("cannot be opened", "No such file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(loads_what_was_saved),
        IN_SCRATCH(saves_a_state_dict),
        IN_SCRATCH(loads_tensors_in_another_order),
        IN_SCRATCH(saving_reports_what_file_replace_does),
        IN_SCRATCH(other_tensors_are_refused),
        IN_SCRATCH(every_tensor_is_needed_as_it_is),
        IN_SCRATCH(impossible_values_are_refused),
        IN_SCRATCH(impossible_counts_are_refused),
        IN_SCRATCH(every_tensor_must_be_finite),
        IN_SCRATCH(every_shorter_and_longer_file_is_refused),
        IN_SCRATCH(files_that_are_no_checkpoints_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
