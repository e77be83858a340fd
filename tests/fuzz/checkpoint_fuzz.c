/* The readers of checkpoints and of training states, and the settings in a state's metadata.
 *
 * Input: a byte of bits, then the file. Plain inputs of a useful length can never be a whole
 * network, so with the bit HEADER_ONLY they are what a header needs beside itself:
 *
 *     2 bytes             how many bytes of data the file has, zeros
 *     0 to 7 patches of   2 bytes: an offset in the data, 8 bytes: what is there instead of zeros
 *     the header          without its length
 *
 * And the network is a small one here, with the names and ranks of the real one and no dimension
 * above 2: to read and check its 200 KB takes a hundred times as long and finds nothing more.
 *
 * Asserted: parsed JSON takes at most 100 times its size and 512 KiB; what is refused has an error
 * of the right kind and leaves the network as it was; what is accepted holds only numbers that a
 * training can go on from, and metadata that run_settings_adopt() refuses or makes settings of that
 * are in their ranges, and that names no classes or ten. */
#include "fuzz.h"

#include "app/classes.h"
#include "train/train_state.h"

#include <jansson.h>
#include <math.h>
#include <sanitizer/asan_interface.h>

/* The first byte: the reader, the kind of input, the number of patches. */
enum { RESUME = 1, HEADER_ONLY = 2, PATCHES_AT = 2, PATCHES = 7 };
enum { PREFIX = 8, NUMBER = 2, PATCH = NUMBER + 8 };

enum { DESCRIPTOR = 100 };
static const char PATH[] = "/proc/self/fd/100";

static struct network_state state, before;
static struct settings plain, particular;

/* ---- jansson's memory: thousands of small pieces for one header ----
 *
 * They come from one row, many times faster than malloc() under the sanitizer, which still notices
 * whoever reads one that was freed, or goes beyond its end. */

enum { ROW = 32 << 20, GAP = 16 };
static _Alignas(GAP) uint8_t row[ROW];
static size_t row_used;   /* bytes, since no piece was in use */
static size_t row_most;   /* that the input may use */
static size_t row_pieces; /* in use */

__attribute__((no_sanitize("address"))) static void *take_piece(size_t size) {
    uint8_t *piece = row + row_used + GAP; /* its size is in the gap */
    row_used += GAP + (size + GAP - 1) / GAP * GAP;
    require(size < ROW && row_used <= row_most);
    *(size_t *)(void *)(piece - GAP) = size;
    __asan_unpoison_memory_region(piece, size);
    row_pieces++;
    return piece;
}

__attribute__((no_sanitize("address"))) static void free_piece(void *piece) {
    if (piece == NULL)
        return;
    __asan_poison_memory_region(piece, *(size_t *)(void *)((uint8_t *)piece - GAP));
    if (--row_pieces == 0)
        row_used = 0;
}

/* 100 bytes for one of the header; a list in a list takes more, but jansson goes 2,048 deep only.
 */
static void limit_row(size_t header) {
    const size_t most = 2048 * 256 + 100 * header;
    row_most = most < ROW ? most : ROW;
}

/* ---- the beginning ---- */

static void shrink_network(void) {
    struct network_plan *plan = (struct network_plan *)network_plan();
    plan->parameters = plan->statistics = 0;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        struct network_tensor *tensor = &plan->tensors[i];
        size_t *end = tensor->kind == PARAMETER ? &plan->parameters : &plan->statistics;
        tensor->count = 1;
        for (int j = 0; j < tensor->rank; j++) {
            tensor->shape[j] = tensor->shape[j] < 2 ? tensor->shape[j] : 2;
            tensor->count *= (size_t)tensor->shape[j];
        }
        if (tensor->kind != COUNTER) {
            tensor->offset = *end;
            *end += tensor->count;
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    struct error error;
    const char *few[] = {"cifar-train", "--resume", "x", NULL};
    const char *many[] = {"cifar-train", "--resume=x", "--epochs=7",       "--device=cpu",
                          "--lr=0.5",    "--batch=20", "--precision=tf32", NULL};
    (void)argc, (void)argv;
    require(fuzz_parse(&plain, few, &error) && fuzz_parse(&particular, many, &error));
    json_object_seed(1); /* the same input takes the same way each time */
    __asan_poison_memory_region(row, ROW);
    json_set_alloc_funcs(take_piece, free_piece);
    fuzz_file_new(DESCRIPTOR);
    shrink_network();
    network_state_new(&state);
    network_state_new(&before);
    for (size_t i = 0; i < network_plan()->parameters; i++)
        state.parameters[i] = (float)i;
    state.batches = 12345;
    network_state_copy(&before, &state);
    return 0;
}

static size_t number(const uint8_t *bytes) {
    return (size_t)bytes[0] | (size_t)bytes[1] << 8;
}

/* Writes the file that the input means; false: the input is too short. */
static bool write_file(int bits, const uint8_t *data, size_t size) {
    static uint8_t begin[1 << 20];
    if (!(bits & HEADER_ONLY)) {
        fuzz_file_fill(DESCRIPTOR, data, size, size);
        return true;
    }
    const size_t patches = (size_t)(bits >> PATCHES_AT & PATCHES), first = NUMBER + patches * PATCH;
    if (size < first || size - first > sizeof begin - PREFIX)
        return false;
    const size_t length = size - first, after = number(data);
    for (int i = 0; i < PREFIX; i++)
        begin[i] = (uint8_t)((uint64_t)length >> (8 * i));
    memcpy(begin + PREFIX, data + first, length);
    fuzz_file_fill(DESCRIPTOR, begin, PREFIX + length, PREFIX + length + after);
    for (const uint8_t *patch = data + NUMBER; patch < data + first; patch += PATCH) {
        const size_t at = number(patch);
        if (at + 8 <= after)
            require(pwrite(DESCRIPTOR, patch + NUMBER, 8, (off_t)(PREFIX + length + at)) == 8);
    }
    return true;
}

/* ---- what must be true of an accepted file ---- */

static void check_floats(const float *floats, size_t count, bool variances) {
    for (size_t i = 0; i < count; i++)
        require(isfinite(floats[i]) && !(variances && floats[i] < 0));
}

static void check_count(int64_t count) {
    require(count >= 0 && count <= INT64_C(1) << 53);
}

static void check_network(const struct network_state *network) {
    check_floats(network->parameters, network_plan()->parameters, false);
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        if (tensor->kind == STATISTIC)
            check_floats(network_tensor_data(network, tensor), tensor->count,
                         strstr(tensor->name, "running_var") != NULL);
    }
    check_count(network->batches);
}

