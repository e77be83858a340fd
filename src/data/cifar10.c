#include "data/cifar10.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The batches: of the training images, and last that of the test images. */
enum { FILES = CIFAR10_TRAIN_FILES + 1 };
static const char *const BATCH_FILES[FILES] = {"data_batch_1.bin", "data_batch_2.bin",
                                               "data_batch_3.bin", "data_batch_4.bin",
                                               "data_batch_5.bin", "test_batch.bin"};
#define ALL_BATCHES "data_batch_1.bin .. data_batch_5.bin and test_batch.bin"

const char cifar10_names_file[] = "batches.meta.txt";
static const char USUAL_FOLDER[] = "cifar-10-batches-bin";

enum { LARGEST_BATCH = CIFAR10_MOST * CIFAR10_RECORD }; /* bytes */

/* How to get the right files, at the end of most messages. */
#define GET_DATA                                                                                   \
    "get the binary version with ./scripts/get_data.sh, or draw a stand-in with 'cifar-synth DIR'"
#define NAMES_EXPECTED "up to ten class names, one a line, are expected"
#define ORIGINAL       "30,730,000 bytes in the original"

/* The error of a file or folder of the data. */
#define refuse(error, path, ...) error_set_file(error, STATUS_DATA, path, __VA_ARGS__)

const struct cifar10_names cifar10_official_names = {
    {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}};

const char *cifar10_file(enum cifar10_part part, int index) {
    return BATCH_FILES[part == CIFAR10_TRAIN ? index : CIFAR10_TRAIN_FILES];
}

static int files_in(enum cifar10_part part) {
    return part == CIFAR10_TRAIN ? CIFAR10_TRAIN_FILES : 1;
}

static void path_of(char path[PATH_MAX], const char *folder, const char *name) {
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
}

static bool holds(const char *folder, const char *name) {
    char path[PATH_MAX];
    path_of(path, folder, name);
    return access(path, F_OK) == 0;
}

static bool holds_batches(const char *folder) {
    bool any = false;
    for (int i = 0; i < FILES; i++)
        any = any || holds(folder, BATCH_FILES[i]);
    return any;
}

/* What a folder without batches holds instead: things that people download in their place. */
static const struct {
    const char *name, *meaning;
} LOOKALIKES[] = {
    {"data_batch_1", "the Python version of CIFAR-10"},
    {"cifar-10-batches-py", "the Python version of CIFAR-10"},
    {"cifar-10-python.tar.gz", "the Python version of CIFAR-10, packed"},
    {"data_batch_1.mat", "the MATLAB version of CIFAR-10"},
    {"cifar-10-batches-mat", "the MATLAB version of CIFAR-10"},
    {"cifar-10-matlab.tar.gz", "the MATLAB version of CIFAR-10, packed"},
    {"fine_label_names.txt", "CIFAR-100"},
    {"cifar-100-binary", "CIFAR-100"},
    {"cifar-10-binary.tar.gz", "the binary version, but still packed"},
};

