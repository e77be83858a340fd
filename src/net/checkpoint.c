#include "net/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Files are little-endian and so is memory; the one place to change on a machine where it is not.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are copied as they are");

/* More steps than anyone trains, and few enough to be counted on from. */
static const int64_t MOST_BATCHES = INT64_C(1) << 53;

static const char *dtype_of(const struct network_tensor *tensor) {
    return tensor->kind == COUNTER ? "I64" : "F32";
}

static size_t size_of(const struct network_tensor *tensor) {
    return tensor->kind == COUNTER ? sizeof(int64_t) : tensor->count * sizeof(float);
}

bool checkpoint_save(const char *path, const struct network_state *state,
                     const struct metadata *metadata, struct error *error) {
    const struct network_plan *plan = network_plan();
    struct safetensors_tensor out[NETWORK_TENSORS];
    int used = 0;
    /* the 8-byte counters go first, so that everything is aligned */
    for (int counters = 1; counters >= 0; counters--)
        for (int i = 0; i < NETWORK_TENSORS; i++) {
            const struct network_tensor *tensor = &plan->tensors[i];
            if ((tensor->kind == COUNTER) != counters)
                continue;
            struct safetensors_tensor *to = &out[used++];
            *to = (struct safetensors_tensor){.rank = tensor->rank, .size = size_of(tensor)};
            snprintf(to->name, sizeof to->name, "%s", tensor->name);
            snprintf(to->dtype, sizeof to->dtype, "%s", dtype_of(tensor));
            for (int j = 0; j < tensor->rank; j++)
                to->shape[j] = tensor->shape[j];
            if (tensor->kind == COUNTER)
                to->data = &state->batches;
            else
                to->data = network_tensor_data(state, tensor);
        }
    return safetensors_save(path, out, used, metadata, error);
}

static void shape_text(char *text, size_t size, int rank, const int64_t shape[]) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i == 0 ? "" : ", ",
                                 (long long)shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static bool check_shape(const char *path, const struct safetensors_tensor *found,
                        const struct network_tensor *expected, struct error *error) {
    int64_t shape[4];
    bool same = found->rank == expected->rank;
    for (int i = 0; i < expected->rank; i++) {
        shape[i] = expected->shape[i];
        same = same && found->shape[i] == shape[i];
    }
    if (same)
        return true;
    char found_text[200], expected_text[200];
    shape_text(found_text, sizeof found_text, found->rank, found->shape);
    shape_text(expected_text, sizeof expected_text, expected->rank, shape);
    return error_set(error, STATUS_CHECKPOINT,
                     "%s: tensor %s, at byte %zu: its shape is %s, but %s is expected: the file "
                     "comes from another network",
                     path, found->name, found->at, found_text, expected_text);
}

static bool check_values(const char *path, const struct safetensors_tensor *found,
                         const struct network_tensor *expected, struct error *error) {
    const bool variance = strstr(expected->name, "running_var") != NULL;
    for (size_t i = 0; i < expected->count; i++) {
        float value;
        memcpy(&value, (const char *)found->data + i * sizeof value, sizeof value);
        if (!isfinite(value) || (variance && value < 0))
            return error_set(error, STATUS_CHECKPOINT,
                             "%s: tensor %s: element %zu, at byte %zu, is %g; %s is expected: the "
                             "file is damaged or its training had diverged",
                             path, found->name, i, found->at + i * sizeof value, (double)value,
                             variance ? "a finite number from 0" : "a finite number");
    }
    return true;
}

static bool take_counter(const char *path, const struct safetensors_tensor *found,
                         struct network_state *state, struct error *error) {
    memcpy(&state->batches, found->data, sizeof state->batches);
    if (state->batches >= 0 && state->batches <= MOST_BATCHES)
        return true;
    return error_set(error, STATUS_CHECKPOINT,
                     "%s: tensor %s, at byte %zu: is %lld; a number of steps from 0 to %lld is "
                     "expected: the file is damaged",
                     path, found->name, found->at, (long long)state->batches,
                     (long long)MOST_BATCHES);
}

/* Copies one tensor of the file into the state once all about it is right. */
static bool take(const char *path, const struct safetensors_tensor *found,
                 const struct network_tensor *expected, struct network_state *state,
                 struct error *error) {
    if (strcmp(found->dtype, dtype_of(expected)) != 0)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: tensor %s, at byte %zu: its dtype is %s, but %s is expected", path,
                         found->name, found->at, found->dtype, dtype_of(expected));
    if (!check_shape(path, found, expected, error))
        return false;
    if (expected->kind == COUNTER)
        return take_counter(path, found, state, error);
    if (!check_values(path, found, expected, error))
        return false;
    memcpy(network_tensor_data(state, expected), found->data, found->size);
    return true;
}

static bool take_all(const char *path, const struct safetensors *file, struct network_state *state,
                     struct error *error) {
    const struct network_plan *plan = network_plan();
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *expected = &plan->tensors[i];
        int j = 0;
        while (j < file->count && strcmp(file->tensors[j].name, expected->name) != 0)
            j++;
        if (j == file->count)
            return error_set(error, STATUS_CHECKPOINT,
                             "%s: tensor %s is missing among the file's %d tensors: the file comes "
                             "from another network",
                             path, expected->name, file->count);
        if (!take(path, &file->tensors[j], expected, state, error))
            return false;
    }
    for (int j = 0; j < file->count; j++) {
        int i = 0;
        while (i < NETWORK_TENSORS && strcmp(file->tensors[j].name, plan->tensors[i].name) != 0)
            i++;
        if (i == NETWORK_TENSORS)
            return error_set(error, STATUS_CHECKPOINT,
                             "%s: tensor %s, at byte %zu, is none of this network's %d: the file "
                             "comes from another network",
                             path, file->tensors[j].name, file->tensors[j].at, NETWORK_TENSORS);
    }
    return true;
}

bool checkpoint_load(const char *path, struct network_state *state, struct metadata *metadata,
                     struct error *error) {
    struct safetensors file;
    struct network_state read;
    if (!safetensors_load(&file, path, error))
        return false;
    network_state_new(&read);
    bool good = take_all(path, &file, &read, error);
    if (good) {
        struct network_state before = *state;
        *state = read;
        read = before;
        if (metadata != NULL)
            *metadata = file.metadata;
    }
    network_state_free(&read);
    safetensors_free(&file);
    return good;
}