static void check_adoption(struct settings settings, const struct metadata *about) {
    struct metadata own = *about; /* whose texts the settings borrow */
    struct error error;
    if (run_settings_adopt(&settings, &own, &error))
        fuzz_check_settings(&settings);
    else
        fuzz_check_error(&error, error.status == STATUS_USAGE ? STATUS_USAGE : STATUS_CHECKPOINT);
}

/* The names of the classes can be printed, and are found again. */
static void check_classes(const struct metadata *about) {
    struct cifar10_names names, again;
    struct metadata recorded = {0};
    struct error error;
    bool told;
    if (!classes_find(&names, &told, about, PATH, &error)) {
        fuzz_check_error(&error, STATUS_CHECKPOINT);
        return;
    }
    require(cifar10_count_names(&names) >= 1);
    for (int i = 0; i < cifar10_count_names(&names); i++)
        require(cifar10_can_be_name(names.name[i]));
    classes_record(&recorded, &names);
    require(classes_find(&again, &told, &recorded, PATH, &error) && told);
    require(cifar10_compare_names(&names, &again) == CIFAR10_CLASSES);
}

static void check_metadata(const struct metadata *about) {
    require(about->count >= 0 && about->count <= METADATA_MOST);
    for (int i = 0; i < about->count; i++)
        require(metadata_get(about, about->entry[i].key) == about->entry[i].value &&
                memchr(about->entry[i].value, '\0', METADATA_VALUE) != NULL);
    check_adoption(plain, about);
    check_adoption(particular, about);
    check_classes(about);
}

static void check_state(const struct train_state *s) {
    const size_t parameters = network_plan()->parameters;
    struct error error;
    char name[SAFETENSORS_NAME];
    double value;
    require(!train_state_is_wrong(s, name, &value));
    check_network(&s->network);
    check_floats(s->exp_avg, parameters, false);
    check_floats(s->exp_avg_sq, parameters, true);
    check_count(s->steps);
    if (s->averaged)
        check_floats(s->average, parameters, false);
    check_count(s->step);
    require(s->random.next >= 0 && s->random.next <= 624);
    require(s->epoch >= 1 && s->epoch <= INT64_C(1) << 31);
    require(isfinite(s->total) && s->total >= 0 && isfinite(s->running) && s->running >= 0);
    require(s->best.epoch >= 0 && s->best.epoch < s->epoch);
    if (s->best.epoch > 0) {
        check_network(&s->best.network);
        require(s->best.accuracy >= 0 && s->best.accuracy <= 100);
        require(isfinite(s->best.loss) && s->best.loss >= 0);
    }
    if (train_state_fits(s, INT64_C(1) << 32, 5000, s->averaged, PATH, &error))
        require(s->step < 5000 && s->steps == (s->epoch - 1) * 5000 + s->step);
    else
        fuzz_check_error(&error, STATUS_CHECKPOINT);
}

/* ---- the readers ---- */

static void load_state(void) {
    struct train_state read;
    struct metadata about;
    struct error error;
    if (!train_state_load(PATH, &read, &about, &error)) {
        fuzz_check_error(&error, STATUS_CHECKPOINT);
        return; /* nothing to free, or the leak checker will tell */
    }
    check_state(&read);
    check_metadata(&about);
    train_state_free(&read);
}

static void load_network(void) {
    const struct network_state was = state;
    struct metadata about;
    struct error error;
    const bool good = checkpoint_load(PATH, &state, &about, &error);
    if (good) {
        check_network(&state);
        check_metadata(&about);
        network_state_copy(&state, &before); /* for the next input */
        return;
    }
    fuzz_check_error(&error, STATUS_CHECKPOINT);
    require(state.parameters == was.parameters && state.statistics == was.statistics &&
            state.batches == before.batches);
    require(memcmp(state.parameters, before.parameters,
                   network_plan()->parameters * sizeof(float)) == 0);
    require(memcmp(state.statistics, before.statistics,
                   network_plan()->statistics * sizeof(float)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || !write_file(data[0], data + 1, size - 1))
        return -1;
    limit_row(size);
    if (data[0] & RESUME)
        load_state();
    else
        load_network();
    require(row_pieces == 0);
    return 0;
}
