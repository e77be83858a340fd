#include "net/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define refuse safetensors_refuse

/* Files are little-endian and so is memory; the one place to change on a machine where it is not.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are copied as they are");

/* More steps than anyone trains, and few enough to be counted on from. */
static const int64_t MOST_BATCHES = INT64_C(1) << 53;

void checkpoint_list(struct safetensors_tensor list[NETWORK_TENSORS],
                     const struct network_state *state, const char *prefix) {
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        const bool counter = tensor->kind == COUNTER;
        struct safetensors_tensor *to = &list[i];
        *to = (struct safetensors_tensor){
            .rank = tensor->rank,
            .data = counter ? (void *)&state->batches : network_tensor_data(state, tensor),
            .size = counter ? sizeof state->batches : tensor->count * sizeof(float),
        };
        snprintf(to->name, sizeof to->name, "%s%s", prefix, tensor->name);
        snprintf(to->dtype, sizeof to->dtype, counter ? "I64" : "F32");
        for (int j = 0; j < tensor->rank; j++)
            to->shape[j] = tensor->shape[j];
    }
}

bool checkpoint_save(const char *path, const struct network_state *state,
                     const struct metadata *metadata, struct error *error) {
    struct safetensors_tensor list[NETWORK_TENSORS];
    checkpoint_list(list, state, "");
    return safetensors_save(path, list, NETWORK_TENSORS, metadata, error);
}

static bool is_variance(const struct safetensors_tensor *tensor) {
    return strstr(tensor->name, "running_var") != NULL ||
           strstr(tensor->name, "exp_avg_sq") != NULL;
}

int checkpoint_find_wrong(const struct safetensors_tensor *list, int count, size_t *element,
                          double *value) {
    for (int i = 0; i < count; i++) {
        const float *data = list[i].data;
        const bool variance = is_variance(&list[i]), floats = strcmp(list[i].dtype, "F32") == 0;
        for (size_t j = 0; floats && j < list[i].size / sizeof *data; j++)
            if (!isfinite(data[j]) || (variance && data[j] < 0)) {
                *element = j;
                *value = (double)data[j];
                return i;
            }
    }
    return -1;
}

static bool check_counter(const struct safetensors *file, const struct safetensors_tensor *counter,
                          struct error *error) {
    int64_t steps;
    memcpy(&steps, counter->data, sizeof steps);
    if (steps >= 0 && steps <= MOST_BATCHES)
        return true;
    return refuse(file, error,
                  "tensor %s, at byte %zu: is %lld; a number of steps from 0 to %lld is expected: "
                  "the file is damaged",
                  counter->name, counter->at, (long long)steps, (long long)MOST_BATCHES);
}

bool checkpoint_take(const struct safetensors *file, struct safetensors_tensor *list, int count,
                     struct error *error) {
    for (int i = 0; i < count; i++) {
        if (!safetensors_take(file, &list[i], error))
            return false;
        size_t element;
        double value;
        if (strcmp(list[i].dtype, "I64") == 0 && !check_counter(file, &list[i], error))
            return false;
        if (checkpoint_find_wrong(&list[i], 1, &element, &value) == 0)
            return refuse(file, error,
                          "tensor %s: element %zu, at byte %zu, is %g; %s is expected: the file is "
                          "damaged or its training had diverged",
                          list[i].name, element, list[i].at + element * sizeof(float), value,
                          is_variance(&list[i]) ? "a finite number from 0" : "a finite number");
    }
    return true;
}

static bool check_strangers(const struct safetensors *file, const struct safetensors_tensor *list,
                            struct error *error) {
    for (int j = 0; j < file->count; j++) {
        const char *name = file->tensors[j].name;
        int i = 0;
        while (i < NETWORK_TENSORS && strcmp(name, list[i].name) != 0)
            i++;
        if (i == NETWORK_TENSORS && strncmp(name, CHECKPOINT_MORE, strlen(CHECKPOINT_MORE)) != 0)
            return refuse(file, error,
                          "tensor %s, at byte %zu, is none of this network's %d: the file comes "
                          "from another network",
                          name, file->tensors[j].at, NETWORK_TENSORS);
    }
    return true;
}

bool checkpoint_load(const char *path, struct network_state *state, struct metadata *metadata,
                     struct error *error) {
    struct safetensors file;
    struct network_state read;
    struct safetensors_tensor list[NETWORK_TENSORS];
    if (!safetensors_load(&file, path, error))
        return false;
    network_state_new(&read);
    checkpoint_list(list, &read, "");
    bool good =
        checkpoint_take(&file, list, NETWORK_TENSORS, error) && check_strangers(&file, list, error);
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
