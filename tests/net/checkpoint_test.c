/* Every test runs in a new folder of its own and reads the file "f" there. That PyTorch reads these
 * files, and this program PyTorch's, is tested with the golden files. */
#include "net/checkpoint.h"

#include "scratch.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    assert_int_equal(error.status, STATUS_CHECKPOINT);
    if (strncmp(error.text, "f: ", 3) != 0 || strstr(error.text, found) == NULL ||
        strstr(error.text, expected) == NULL)
        fail_msg("'f: ', '%s' or '%s' is not in: %s", found, expected, error.text);
    assert_same_state(&state, &before);
    assert_memory_equal(&metadata, &metadata_before, sizeof metadata);
}

/* ---- files made by hand ---- */

/* How a file differs from a good one; what is NULL stays as it is. */
struct change {
    const char *tensor; /* the one that is changed */
    bool leave_out;
    const char *name, *dtype, *shape; /* as they are in the header */
    size_t size;                      /* bytes, where shape or dtype is given */
    const char *extra;                /* name of one more tensor, of one float */
};

/* Writes a file of zeros with the tensors in the order of the state_dict, which checkpoint_save
 * does not keep. Answers where the data begins. */
static size_t write_file(const struct change *change) {
    const struct network_plan *plan = network_plan();
    char header[8192], *at = header;
    size_t offset = 0;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &plan->tensors[i];
        const bool changed = change->tensor != NULL && strcmp(change->tensor, tensor->name) == 0;
        const bool counter = tensor->kind == COUNTER;
        const char *name = tensor->name, *dtype = counter ? "\"I64\"" : "\"F32\"", *shape;
        size_t size = counter ? 8 : 4 * tensor->count;
        char usual_shape[64] = "[", *end = usual_shape + 1;
        for (int j = 0; j < tensor->rank; j++)
            end += sprintf(end, "%s%d", j == 0 ? "" : ",", tensor->shape[j]);
        strcpy(end, "]");
        shape = usual_shape;
        if (changed) {
            if (change->leave_out)
                continue;
            name = change->name != NULL ? change->name : name;
            size = change->dtype != NULL || change->shape != NULL ? change->size : size;
            dtype = change->dtype != NULL ? change->dtype : dtype;
            shape = change->shape != NULL ? change->shape : shape;
        }
        at += sprintf(at, "%s\"%s\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                      at == header ? "{" : ",", name, dtype, shape, offset, offset + size);
        offset += size;
    }
    if (change->extra != NULL) {
        at += sprintf(at, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[%zu,%zu]}",
                      change->extra, offset, offset + 4);
        offset += 4;
    }
    at += sprintf(at, "}");
    const uint64_t length = (uint64_t)(at - header);
    FILE *stream = fopen("f", "w");
    assert_non_null(stream);
    assert_int_equal(fwrite(&length, sizeof length, 1, stream), 1);
    assert_int_equal(fwrite(header, length, 1, stream), 1);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(truncate("f", (off_t)(sizeof length + length + offset)), 0); /* zeros */
    return sizeof length + length;
}

/* Writes into a tensor of such a file. Answers the byte where it wrote. */
static size_t poke(size_t data, int tensor, size_t element, const void *bytes, size_t size) {
    const struct network_plan *plan = network_plan();
    size_t at = data + element * size;
    for (int i = 0; i < tensor; i++)
        at += plan->tensors[i].kind == COUNTER ? 8 : 4 * plan->tensors[i].count;
    FILE *stream = fopen("f", "r+");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, size, 1, stream), 1);
    assert_int_equal(fclose(stream), 0);
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
    const size_t data = write_file(&(struct change){0});
    for (int i = 0; i < NETWORK_TENSORS; i++)
        if (network_plan()->tensors[i].kind == COUNTER)
            poke(data, i, 0, &batches, sizeof batches);
    poke(data, index_of("fc1.weight"), 23999, &value, sizeof value);
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
    assert_int_equal(error.status, STATUS_FAILURE);
    assert_non_null(strstr(error.text, "no/f: cannot be written"));
    network_state_free(&state);
}

