#include "net/safetensors.h"

#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"

#include <endian.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define refuse safetensors_refuse

enum { PREFIX = 8 }; /* bytes of the header's length */

static const char METADATA[] = "__metadata__";

/* Files with this key in their metadata were written by this program. */
static const char PROGRAM[] = "program";

static const struct {
    const char *name;
    size_t size;
} DTYPES[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
    {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8},
};

size_t safetensors_size(const char *dtype) {
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (strcmp(DTYPES[i].name, dtype) == 0)
            return DTYPES[i].size;
    return 0;
}

/* ---- checksums ---- */

static void compute_crc32(char *digits, const void *bytes, size_t size) {
    snprintf(digits, 9, "%08lx", crc32_z(0, bytes, size));
}

/* In the order in which they are computed: each with '0' in the place of its own digits and of
 * those that come later. The first came second, so that programs that know the other alone read on.
 */
static const struct checksum {
    const char *key, *before; /* what stands before the digits in a header written here */
    const char *none;         /* the digits while it is computed */
    void (*compute)(char *digits, const void *bytes, size_t size);
} CHECKSUMS[] = {
    {"xxh3_128", "\"xxh3_128\":\"", "00000000000000000000000000000000", digest_bytes},
    {"crc32", "\"crc32\":\"", "00000000", compute_crc32},
};
enum { CHECKSUM_COUNT = sizeof CHECKSUMS / sizeof *CHECKSUMS };

/* Where the digits are in the header (the first bytes of the file); NULL: nowhere. */
static uint8_t *find_checksum(const struct checksum *sum, uint8_t *bytes, size_t header) {
    const size_t text = strlen(sum->before);
    uint8_t *found = memmem(bytes, header, sum->before, text);
    if (found == NULL || found + text + strlen(sum->none) > bytes + header)
        return NULL;
    return found + text;
}

static void put_checksums(uint8_t *bytes, size_t header, size_t size) {
    for (int i = 0; i < CHECKSUM_COUNT; i++) {
        char digits[DIGEST_DIGITS + 1];
        CHECKSUMS[i].compute(digits, bytes, size);
        memcpy(find_checksum(&CHECKSUMS[i], bytes, header), digits, strlen(digits));
    }
}

/* ---- writing ---- */

static char *header_of(const struct safetensors_tensor *tensors, int count,
                       const struct metadata *metadata) {
    json_t *header = json_object(), *texts = json_object();
    for (int i = 0; i < metadata->count; i++)
        json_object_set_new(texts, metadata->entry[i].key, json_string(metadata->entry[i].value));
    for (int i = 0; i < CHECKSUM_COUNT; i++)
        json_object_set_new(texts, CHECKSUMS[i].key, json_string(CHECKSUMS[i].none));
    json_object_set_new(header, METADATA, texts);
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        json_t *shape = json_array();
        for (int j = 0; j < tensors[i].rank; j++)
            json_array_append_new(shape, json_integer(tensors[i].shape[j]));
        json_object_set_new(header, tensors[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape",
                                      shape, "data_offsets", (json_int_t)offset,
                                      (json_int_t)(offset + tensors[i].size)));
        offset += tensors[i].size;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    require(text != NULL);
    json_decref(header);
    return text;
}

bool safetensors_save(const char *path, const struct safetensors_tensor *given, int count,
                      const struct metadata *metadata, struct error *error) {
    struct safetensors_tensor *tensors = memory_new((size_t)count, sizeof *tensors);
    int ordered = 0;
    for (size_t width = 8; width > 0; width /= 2)
        for (int i = 0; i < count; i++)
            if (safetensors_size(given[i].dtype) == width)
                tensors[ordered++] = given[i];
    require(ordered == count);
    char *header = header_of(tensors, count, metadata);
    /* spaces fill the header up so that the data is aligned, as the format asks */
    size_t text = strlen(header), length = (text + 7) / 8 * 8, size = PREFIX + length;
    for (int i = 0; i < count; i++)
        size += tensors[i].size;
    uint8_t *bytes = memory_new(size, 1), *at = bytes + PREFIX + length;
    memcpy(bytes, &(uint64_t){htole64(length)}, PREFIX);
    memset(bytes + PREFIX, ' ', length);
    memcpy(bytes + PREFIX, header, text);
    for (int i = 0; i < count; at += tensors[i].size, i++)
        memcpy(at, tensors[i].data, tensors[i].size);
    put_checksums(bytes, PREFIX + length, size);
    bool good = file_replace(path, bytes, size, error);
    free(bytes);
    free(header);
    free(tensors);
    return good;
}

/* ---- reading ---- */

/* What every message about a file that is no safetensors file ends with. */
#define EXPECTED                                                                                   \
    "a safetensors checkpoint, as cifar-train or safetensors.torch.save_file writes it, is "       \
    "expected"

