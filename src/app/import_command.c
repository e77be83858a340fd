#include "app/commands.h"
#include "app/data_set.h"
#include "app/pictures.h"
#include "app/print.h"
#include "app/workplace.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Pictures that there is room for in the files of a data set. */
enum { MOST_TRAIN = CIFAR10_TRAIN_FILES * CIFAR10_MOST, MOST = MOST_TRAIN + CIFAR10_MOST };

/* What became of one class's pictures. */
struct class_count {
    int64_t images, test; /* the rest are training images */
    int64_t left_out;     /* files that could not be read, or have no picture's name */
};

struct import {
    const struct settings *settings;
    struct cifar10_names names;
    struct class_count counts[CIFAR10_CLASSES];
    struct cifar10 all; /* class by class, in order of name */
    int64_t room;       /* records that `all` has memory for */
};

/* ---- the classes ---- */

static void path_of(char path[PATH_MAX], const char *dir, const char *name) {
    snprintf(path, PATH_MAX, "%s/%s", dir, name);
}

/* Whether a folder is another one or lies in it; both as realpath() writes them. */
static bool lies_in(const char *inner, const char *outer) {
    const size_t length = strlen(outer);
    return strncmp(inner, outer, length) == 0 &&
           (length == 1 || inner[length] == '/' || inner[length] == '\0');
}

/* Whether each folder is one class's: none leads to another, or to what holds them all. (What is
 * linked below them is not looked at.) */
static bool check_folders(const struct import *import, struct error *error) {
    char path[PATH_MAX], real[1 + CIFAR10_CLASSES][PATH_MAX]; /* of DIR and the classes */
    for (int i = 0; i <= import->all.classes; i++) {
        const char *dir = import->settings->words[0];
        path_of(path, dir, i > 0 ? import->names.name[i - 1] : ".");
        if (realpath(path, real[i]) == NULL)
            return error_set_file(error, STATUS_DATA, path, "cannot be read: %s", strerror(errno));
        for (int k = 0; k < i; k++)
            if (lies_in(real[k], real[i]) || (k > 0 && lies_in(real[i], real[k])))
                return error_set_file(error, STATUS_DATA, path,
                                      "leads to pictures of %s, too: a folder for each class, with "
                                      "its own pictures, is expected",
                                      k > 0 ? import->names.name[k - 1] : "the other classes");
    }
    return true;
}

static bool add_class(struct import *import, const char *name, struct error *error) {
    const char *dir = import->settings->words[0];
    if (import->all.classes == CIFAR10_CLASSES)
        return error_set_file(error, STATUS_DATA, dir,
                              "holds more than ten folders; the network has ten outputs, so up to "
                              "ten classes, a folder each, are expected");
    if (!cifar10_can_be_name(name))
        return error_set_file(error, STATUS_DATA, dir,
                              "its folder '%s' cannot be a class's name; 1 to %d bytes of UTF-8 "
                              "without control characters are expected: rename it",
                              name, CIFAR10_NAME - 1);
    strcpy(import->names.name[import->all.classes++], name);
    return true;
}

/* The folders are the classes, in order of name, as torchvision's ImageFolder has them. */
static bool find_classes(struct import *import, struct error *error) {
    const char *dir = import->settings->words[0];
    struct dirent **entries;
    const int count = pictures_list(dir, &entries);
    bool good = true;
    int others = 0;
    if (count < 0)
        return error_set_file(error, STATUS_DATA, dir, "cannot be read: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat info;
        path_of(path, dir, entries[i]->d_name);
        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            good = good && add_class(import, entries[i]->d_name, error);
        else
            others++;
        free(entries[i]);
    }
    free(entries);
    if (good && import->all.classes < 2)
        return error_set_file(error, STATUS_DATA, dir,
                              "holds %d folder%s; at least two, of pictures, one for each class, "
                              "are expected",
                              import->all.classes, import->all.classes == 1 ? "" : "s");
    good = good && check_folders(import, error);
    if (good && others > 0)
        print_warning(import->settings->program,
                      "%s: files that lie in no class's folder and were left out: %d", dir, others);
    return good;
}

/* ---- their pictures ---- */

static void add_images(struct import *import, uint8_t label, const struct cifar10 *images) {
    struct cifar10 *all = &import->all;
    if (all->count + images->count > import->room) {
        import->room = 2 * import->room + images->count;
        all->records = memory_resize(all->records, (size_t)import->room * CIFAR10_RECORD);
    }
    for (int64_t i = 0; i < images->count; i++) {
        uint8_t *record = all->records + all->count++ * CIFAR10_RECORD;
        memcpy(record, images->records + i * CIFAR10_RECORD, CIFAR10_RECORD);
        record[0] = label;
    }
}