bool cifar10_find(char folder[4096], const char *dir, struct error *error) {
    if (dir[0] == '\0')
        return error_set(error, STATUS_DATA, "the name of the data folder is empty; name one");
    if (snprintf(folder, 4096, "%s", dir) >= 4000)
        return error_set(error, STATUS_DATA, "%.60s...: the name is too long for a folder", dir);
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        folder[--length] = '\0';
    if (holds_batches(folder))
        return true;
    snprintf(folder + length, 4096 - length, "/%s", USUAL_FOLDER);
    if (holds_batches(folder))
        return true;

    struct stat info;
    if (stat(dir, &info) != 0)
        return refuse(error, dir, "the data folder cannot be found: %s; " GET_DATA,
                      strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return refuse(error, dir,
                      "is not a folder; the folder that holds " ALL_BATCHES " is expected");
    if (access(dir, R_OK | X_OK) != 0)
        return refuse(error, dir, "the data folder cannot be read: %s", strerror(errno));
    for (size_t i = 0; i < sizeof LOOKALIKES / sizeof *LOOKALIKES; i++)
        if (holds(dir, LOOKALIKES[i].name))
            return refuse(error, dir,
                          "holds %s (%s), but the unpacked binary version is needed (" ALL_BATCHES
                          "); " GET_DATA,
                          LOOKALIKES[i].meaning, LOOKALIKES[i].name);
    return refuse(error, dir,
                  "holds no CIFAR-10 batches: neither " ALL_BATCHES
                  " nor a folder %s with them; " GET_DATA,
                  USUAL_FOLDER);
}

/* Opens batch `index` and checks its size. */
static bool open_batch(struct file *file, char path[PATH_MAX], const char *folder,
                       enum cifar10_part part, int index, struct error *error) {
    path_of(path, folder, cifar10_file(part, index));
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return refuse(error, path,
                      "this batch is missing; the folder must hold " ALL_BATCHES "; " GET_DATA);
    if (!file_open(file, path, STATUS_DATA, error))
        return false;
    if (file->size > 0 && file->size % CIFAR10_RECORD == 0 && file->size <= LARGEST_BATCH)
        return true;
    file_close(file);
    if (file->size > LARGEST_BATCH)
        return refuse(error, path, "has %zu bytes; at most %d are read (" ORIGINAL "); " GET_DATA,
                      file->size, LARGEST_BATCH);
    if (file->size == 0)
        return refuse(error, path,
                      "is empty; whole records of %d bytes are expected (" ORIGINAL "); " GET_DATA,
                      CIFAR10_RECORD);
    return refuse(error, path,
                  "has %zu bytes, which is no multiple of the record's %d bytes: the last record, "
                  "from byte %zu on, is cut short or the file is another format (" ORIGINAL
                  "); " GET_DATA,
                  file->size, CIFAR10_RECORD, file->size - file->size % CIFAR10_RECORD);
}

static bool check_labels(const uint8_t *records, size_t size, int classes, const char *path,
                         struct error *error) {
    char named[64] = "";
    if (classes < CIFAR10_CLASSES)
        snprintf(named, sizeof named, " (%s names %d)", cifar10_names_file, classes);
    for (size_t at = 0; at < size; at += CIFAR10_RECORD)
        if (records[at] >= classes)
            return refuse(error, path,
                          "byte %zu, the label of image %zu, is %d; a label from 0 to %d is "
                          "expected%s: the file is damaged or another format; " GET_DATA,
                          at, at / CIFAR10_RECORD, records[at], classes - 1, named);
    return true;
}

bool cifar10_load(struct cifar10 *images, const char *folder, const struct cifar10_names *names,
                  enum cifar10_part part, int64_t limit, struct error *error) {
    const size_t most = limit > 0 ? (size_t)limit * CIFAR10_RECORD : SIZE_MAX;
    size_t read = 0;
    bool good = true;
    *images = (struct cifar10){.classes = cifar10_count_names(names)};
    for (int i = 0; good && i < files_in(part); i++) {
        struct file file;
        char path[PATH_MAX];
        good = open_batch(&file, path, folder, part, i, error);
        if (!good)
            break;
        const size_t size = file.size < most - read ? file.size : most - read;
        if (size > 0) {
            images->records = memory_resize(images->records, read + size);
            good = file_read(&file, images->records + read, size, error) &&
                   check_labels(images->records + read, size, images->classes, path, error);
        }
        read += size;
        file_close(&file);
    }
    images->count = (int64_t)(read / CIFAR10_RECORD);
    if (!good)
        cifar10_free(images);
    return good;
}

static uint64_t mix(uint64_t sum, uint64_t word) {
    sum ^= word;
    sum = sum << 31 | sum >> 33;
    return sum * UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / the golden ratio, odd */
}

void cifar10_hold_out(struct cifar10 *images, struct cifar10 *held, int64_t count, uint64_t seed) {
    const int64_t left = images->count - count;
    uint32_t *order = memory_new((size_t)images->count, sizeof *order);
    bool *is_held = memory_new((size_t)images->count, sizeof *is_held);
    struct random random;
    require(0 < count && 0 < left);
    random_seed(&random, seed ^ 0x55555555U); /* not the draws that other choices are made of */
    random_permutation(&random, order, (uint32_t)images->count);
    for (int64_t i = left; i < images->count; i++)
        is_held[order[i]] = true;
    *held = (struct cifar10){.records = memory_new((size_t)count, CIFAR10_RECORD),
                             .count = count,
                             .classes = images->classes};
    uint8_t *to = held->records, *stay = images->records;
    for (int64_t i = 0; i < images->count; i++) {
        uint8_t **place = is_held[i] ? &to : &stay;
        memmove(*place, images->records + i * CIFAR10_RECORD, CIFAR10_RECORD);
        *place += CIFAR10_RECORD;
    }
    images->count = left;
    free(order);
    free(is_held);
}

uint64_t cifar10_fingerprint(const struct cifar10 *images, uint64_t seed) {
    enum { LANES = 8 }; /* that do not wait for each other */
    uint64_t sum = mix(seed, (uint64_t)images->count), lane[LANES] = {0}, words[LANES];
    const uint8_t *at = images->records;
    size_t left = (size_t)images->count * CIFAR10_RECORD;
    for (; left > 0; left -= left < sizeof words ? left : sizeof words, at += sizeof words) {
        if (left < sizeof words)
            memset(words, 0, sizeof words);
        memcpy(words, at, left < sizeof words ? left : sizeof words);
        for (int i = 0; i < LANES; i++)
            lane[i] = mix(lane[i], words[i]);
    }
    for (int i = 0; i < LANES; i++)
        sum = mix(sum, lane[i]);
    return sum ^ sum >> 32;
}

void cifar10_free(struct cifar10 *images) {
    free(images->records);
    *images = (struct cifar10){0};
}

bool cifar10_can_be_name(const char *text) {
    return text[0] != '\0' && strlen(text) < CIFAR10_NAME && text_is_clean(text);
}

int cifar10_count_names(const struct cifar10_names *names) {
    int count = 0;
    while (count < CIFAR10_CLASSES && names->name[count][0] != '\0')
        count++;
    return count;
}

int cifar10_compare_names(const struct cifar10_names *a, const struct cifar10_names *b) {
    int label = 0;
    while (label < CIFAR10_CLASSES && strcmp(a->name[label], b->name[label]) == 0)
        label++;
    return label;
}

bool cifar10_load_names(struct cifar10_names *names, const char *folder, struct error *error) {
    enum { MOST = 1024 }; /* bytes; the original has 61 */
    char path[PATH_MAX], text[MOST + 1];
    struct file file;
    path_of(path, folder, cifar10_names_file);
    if (access(path, F_OK) != 0) {
        *names = cifar10_official_names;
        return true;
    }
    if (!file_open(&file, path, STATUS_DATA, error))
        return false;
    const bool good = file.size <= MOST
                          ? file_read(&file, (uint8_t *)text, file.size, error)
                          : refuse(error, path, "has %zu bytes; " NAMES_EXPECTED, file.size);
    file_close(&file);
    if (!good)
        return false;
    text[file.size] = '\0';
    if (strlen(text) != file.size)
        return refuse(error, path, "byte %zu is 0; " NAMES_EXPECTED, strlen(text));

    int label = 0;
    char *rest = text;
    *names = (struct cifar10_names){0};
    for (char *line; (line = strsep(&rest, "\r\n")) != NULL;) {
        if (line[0] == '\0')
            continue; /* the original ends in an empty line */
        if (label == CIFAR10_CLASSES || !cifar10_can_be_name(line))
            return refuse(error, path,
                          "byte %td: found '%.40s'; up to ten class names of at most %d bytes of "
                          "UTF-8 without control characters, one a line, are expected; without "
                          "this file the official names are used",
                          line - text, line, CIFAR10_NAME - 1);
        snprintf(names->name[label++], CIFAR10_NAME, "%s", line);
    }
    return label > 0 || refuse(error, path,
                               "ends at byte %zu without a class name; " NAMES_EXPECTED
                               "; without this file the official names are used",
                               file.size);
}

bool cifar10_save(const struct cifar10 *images, const char *folder, enum cifar10_part part,
                  struct error *error) {
    const int files = files_in(part);
    require(images->count >= files);
    int64_t from = 0;
    for (int i = 0; i < files; i++) {
        char path[PATH_MAX];
        int64_t to = images->count * (i + 1) / files;
        path_of(path, folder, cifar10_file(part, i));
        if (!file_replace(path, images->records + from * CIFAR10_RECORD,
                          (size_t)(to - from) * CIFAR10_RECORD, error))
            return false;
        from = to;
    }
    return true;
}

bool cifar10_save_names(const struct cifar10_names *names, const char *folder,
                        struct error *error) {
    char path[PATH_MAX], text[CIFAR10_CLASSES * (CIFAR10_NAME + 1) + 1] = "";
    size_t size = 0;
    for (int i = 0; i < cifar10_count_names(names); i++)
        size += (size_t)sprintf(text + size, "%s\n", names->name[i]);
    path_of(path, folder, cifar10_names_file);
    return file_replace(path, text, size, error);
}

bool cifar10_is_name(const char *name) {
    bool is = strcmp(name, cifar10_names_file) == 0;
    for (int i = 0; i < FILES; i++)
        is = is || strcmp(name, BATCH_FILES[i]) == 0;
    return is;
}

bool cifar10_is_file(const char *path) {
    enum { MOST = 1000 }; /* records that are looked at */
    const char *slash = strrchr(path, '/');
    struct file file;
    struct error error;
    if (cifar10_is_name(slash != NULL ? slash + 1 : path))
        return true;
    if (!file_open(&file, path, STATUS_DATA, &error))
        return false;
    bool is = file.size > 0 && file.size % CIFAR10_RECORD == 0;
    for (size_t at = 0; is && at < file.size && at < (size_t)MOST * CIFAR10_RECORD;
         at += CIFAR10_RECORD) {
        uint8_t label;
        is = pread(file.descriptor, &label, 1, (off_t)at) == 1 && label < CIFAR10_CLASSES;
    }
    file_close(&file);
    return is;
}