static bool get_shape(struct safetensors_tensor *tensor, const json_t *shape) {
    size_t index;
    const json_t *dimension;
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_RANK)
        return false;
    tensor->rank = (int)json_array_size(shape);
    json_array_foreach(shape, index, dimension) {
        if (!json_is_integer(dimension) || json_integer_value(dimension) < 0)
            return false;
        tensor->shape[index] = json_integer_value(dimension);
    }
    return true;
}

/* The bytes that the shape needs; false if there are more than any file has. */
static bool bytes_needed(const struct safetensors_tensor *tensor, size_t *needed) {
    *needed = safetensors_size(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(*needed, (size_t)tensor->shape[i], needed))
            return false;
    return true;
}

/* One entry of the header. `data` is where the data begins in the file, `size` its bytes. */
static bool get_tensor(struct safetensors *file, const char *name, const json_t *entry, size_t data,
                       size_t size, struct error *error) {
    struct safetensors_tensor *tensor = &file->tensors[file->count];
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);

    if (strlen(name) >= SAFETENSORS_NAME)
        return refuse(file, error,
                      "the header names a tensor '%.60s...', longer than %d bytes; " EXPECTED, name,
                      SAFETENSORS_NAME - 1);
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    if (dtype == NULL || safetensors_size(dtype) == 0)
        return refuse(file, error,
                      "tensor %s: dtype is %.20s; one of F32, I64 or another of the safetensors "
                      "format is expected",
                      name, dtype != NULL ? dtype : "missing or no text");
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", dtype);
    if (!get_shape(tensor, json_object_get(entry, "shape")))
        return refuse(file, error,
                      "tensor %s: the shape is missing or wrong; a list of at most %d whole "
                      "numbers from 0 is expected",
                      name, SAFETENSORS_RANK);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return refuse(file, error,
                      "tensor %s: data_offsets is missing or wrong; [begin, end] is expected",
                      name);
    const json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > size)
        return refuse(file, error,
                      "tensor %s: data_offsets are [%lld, %lld], but the file has %zu bytes of "
                      "data (from byte %zu on); it is cut short or damaged",
                      name, (long long)from, (long long)to, size, data);
    size_t needed = 0;
    tensor->size = (size_t)(to - from);
    const bool possible = bytes_needed(tensor, &needed);
    if (!possible || needed != tensor->size) {
        char text[32] = "more than any file has";
        if (possible)
            snprintf(text, sizeof text, "%zu", needed);
        return refuse(
            file, error,
            "tensor %s, at byte %zu: has %zu bytes, but its shape and its dtype %s need %s", name,
            data + (size_t)from, tensor->size, tensor->dtype, text);
    }
    tensor->at = data + (size_t)from;
    tensor->data = file->bytes + tensor->at;
    file->count++;
    return true;
}

static bool get_metadata(struct safetensors *file, json_t *texts, struct error *error) {
    struct metadata *metadata = &file->metadata;
    const char *key;
    json_t *value;
    bool good = json_is_object(texts);
    json_object_foreach(texts, key, value) {
        good = good && json_is_string(value);
        if (good && metadata->count < METADATA_MOST &&
            strlen(key) < sizeof metadata->entry[0].key &&
            json_string_length(value) < sizeof metadata->entry[0].value)
            metadata_set(metadata, key, "%s", json_string_value(value));
    }
    return good || refuse(file, error, "the header's %s is wrong; an object of texts is expected",
                          METADATA);
}