/* ---- files that are refused ---- */

static void other_tensors_are_refused(void **unused) {
    (void)unused;
    static const struct {
        struct change change;
        const char *found, *expected;
    } cases[] = {
        /* names */
        {{.tensor = "fc1.bias", .leave_out = true},
         "tensor fc1.bias is missing among the file's 29",
         "another network"},
        {{.tensor = "conv1.weight", .name = "module.conv1.weight"},
         "tensor conv1.weight is missing",
         "another network"},
        {{.tensor = "conv1.weight", .name = "conv1.Weight"},
         "tensor conv1.weight is missing",
         "another network"},
        {{.tensor = "conv1.weight", .name = "conv1.bias"}, "byte", "duplicate object key"},
        {{.extra = "conv3.weight"}, "tensor conv3.weight, at byte", "none of this network's 30"},
        {{.extra = ""}, "tensor , at byte", "none of this network's 30"},
        /* shapes */
        {{.tensor = "fc1.weight", .shape = "[24000]", .size = 96000},
         "tensor fc1.weight, at byte",
         "its shape is [24000], but [10, 2400] is expected"},
        {{.tensor = "fc1.weight", .shape = "[2400,10]", .size = 96000},
         "tensor fc1.weight, at byte",
         "its shape is [2400, 10], but [10, 2400] is expected"},
        {{.tensor = "conv1.weight", .shape = "[3,12,5,5]", .size = 3600},
         "tensor conv1.weight, at byte",
         "its shape is [3, 12, 5, 5], but [12, 3, 5, 5] is expected"},
        {{.tensor = "conv1.weight", .shape = "[12,3,25]", .size = 3600},
         "tensor conv1.weight, at byte",
         "its shape is [12, 3, 25], but [12, 3, 5, 5] is expected"},
        {{.tensor = "conv1.weight", .shape = "[12,3,5,5,1,1,1,1]", .size = 3600},
         "tensor conv1.weight, at byte",
         "its shape is [12, 3, 5, 5, 1, 1, 1, 1], but"},
        {{.tensor = "conv1.weight", .shape = "[12,3,3,3]", .size = 1296},
         "tensor conv1.weight, at byte",
         "its shape is [12, 3, 3, 3], but [12, 3, 5, 5]"},
        {{.tensor = "conv1.bias", .shape = "[13]", .size = 52},
         "tensor conv1.bias, at byte",
         "its shape is [13], but [12] is expected"},
        {{.tensor = "conv1.bias", .shape = "[0]", .size = 0},
         "tensor conv1.bias, at byte",
         "its shape is [0], but [12] is expected"},
        {{.tensor = "conv1.bias", .shape = "[]", .size = 4},
         "tensor conv1.bias, at byte",
         "its shape is [], but [12] is expected"},
        {{.tensor = "bn1.num_batches_tracked", .shape = "[1]", .size = 8},
         "tensor bn1.num_batches_tracked, at byte",
         "its shape is [1], but [] is expected"},
        {{.tensor = "bn1.num_batches_tracked", .shape = "[0]", .size = 0},
         "tensor bn1.num_batches_tracked, at byte",
         "its shape is [0], but [] is expected"},
        {{.tensor = "conv1.weight", .shape = "[-12,-3,5,5]", .size = 3600},
         "tensor conv1.weight: the shape is",
         "whole numbers from 0"},
        {{.tensor = "conv1.weight", .shape = "[4611686018427387904,4]", .size = 0},
         "tensor conv1.weight, at byte",
         "its shape"},
        /* dtypes */
        {{.tensor = "conv1.bias", .dtype = "\"F16\"", .size = 24},
         "tensor conv1.bias, at byte",
         "its dtype is F16, but F32 is expected"},
        {{.tensor = "conv1.bias", .dtype = "\"F64\"", .size = 96},
         "tensor conv1.bias, at byte",
         "its dtype is F64, but F32 is expected"},
        {{.tensor = "conv1.bias", .dtype = "\"I32\"", .size = 48},
         "tensor conv1.bias, at byte",
         "its dtype is I32, but F32 is expected"},
        {{.tensor = "conv1.bias", .dtype = "\"I64\"", .size = 96},
         "tensor conv1.bias, at byte",
         "its dtype is I64, but F32 is expected"},
        {{.tensor = "bn5.num_batches_tracked", .dtype = "\"F32\"", .size = 4},
         "tensor bn5.num_batches_tracked, at byte",
         "its dtype is F32, but I64 is expected"},
        {{.tensor = "bn5.num_batches_tracked", .dtype = "\"U64\"", .size = 8},
         "tensor bn5.num_batches_tracked, at byte",
         "its dtype is U64, but I64 is expected"},
        {{.tensor = "conv1.bias", .dtype = "\"F31\"", .size = 48},
         "tensor conv1.bias: dtype is F31",
         "one of F32, I64"},
        {{.tensor = "conv1.bias", .dtype = "32", .size = 48},
         "tensor conv1.bias: dtype is",
         "one of F32, I64"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(&cases[i].change);
        refused(cases[i].found, cases[i].expected);
    }
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
        write_file(&(struct change){.tensor = tensor->name, .leave_out = true});
        refused(found, "is missing among the file's 29 tensors");
        write_file(&(struct change){.tensor = tensor->name, .name = "other"});
        refused(found, "is missing among the file's 30 tensors");
        write_file(&(struct change){.tensor = tensor->name, .shape = shape, .size = size});
        refused(found, "its shape is [1, ");
        write_file(&(struct change){.tensor = tensor->name,
                                    .dtype = tensor->kind == COUNTER ? "\"F64\"" : "\"I32\"",
                                    .size = size});
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
        const size_t data = write_file(&(struct change){0});
        const size_t byte = poke(data, index_of(cases[i].tensor), cases[i].element, &cases[i].value,
                                 sizeof cases[i].value);
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
            const size_t data = write_file(&(struct change){0});
            const size_t byte = poke(data, i, 0, &counts[j], sizeof counts[j]);
            snprintf(place, sizeof place, "tensor %s, at byte %zu: is %lld;",
                     network_plan()->tensors[i].name, byte, (long long)counts[j]);
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
            const size_t byte = poke(write_file(&(struct change){0}), i, element, &nan, sizeof nan);
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
    assert_int_equal(truncate("f", whole + 1), 0);
    refused("the last tensor ends at byte", "something else has been added");
    /* every length at the end and in the header, one of many in the data between them */
    for (off_t size = whole - 1; size >= 0;
         size -= size < whole - 64 && size > data + 61 ? 61 : 1) {
        assert_int_equal(truncate("f", size), 0);
        refused(size < 8      ? "bytes; from 8 to"
                : size < data ? "bytes 0 to 7 give"
                              : "data_offsets",
                size < 8 ? "is expected" : "is cut short");
    }
}

static void files_that_are_no_checkpoints_are_refused(void **unused) {
    (void)unused;
    static const char *const texts[] = {"", "PK\3\4 as torch.save begins", "{\"a\": 1}", "text\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        FILE *stream = fopen("f", "w");
        assert_true(fputs(texts[i], stream) >= 0);
        fclose(stream);
        refused("bytes", "a safetensors checkpoint, as cifar-train or");
    }
    unlink("f");
    refused("cannot be opened", "No such file");
    assert_int_equal(mkdir("f", 0777), 0);
    refused("is a folder", "a regular file is expected");
}

/* A crowd of tensors is refused, and soon. */
static void too_many_tensors_are_refused(void **unused) {
    (void)unused;
    FILE *stream = fopen("f", "w");
    fwrite("\0\0\0\0\0\0\0\0{", 9, 1, stream);
    for (int i = 0; i < 100000; i++)
        fprintf(stream, "\"%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", i);
    fputs("\"last\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", stream);
    const uint64_t length = (uint64_t)ftell(stream) - 8;
    rewind(stream);
    fwrite(&length, sizeof length, 1, stream);
    fclose(stream);
    refused("bytes 0 to 7 give a header of", "at most 131072 are read");
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
        IN_SCRATCH(too_many_tensors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
