/* The readers of the data set: its folder, its batches, its class names.
 *
 * Input: a byte of bits, which files are missing (a bit each; one more is for a limit of two
 * images, and five classes), and the files. As FILES, the rest is cut into as many equal parts as
 * the part of the data set has files; as LABELS, each byte of such a part but the first is the
 * label of a record whose pixels are 0, and the first says how many bytes (from -128 to 127) the
 * file is longer; as NAMES, the rest is the file of the class names; as FOLDER, it is the folder's
 * name.
 *
 * Asserted: what is refused has an error of the right kind and leaves no memory behind; what is
 * accepted are the files' bytes, as far as the limit, in order, with no label that has no name, or
 * up to ten names in UTF-8. */
#include "fuzz.h"

#include "data/cifar10.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* The first byte. */
enum { TEST_PART = 1, KIND_AT = 1, KIND = 3 };
enum { FILES, LABELS, NAMES, FOLDER };

/* The files' numbers; the names of the folder BATCHES are links to them. */
enum { DESCRIPTOR = 100, NAMES_FILE = CIFAR10_TRAIN_FILES + 1, FILE_COUNT };
enum { FEWER = 5, MOST_RECORDS = 8, LONGEST = MOST_RECORDS * CIFAR10_RECORD };

static const char *name_of(int file) {
    if (file == NAMES_FILE)
        return cifar10_names_file;
    const bool test = file == CIFAR10_TRAIN_FILES;
    return cifar10_file(test ? CIFAR10_TEST : CIFAR10_TRAIN, test ? 0 : file);
}

/* The links stay in the build folder and fit every process. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    require(mkdir(BATCHES, 0777) == 0 || errno == EEXIST);
    for (int i = 0; i < FILE_COUNT; i++) {
        char link[4096], target[64];
        snprintf(link, sizeof link, "%s/%s", BATCHES, name_of(i));
        snprintf(target, sizeof target, "/proc/self/fd/%d", DESCRIPTOR + i);
        require(symlink(target, link) == 0 || errno == EEXIST);
    }
    return 0;
}

/* Which files are there is the same for many inputs in a row, as a rule. */
static void set_missing(int missing) {
    static bool there[FILE_COUNT];
    for (int i = 0; i < FILE_COUNT; i++) {
        const bool wanted = !(missing >> i & 1);
        if (wanted && !there[i])
            fuzz_file_new(DESCRIPTOR + i);
        if (!wanted && there[i])
            require(close(DESCRIPTOR + i) == 0);
        there[i] = wanted;
    }
}

/* What a file is to hold. */
struct content {
    uint8_t bytes[LONGEST + 128];
    size_t size;
};

static void make_content(struct content *content, int kind, const uint8_t *data, size_t size) {
    content->size = size < LONGEST ? size : LONGEST;
    if (kind != LABELS || size == 0) {
        memcpy(content->bytes, data, content->size);
        return;
    }
    const size_t records = size - 1 < MOST_RECORDS ? size - 1 : MOST_RECORDS;
    const int longer = (int8_t)data[0];
    memset(content->bytes, 0, sizeof content->bytes);
    for (size_t i = 0; i < records; i++)
        content->bytes[i * CIFAR10_RECORD] = data[1 + i];
    content->size = records * CIFAR10_RECORD;
    content->size = longer < 0 && content->size == 0 ? 0 : content->size + (size_t)longer;
}

static void try_part(int bits, int missing, const uint8_t *data, size_t size) {
    static struct content contents[CIFAR10_TRAIN_FILES];
    const int kind = bits >> KIND_AT & KIND;
    const enum cifar10_part part = bits & TEST_PART ? CIFAR10_TEST : CIFAR10_TRAIN;
    const int first = part == CIFAR10_TEST ? CIFAR10_TRAIN_FILES : 0;
    const int files = part == CIFAR10_TEST ? 1 : CIFAR10_TRAIN_FILES;
    const int64_t limit = missing >> FILE_COUNT & 1 ? 2 : 0;
    const size_t share = size / (size_t)files;
    struct cifar10_names names = cifar10_official_names;
    char folder[4096];
    struct cifar10 images;
    struct error error;
    if (limit > 0)
        names.name[FEWER][0] = '\0';
    bool all = true, whole = true;
    size_t total = 0;
    for (int i = 0; i < files; i++) {
        struct content *content = &contents[i];
        make_content(content, kind, data + (size_t)i * share, share);
        whole = whole && content->size > 0 && content->size % CIFAR10_RECORD == 0;
        total += content->size;
        if (!(missing >> (first + i) & 1))
            fuzz_file_fill(DESCRIPTOR + first + i, content->bytes, content->size, content->size);
        else
            all = false;
    }
    const int batches = (1 << NAMES_FILE) - 1;
    require(cifar10_find(folder, BATCHES, &error) == ((missing & batches) != batches));
    if (!cifar10_load(&images, BATCHES, &names, part, limit, &error)) {
        fuzz_check_error(&error, STATUS_DATA);
        require(images.records == NULL && images.count == 0);
        return;
    }
    require(all && whole && images.count >= 1);
    size_t left = (size_t)images.count * CIFAR10_RECORD;
    require(left == total || (limit > 0 && images.count == limit && left < total));
    const uint8_t *at = images.records;
    for (int i = 0; i < files; i++) {
        const size_t read = contents[i].size < left ? contents[i].size : left;
        require(memcmp(at, contents[i].bytes, read) == 0);
        at += read;
        left -= read;
    }
    for (int64_t i = 0; i < images.count; i++)
        require(images.records[i * CIFAR10_RECORD] < images.classes);
    cifar10_fingerprint(&images, 1);
    cifar10_free(&images);
}

static void try_names(int missing, const uint8_t *data, size_t size) {
    struct cifar10_names names;
    struct error error;
    const bool there = !(missing >> NAMES_FILE & 1);
    if (there)
        fuzz_file_fill(DESCRIPTOR + NAMES_FILE, data, size, size);
    if (!cifar10_load_names(&names, BATCHES, &error)) {
        fuzz_check_error(&error, STATUS_DATA);
        return;
    }
    const int count = cifar10_count_names(&names);
    require(count >= 1);
    for (int i = 0; i < CIFAR10_CLASSES; i++)
        require((names.name[i][0] != '\0') == (i < count));
    for (int i = 0; i < count; i++) {
        const char *name = names.name[i];
        require(memchr(name, '\0', CIFAR10_NAME) != NULL);
        for (const unsigned char *at = (const unsigned char *)name; *at != '\0'; at++)
            require(*at >= ' ' && *at != 0x7f && !(at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0));
        require(there || strcmp(name, cifar10_official_names.name[i]) == 0);
    }
}

/* The files are looked for only; none is read. */
static void try_folder(const uint8_t *data, size_t size) {
    char folder[4096], *dir = malloc(size + 1); /* on the heap, where reading on is noticed */
    struct error error;
    require(dir != NULL);
    memcpy(dir, data, size);
    dir[size] = '\0';
    if (cifar10_find(folder, dir, &error))
        require(folder[0] != '\0' && memchr(folder, '\0', sizeof folder) != NULL);
    else
        fuzz_check_error(&error, STATUS_DATA);
    free(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return -1;
    const int bits = data[0], missing = data[1];
    set_missing(missing);
    switch (bits >> KIND_AT & KIND) {
    case NAMES:
        try_names(missing, data + 2, size - 2);
        break;
    case FOLDER:
        try_folder(data + 2, size - 2);
        break;
    default:
        try_part(bits, missing, data + 2, size - 2);
        break;
    }
    return 0;
}