static bool read_class(struct import *import, int label, struct error *error) {
    const struct settings *s = import->settings;
    struct class_count *count = &import->counts[label];
    struct picture_reader reader;
    char folder[PATH_MAX];
    char *word = folder;
    path_of(folder, s->words[0], import->names.name[label]);
    picture_reader_init(&reader, &word, 1, (enum picture_crop)s->crop, workplace_threads(s));
    while (import->all.count <= MOST && picture_reader_next(&reader)) {
        for (int i = 0; i < reader.count; i++)
            if (!reader.pictures[i].good)
                print_warning(s->program, "%s", reader.pictures[i].error.text);
        add_images(import, (uint8_t)label, &reader.images);
    }
    if (reader.others > 0)
        print_warning(s->program, "%s: files that have no picture's name and were left out: %lld",
                      folder, (long long)reader.others);
    count->images = reader.good;
    count->left_out = reader.bad + reader.others;
    picture_reader_free(&reader);
    if (import->all.count > MOST)
        return error_set_file(error, STATUS_DATA, s->words[0],
                              "holds more pictures than a data set may have, %d", MOST);
    return count->images > 0 || error_set_file(error, STATUS_DATA, folder,
                                               "holds no picture that can be read (PNG or JPEG)");
}

/* ---- what becomes of them ---- */

/* How many of each class become test images, one at least of two; answers how many in all. */
static int64_t set_shares(struct import *import) {
    int64_t tests = 0;
    for (int k = 0; k < import->all.classes; k++) {
        struct class_count *c = &import->counts[k];
        c->test = lround(import->settings->test_share * (double)c->images);
        if (c->test == 0 && c->images > 1)
            c->test = 1;
        if (c->test == c->images)
            c->test--;
        tests += c->test;
    }
    return tests;
}

/* In an order that the seed draws; the first of each class are the test images. */
static void split(struct import *import, struct data_set *set) {
    const int64_t count = import->all.count, tests = set_shares(import);
    uint32_t *order = memory_new((size_t)count, sizeof *order);
    int64_t test[CIFAR10_CLASSES] = {0};
    struct random random;
    random_seed(&random, (uint64_t)import->settings->seed);
    random_permutation(&random, order, (uint32_t)count);
    set->train.classes = set->test.classes = import->all.classes;
    set->train.records = memory_new((size_t)(count - tests), CIFAR10_RECORD);
    set->test.records = memory_new((size_t)tests, CIFAR10_RECORD);
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *record = import->all.records + (size_t)order[i] * CIFAR10_RECORD;
        const bool is_test = test[record[0]] < import->counts[record[0]].test;
        struct cifar10 *to = is_test ? &set->test : &set->train;
        test[record[0]] += is_test;
        memcpy(to->records + to->count++ * CIFAR10_RECORD, record, CIFAR10_RECORD);
    }
    free(order);
}

static void print_table(const struct import *import, const struct data_set *set) {
    printf("%-12s  training    test  left out\n", "class");
    for (int k = 0; k < import->all.classes; k++) {
        const struct class_count *c = &import->counts[k];
        print_column(import->names.name[k], -12, INT_MAX);
        printf("  %8lld  %6lld  %8lld\n", (long long)(c->images - c->test), (long long)c->test,
               (long long)c->left_out);
    }
    print_line("%s: %lld training and %lld test images of %d classes", set->folder,
               (long long)set->train.count, (long long)set->test.count, import->all.classes);
}

static bool check_counts(const struct import *import, const struct data_set *set,
                         struct error *error) {
    const int64_t train = set->train.count, test = set->test.count;
    return (train >= CIFAR10_TRAIN_FILES && train <= MOST_TRAIN && test >= 1 &&
            test <= CIFAR10_MOST) ||
           error_set_file(error, STATUS_DATA, import->settings->words[0],
                          "its pictures make %lld training and %lld test images with --test %g; %d "
                          "to %d and 1 to %d are expected",
                          (long long)train, (long long)test, import->settings->test_share,
                          CIFAR10_TRAIN_FILES, MOST_TRAIN, CIFAR10_MOST);
}

static bool save(struct import *import, struct error *error) {
    struct data_set set = {.folder = import->settings->words[1], .names = &import->names};
    split(import, &set);
    const bool good = check_counts(import, &set, error) && data_set_save(&set, error);
    if (good)
        print_table(import, &set);
    cifar10_free(&set.train);
    cifar10_free(&set.test);
    return good;
}

bool command_import(const struct settings *s, struct error *error) {
    struct import *import = memory_new(1, sizeof *import);
    char inside[PATH_MAX];
    import->settings = s;
    path_of(inside, s->words[0], ".");
    bool good = find_classes(import, error) &&
                (!file_lies_beside(s->words[1], inside) ||
                 error_set_file(error, STATUS_DATA, s->words[1],
                                "lies in %s, whose folders are the classes; name a folder "
                                "elsewhere",
                                s->words[0])) &&
                data_set_check(s->words[1], error);
    for (int k = 0; good && k < import->all.classes; k++)
        good = read_class(import, k, error);
    good = good && save(import, error);
    cifar10_free(&import->all);
    free(import);
    return good;
}