static int by_place(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* Tensors must lie side by side, from the beginning of the data to its end. */
static bool check_places(const struct safetensors *file, size_t data, size_t end,
                         struct error *error) {
    size_t at = data;
    for (int i = 0; i < file->count; at += file->tensors[i].size, i++)
        if (file->tensors[i].at != at)
            return refuse(file, error,
                          "tensor %s begins at byte %zu, but %s at byte %zu: tensors must neither "
                          "overlap nor leave gaps",
                          file->tensors[i].name, file->tensors[i].at,
                          i == 0 ? "the data begins" : "the one before it ends", at);
    if (at != end)
        return refuse(file, error,
                      "the last tensor ends at byte %zu, but the file has %zu bytes: something "
                      "else has been added to it",
                      at, end);
    return true;
}

/* And takes them out of the metadata. */
static bool check_checksums(struct safetensors *file, size_t header, size_t size,
                            struct error *error) {
    bool any = false;
    for (int i = CHECKSUM_COUNT - 1; i >= 0; i--) {
        const struct checksum *sum = &CHECKSUMS[i];
        const char *expected = metadata_get(&file->metadata, sum->key);
        char found[DIGEST_DIGITS + 1] = "another";
        uint8_t *digits = find_checksum(sum, file->bytes, header);
        if (digits != NULL) {
            memcpy(digits, sum->none, strlen(sum->none));
            sum->compute(found, file->bytes, size);
        }
        const bool none = expected == NULL || expected[0] == '\0';
        any = any || !none;
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
        continue; /* no fuzzer guesses a checksum, and what lies behind it is to be tested */
#endif
        if (!none && strcmp(found, expected) != 0)
            return refuse(
                file, error,
                "the %s of its %zu bytes is %s, but its metadata says '%s': the file is damaged, "
                "or another program saved it with the metadata of ours: save it again without, as "
                "PyTorch does by save_file(tensors, file, metadata={'format': 'pt'})",
                sum->key, size, found, expected);
    }
    for (int i = 0; i < CHECKSUM_COUNT; i++)
        metadata_remove(&file->metadata, CHECKSUMS[i].key);
    const char *program = metadata_get(&file->metadata, PROGRAM);
    if (any || program == NULL) /* another program's file */
        return true;
    return refuse(file, error,
                  "its metadata names the program that wrote it, '%.40s', but no %s, which that "
                  "one writes: the file is damaged or was changed; another program that writes one "
                  "must leave the key '%s' out",
                  program, CHECKSUMS[CHECKSUM_COUNT - 1].key, PROGRAM);
}

static bool parse(struct safetensors *file, size_t size, struct error *error) {
    uint64_t length;
    memcpy(&length, file->bytes, PREFIX);
    length = le64toh(length);
    if (length > SAFETENSORS_HEADER && length <= size - PREFIX)
        return refuse(file, error, "bytes 0 to 7 give a header of %llu bytes; at most %d are read",
                      (unsigned long long)length, SAFETENSORS_HEADER);
    if (length < 2 || length > size - PREFIX)
        return refuse(file, error,
                      "bytes 0 to 7 give a header of %llu bytes, but %zu follow: the file is cut "
                      "short or another format; " EXPECTED,
                      (unsigned long long)length, size - PREFIX);
    const size_t data = PREFIX + (size_t)length;

    json_error_t where;
    json_t *header = json_loadb((const char *)file->bytes + PREFIX, (size_t)length,
                                JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(header)) {
        if (header != NULL)
            where.position = 0;
        json_decref(header);
        return refuse(file, error, "the header is no JSON object: byte %zu: %s; " EXPECTED,
                      PREFIX + (size_t)(where.position > 0 ? where.position : 0),
                      header == NULL ? where.text : "another kind of value");
    }
    file->tensors = memory_new(json_object_size(header), sizeof *file->tensors);
    const char *name;
    json_t *entry;
    bool good = true;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, METADATA) == 0)
            good = get_metadata(file, entry, error);
        else
            good = get_tensor(file, name, entry, data, size - data, error);
        if (!good)
            break;
    }
    json_decref(header);
    if (!good)
        return false;
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_place);
    return check_places(file, data, size, error) && check_checksums(file, data, size, error);
}

bool safetensors_load(struct safetensors *file, const char *path, struct error *error) {
    struct file source;
    *file = (struct safetensors){.path = path};
    if (!file_open(&source, path, STATUS_CHECKPOINT, error))
        return false;
    const size_t size = source.size;
    bool good = (size >= PREFIX && size <= SAFETENSORS_LARGEST) ||
                refuse(file, error, "has %zu bytes; from %d to %d are possible; " EXPECTED, size,
                       PREFIX, SAFETENSORS_LARGEST);
    if (good) {
        file->bytes = memory_new(size, 1);
        good = file_read(&source, file->bytes, size, error) && parse(file, size, error);
    }
    file_close(&source);
    if (!good)
        safetensors_free(file);
    return good;
}

void safetensors_free(struct safetensors *file) {
    free(file->tensors);
    free(file->bytes);
    *file = (struct safetensors){0};
}

/* ---- taking tensors out of a file ---- */

const struct safetensors_tensor *safetensors_find(const struct safetensors *file,
                                                  const char *name) {
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

static void shape_text(char *text, size_t size, const struct safetensors_tensor *tensor) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < tensor->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i == 0 ? "" : ", ",
                                 (long long)tensor->shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

bool safetensors_take(const struct safetensors *file, struct safetensors_tensor *wanted,
                      struct error *error) {
    const struct safetensors_tensor *found = safetensors_find(file, wanted->name);
    if (found == NULL)
        return refuse(
            file, error,
            "tensor %s is missing among the file's %d tensors: the file comes from another network",
            wanted->name, file->count);
    if (strcmp(found->dtype, wanted->dtype) != 0)
        return refuse(file, error, "tensor %s, at byte %zu: its dtype is %s, but %s is expected",
                      found->name, found->at, found->dtype, wanted->dtype);
    bool same = found->rank == wanted->rank;
    for (int i = 0; i < wanted->rank; i++)
        same = same && found->shape[i] == wanted->shape[i];
    if (!same) {
        char found_text[200], wanted_text[200];
        shape_text(found_text, sizeof found_text, found);
        shape_text(wanted_text, sizeof wanted_text, wanted);
        return refuse(file, error,
                      "tensor %s, at byte %zu: its shape is %s, but %s is expected: the file comes "
                      "from another network",
                      found->name, found->at, found_text, wanted_text);
    }
    require(found->size == wanted->size);
    memcpy(wanted->data, found->data, found->size);
    wanted->at = found->at;
    return true;
}
