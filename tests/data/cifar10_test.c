/* Every test runs in a new folder of its own, and as "nobody" where it was started as root, whom
 * no permission stops. */
#include "data/cifar10.h"

#include "scratch.h"

#include <sys/resource.h>

enum { TRAIN = 13, TEST = 4 }; /* images of the small data set */
enum { HELD_FROM = 60 };       /* images of which some are held out */

/* Gives a record of a batch another label. */
static void relabel(const char *path, size_t record, uint8_t label) {
    poke_file(path, record * CIFAR10_RECORD, &label, 1);
}

/* Labels go round, pixels are any bytes. */
static uint8_t byte_at(enum cifar10_part part, int64_t image, int64_t byte) {
    if (byte == 0)
        return (uint8_t)((image + part) % CIFAR10_CLASSES);
    return (uint8_t)(image * 7919 + byte * 31 + byte / 256 + part);
}

static void make_part(const char *folder, enum cifar10_part part, int64_t count) {
    struct error error;
    struct cifar10 images = {calloc((size_t)count, CIFAR10_RECORD), count, CIFAR10_CLASSES};
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < CIFAR10_RECORD; j++)
            images.records[i * CIFAR10_RECORD + j] = byte_at(part, i, j);
    assert_true(cifar10_save(&images, folder, part, &error));
    free(images.records);
}

static void make_data(const char *folder) {
    make_folder(folder);
    make_part(folder, CIFAR10_TRAIN, TRAIN);
    make_part(folder, CIFAR10_TEST, TEST);
}

/* A message names the file, says what was found and what was expected. */
struct says {
    const char *file, *found, *expected;
};

static struct cifar10_names names; /* the official ones, but for a test that has fewer */

/* The part of the data set, or at most `limit` images of it, is refused with this message. */
static void refused(enum cifar10_part part, int64_t limit, struct says says) {
    struct error error;
    struct cifar10 images;
    assert_false(cifar10_load(&images, "data", &names, part, limit, &error));
    assert_says(&error, STATUS_DATA, says.file, says.found, says.expected);
    assert_null(images.records);
}

/* It is read, and its images are those that make_part() made. */
static void accepted(enum cifar10_part part, int64_t limit, int64_t count) {
    struct error error;
    struct cifar10 images;
    assert_good(cifar10_load(&images, "data", &names, part, limit, &error), &error);
    assert_int_equal(images.count, count);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < CIFAR10_RECORD; j++)
            assert_int_equal(images.records[i * CIFAR10_RECORD + j], byte_at(part, i, j));
    cifar10_free(&images);
    assert_null(images.records);
    cifar10_free(&images); /* twice does no harm */
}

/* ---- images held out ---- */

/* The number of an image that make_part() made, by its first pixels. */
static int64_t number_of(const uint8_t *record) {
    for (int64_t i = 0; i < HELD_FROM; i++)
        if (record[0] == byte_at(CIFAR10_TRAIN, i, 0) && record[1] == byte_at(CIFAR10_TRAIN, i, 1))
            return i;
    fail_msg("no image of the set");
    return -1;
}

static void hold_out(struct cifar10 *images, struct cifar10 *held, int64_t count, uint64_t seed) {
    *images = (struct cifar10){calloc(HELD_FROM, CIFAR10_RECORD), HELD_FROM, 7};
    for (int64_t i = 0; i < HELD_FROM; i++)
        for (int64_t j = 0; j < CIFAR10_RECORD; j++)
            images->records[i * CIFAR10_RECORD + j] = byte_at(CIFAR10_TRAIN, i, j);
    cifar10_hold_out(images, held, count, seed);
    assert_int_equal(images->count, HELD_FROM - count);
    assert_int_equal(held->count, count);
    assert_int_equal(held->classes, 7);
    assert_int_equal(images->classes, 7);
}

/* Each image is in one of the two, whole, and both keep its order; which are held depends on the
 * seed, and a larger part holds what a smaller one does. */
static void images_are_held_out(void **state) {
    (void)state;
    static const int64_t COUNTS[] = {1, HELD_FROM / 2, HELD_FROM - 1};
    bool before[HELD_FROM] = {false};
    for (size_t k = 0; k < sizeof COUNTS / sizeof *COUNTS; k++) {
        struct cifar10 images, held, again, held_again;
        bool seen[HELD_FROM] = {false};
        hold_out(&images, &held, COUNTS[k], 3);
        const struct cifar10 *const parts[] = {&images, &held};
        for (int p = 0; p < 2; p++)
            for (int64_t i = 0, last = -1; i < parts[p]->count; i++) {
                const uint8_t *record = parts[p]->records + i * CIFAR10_RECORD;
                const int64_t number = number_of(record);
                for (int64_t j = 0; j < CIFAR10_RECORD; j++)
                    assert_int_equal(record[j], byte_at(CIFAR10_TRAIN, number, j));
                assert_true(number > last);
                assert_false(seen[number]);
                assert_true(p == 1 || !before[number]);
                seen[number] = true;
                last = number;
            }
        for (int64_t i = 0; i < held.count; i++)
            before[number_of(held.records + i * CIFAR10_RECORD)] = true;

        hold_out(&again, &held_again, COUNTS[k], 3);
        assert_memory_equal(held.records, held_again.records, (size_t)held.count * CIFAR10_RECORD);
        cifar10_free(&again);
        cifar10_free(&held_again);
        hold_out(&again, &held_again, COUNTS[k], 4);
        assert_memory_not_equal(held.records, held_again.records,
                                (size_t)held.count * CIFAR10_RECORD);
        cifar10_free(&again);
        cifar10_free(&held_again);
        cifar10_free(&images);
        cifar10_free(&held);
    }
}

/* ---- the images ---- */

static void loads_what_was_saved(void **state) {
    (void)state;
    make_data("data");
    accepted(CIFAR10_TRAIN, 0, TRAIN);
    accepted(CIFAR10_TEST, 0, TEST);
}

static void saves_training_images_evenly_over_five_files(void **state) {
    (void)state;
    static const int counts[][6] = {
        {5, 1, 1, 1, 1, 1}, {10, 2, 2, 2, 2, 2}, {13, 2, 3, 2, 3, 3}, {9, 1, 2, 2, 2, 2}};
    make_folder("data");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        make_part("data", CIFAR10_TRAIN, counts[i][0]);
        for (int j = 0; j < CIFAR10_TRAIN_FILES; j++) {
            char path[64];
            struct stat info;
            snprintf(path, sizeof path, "data/data_batch_%d.bin", j + 1);
            assert_int_equal(stat(path, &info), 0);
            assert_int_equal(info.st_size, counts[i][j + 1] * CIFAR10_RECORD);
            assert_string_equal(cifar10_file(CIFAR10_TRAIN, j), path + strlen("data/"));
        }
    }
    assert_string_equal(cifar10_file(CIFAR10_TEST, 0), "test_batch.bin");
}

static void saving_reports_a_missing_folder(void **state) {
    uint8_t records[5 * CIFAR10_RECORD] = {0};
    const struct cifar10 images = {records, 5, CIFAR10_CLASSES};
    struct error error;
    (void)state;
    assert_false(cifar10_save(&images, "missing", CIFAR10_TEST, &error));
    assert_says(&error, STATUS_FAILURE, "missing/test_batch.bin: cannot be written");
    assert_false(cifar10_save_names(&cifar10_official_names, "missing", &error));
    assert_says(&error, STATUS_FAILURE, "missing/batches.meta.txt: cannot be written");
}

static const char BATCH[] = "data/data_batch_3.bin";

/* Batches of 2, 3, 2, 3 and 3 images, cut within a batch and between two. */
static void loads_the_first_images_alone(void **state) {
    (void)state;
    make_data("data");
    relabel(BATCH, 1, 10); /* image 6 */
    for (int limit = 1; limit <= 6; limit++) {
        accepted(CIFAR10_TRAIN, limit, limit);
        accepted(CIFAR10_TEST, TEST + limit, TEST);
    }
    refused(CIFAR10_TRAIN, 7, (struct says){BATCH, "byte 3073, the label of image 1, is", "10"});
}

static void damaged_batches_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *damage; /* a command, in a good data set, where batch 3 is $b */
        const char *found, *expected;
    } cases[] = {
        {"rm $b", "is missing", "must hold data_batch_1.bin .. data_batch_5.bin and"},
        {"ln -sf nowhere $b", "is missing", "must hold"},
        {"truncate -s 0 $b", "is empty", "whole records of 3073 bytes are expected"},
        {"truncate -s -1 $b", "has 6145 bytes", "from byte 3073 on, is cut short"},
        {"truncate -s 1 $b", "has 1 bytes", "from byte 0 on, is cut short"},
        {"truncate -s +1 $b", "has 6147 bytes", "no multiple of the record's 3073 bytes"},
        {"printf '\\12' | dd of=$b bs=1 seek=3073 conv=notrunc status=none",
         "byte 3073, the label of image 1, is 10", "a label from 0 to 9 is expected"},
        {"printf '\\377' | dd of=$b conv=notrunc status=none",
         "byte 0, the label of image 0, is 255", "a label from 0 to 9 is expected"},
        {"rm $b; mkdir $b", "is a folder", "a regular file is expected"},
        {"truncate -s $((3073 * 400000)) $b", "has 1229200000 bytes",
         "at most 1075550000 are read"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[256];
        make_data("data");
        snprintf(command, sizeof command, "cd data && b=data_batch_3.bin; %s", cases[i].damage);
        assert_int_equal(system(command), 0);
        refused(CIFAR10_TRAIN, 0, (struct says){BATCH, cases[i].found, cases[i].expected});
        accepted(CIFAR10_TEST, 0, TEST); /* which is good */
        assert_int_equal(system("rm -r data"), 0);
    }
}

/* What cifar-synth may draw can be read; none of what is beyond the limit is. */
static void reads_of_the_largest_batch_what_is_wanted(void **state) {
    struct error error;
    struct cifar10 images;
    (void)state;
    make_data("data");
    cut_file(BATCH, (off_t)CIFAR10_MOST * CIFAR10_RECORD); /* sparse */
    assert_true(cifar10_load(&images, "data", &names, CIFAR10_TRAIN, 9, &error));
    assert_int_equal(images.count, 9);
    cifar10_free(&images);
    struct rusage used;
    assert_int_equal(getrusage(RUSAGE_SELF, &used), 0);
    assert_in_range(used.ru_maxrss, 1, 500000); /* KiB at most; a batch has 1,050,341 */
}

/* The byte where the damage lies counts from the beginning of its file, not of the part. */
/* A data set may have fewer than ten classes. */
static void a_label_without_a_name_is_refused(void **state) {
    (void)state;
    make_data("data");
    names.name[4][0] = '\0';
    refused(CIFAR10_TEST, 0,
            (struct says){"data/test_batch.bin", "the label of image 3, is 4",
                          "from 0 to 3 is expected (batches.meta.txt names 4)"});
    for (size_t i = 0; i < TEST; i++)
        relabel("data/test_batch.bin", i, 3);
    struct error error;
    struct cifar10 images;
    assert_good(cifar10_load(&images, "data", &names, CIFAR10_TEST, 0, &error), &error);
    assert_int_equal(images.classes, 4);
    cifar10_free(&images);
    names = cifar10_official_names;
}

static void every_batch_is_checked(void **state) {
    (void)state;
    make_data("data");
    for (int i = 0; i < CIFAR10_TRAIN_FILES + 1; i++) {
        const enum cifar10_part part = i < CIFAR10_TRAIN_FILES ? CIFAR10_TRAIN : CIFAR10_TEST;
        char path[64], label;
        snprintf(path, sizeof path, "data/%s", cifar10_file(part, i % CIFAR10_TRAIN_FILES));
        assert_int_equal(read_file(path, &label, 1), 1);
        relabel(path, 1, 10);
        refused(part, 0, (struct says){path, "byte 3073,", "from 0 to 9"});
        relabel(path, 1, (uint8_t)((label + 1) % CIFAR10_CLASSES)); /* as it was */
        accepted(part, 0, part == CIFAR10_TRAIN ? TRAIN : TEST);
    }
}

static void a_batch_that_may_not_be_read_is_refused(void **state) {
    (void)state;
    need_no_root();
    make_data("data");
    chmod(BATCH, 0);
    refused(CIFAR10_TRAIN, 0, (struct says){BATCH, "cannot be opened", "Permission denied"});
}

/* ---- the folder ---- */

static void finds_the_folder(void **state) {
    (void)state;
    static const struct {
        const char *dir, *folder;
    } cases[] = {
        {"parent", "parent/cifar-10-batches-bin"},
        {"parent//", "parent/cifar-10-batches-bin"},
        {"parent/cifar-10-batches-bin", "parent/cifar-10-batches-bin"},
        {"plain", "plain"},
        {"link", "link"},
        {"only_test", "only_test"}, /* what is missing is reported where it is needed */
        {"both", "both"},
        {"both/", "both"},
    };
    make_folder("parent");
    make_data("parent/cifar-10-batches-bin");
    make_data("plain");
    make_link("plain", "link");
    make_folder("only_test");
    make_part("only_test", CIFAR10_TEST, 1);
    make_data("both");
    make_data("both/cifar-10-batches-bin");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        char folder[4096];
        assert_true(cifar10_find(folder, cases[i].dir, &error));
        assert_string_equal(folder, cases[i].folder);
    }
}

static void refused_folder(const char *dir, struct says says) {
    struct error error;
    char folder[4096];
    assert_false(cifar10_find(folder, dir, &error));
    assert_says(&error, STATUS_DATA, says.file, says.found, says.expected);
}

static void folders_without_batches_are_refused(void **state) {
    (void)state;
    /* `entry` is what the folder holds, if anything: a file, or a folder if it ends in '/' */
    static const struct {
        const char *dir, *entry, *found, *expected;
    } cases[] = {
        {"missing", NULL, "No such file", "get_data.sh"},
        {"file", NULL, "is not a folder", "the folder that holds data_batch_1.bin"},
        {"empty", NULL, "holds no CIFAR-10 batches", "get_data.sh"},
        {"other", "notes.txt", "holds no CIFAR-10 batches", "cifar-10-batches-bin"},
        {"hollow", "cifar-10-batches-bin/", "holds no CIFAR-10 batches",
         "nor a folder cifar-10-batches-bin with them"},
        {"python", "data_batch_1", "the Python version", "binary version is needed"},
        {"python_above", "cifar-10-batches-py/", "the Python version", "binary version is needed"},
        {"python_packed", "cifar-10-python.tar.gz", "the Python version of CIFAR-10, packed",
         "cifar-10-python.tar.gz"},
        {"matlab", "data_batch_1.mat", "the MATLAB version", "binary version is needed"},
        {"matlab_above", "cifar-10-batches-mat/", "the MATLAB version", "binary version is needed"},
        {"matlab_packed", "cifar-10-matlab.tar.gz", "the MATLAB version of CIFAR-10, packed",
         "cifar-10-matlab.tar.gz"},
        {"hundred", "fine_label_names.txt", "holds CIFAR-100", "binary version is needed"},
        {"hundred_above", "cifar-100-binary/", "holds CIFAR-100", "binary version is needed"},
        {"packed", "cifar-10-binary.tar.gz", "the binary version, but still packed",
         "unpacked binary version is needed"},
    };
    make_text("file", "text");
    make_folder("empty");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char entry[128], begin[32];
        snprintf(entry, sizeof entry, "%s/%s", cases[i].dir, cases[i].entry);
        snprintf(begin, sizeof begin, "%s: ", cases[i].dir);
        if (cases[i].entry != NULL) {
            make_folder(cases[i].dir);
            if (entry[strlen(entry) - 1] == '/')
                make_folder(entry);
            else
                make_text(entry, "");
        }
        refused_folder(cases[i].dir, (struct says){begin, cases[i].found, cases[i].expected});
    }
    refused_folder("", (struct says){"the name of the data folder", "is empty", "name one"});
}

static void a_folder_with_a_long_name_is_refused(void **state) {
    char name[5000];
    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    refused_folder(name, (struct says){"nnnn", "too long", "for a folder"});
    name[300] = '\0'; /* no folder's entry can be as long */
    refused_folder(name, (struct says){"nnnn", "cannot be found", "File name too long"});
}

static void a_folder_that_may_not_be_read_is_refused(void **state) {
    (void)state;
    need_no_root();
    make_data("data");
    chmod("data", 0);
    refused_folder("data", (struct says){"data: ", "cannot be read", "Permission denied"});
}

/* ---- the names ---- */

static const char META[] = "data/batches.meta.txt";
static const char LETTERS[10][2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};

/* Every byte counts, and where it stands; so do the order of parts and the number of images. */
static void fingerprints_tell_data_apart(void **state) {
    (void)state;
    uint8_t *records = calloc(TRAIN, CIFAR10_RECORD);
    assert_non_null(records);
    const struct cifar10 images = {records, TRAIN, CIFAR10_CLASSES};
    const struct cifar10 fewer = {records, TRAIN - 1, CIFAR10_CLASSES};
    const struct cifar10 one = {records, 1, CIFAR10_CLASSES};
    const uint64_t zeros = cifar10_fingerprint(&images, 0);
    assert_true(zeros != cifar10_fingerprint(&fewer, 0));
    assert_true(zeros != cifar10_fingerprint(&images, 1));
    assert_true(cifar10_fingerprint(&one, zeros) !=
                cifar10_fingerprint(&images, cifar10_fingerprint(&one, 0)));
    uint64_t before = zeros;
    for (size_t at = 0; at < (size_t)TRAIN * CIFAR10_RECORD; at++) {
        records[at] = 0x80; /* the bit that a plain product would lose soonest */
        const uint64_t found = cifar10_fingerprint(&images, 0);
        assert_true(found != zeros && found != before);
        before = found;
        records[at] = 0;
    }
    assert_true(zeros == cifar10_fingerprint(&images, 0));
    free(records);
}

static void names_are_official_without_a_file(void **state) {
    struct error error;
    struct cifar10_names found;
    (void)state;
    make_folder("data");
    assert_true(cifar10_load_names(&found, "data", &error));
    assert_memory_equal(&found, &cifar10_official_names, sizeof names);
    assert_string_equal(found.name[0], "airplane");
    assert_string_equal(found.name[9], "truck");
}

static void names_are_loaded_as_saved(void **state) {
    struct error error;
    struct cifar10_names saved = {{"0", "a b", "\u732b", "caf\u00e9", "4", "5", "6", "7", "8"}},
                         loaded;
    (void)state;
    memset(saved.name[9], 'n', CIFAR10_NAME - 1); /* the longest */
    make_folder("data");
    for (int count = CIFAR10_CLASSES; count > 0; count--) {
        assert_int_equal(cifar10_count_names(&saved), count);
        assert_true(cifar10_save_names(&saved, "data", &error));
        memset(&loaded, 'x', sizeof loaded);
        assert_true(cifar10_load_names(&loaded, "data", &error));
        assert_memory_equal(&loaded, &saved, sizeof loaded);
        memset(saved.name[count - 1], 0, CIFAR10_NAME);
    }
}

static void names_are_read_from_all_kinds_of_lines(void **state) {
    (void)state;
    static const char *const texts[] = {
        "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n",
        "a\nb\nc\nd\ne\nf\ng\nh\ni\nj",     /* without the last line's end */
        "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n", /* as in the original */
        "a\r\nb\r\nc\r\nd\r\ne\r\nf\r\ng\r\nh\r\ni\r\nj\r\n\r\n",
    };
    make_folder("data");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error error;
        struct cifar10_names found;
        make_text(META, texts[i]);
        assert_true(cifar10_load_names(&found, "data", &error));
        for (int j = 0; j < CIFAR10_CLASSES; j++)
            assert_string_equal(found.name[j], LETTERS[j]);
    }
}

static void refused_names(const char *found, const char *expected) {
    struct error error;
    struct cifar10_names loaded;
    assert_false(cifar10_load_names(&loaded, "data", &error));
    assert_says(&error, STATUS_DATA, META, found, expected);
}

static void malformed_names_are_refused(void **state) {
    (void)state;
    static const char ZERO[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\0more";
    static char large[1026];
    static const struct {
        const char *text, *found, *expected;
    } cases[] = {
        {"", "ends at byte 0 without a class name", "up to ten class names, one a line"},
        {"\n\r\n", "ends at byte 3 without a class name", "up to ten class names, one a line"},
        {"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n", "byte 20: found 'k'",
         "ten class names of at most 31 bytes"},
        {"a\nb\n12345678901234567890123456789012\nd\ne\nf\ng\nh\ni\nj\n",
         "byte 4: found '12345678901234567890123456789012'", "at most 31 bytes"},
        {large, "has 1025 bytes", "ten class names, one a line, are expected"},
        /* what a terminal would act on, or show as something else */
        {"a\033[31m", "byte 0: found 'a?[31m'", "UTF-8 without control characters"},
        {"b\x7f", "byte 0: found 'b?'", "UTF-8 without control characters"},
        {"caf\xe9", "byte 0: found 'caf", "UTF-8 without control characters"}, /* Latin-1 */
        {"c\nd\xc2\x9b", "byte 2: found 'd", "UTF-8 without control characters"},
        {"\t", "byte 0: found '?'", "UTF-8 without control characters"},
    };
    make_folder("data");
    memset(large, '\n', sizeof large - 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_text(META, cases[i].text);
        refused_names(cases[i].found, cases[i].expected);
    }
    make_file(META, ZERO, sizeof ZERO - 1);
    refused_names("byte 20 is 0", "ten class names");
}

static void names_that_cannot_be_read_are_refused(void **state) {
    (void)state;
    make_folder("data");
    make_folder(META);
    refused_names("is a folder", "a regular file is expected");
    need_no_root();
    rmdir(META);
    make_text(META, "");
    chmod(META, 0);
    refused_names("cannot be opened", "Permission denied");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(loads_what_was_saved),
        IN_SCRATCH(saves_training_images_evenly_over_five_files),
        IN_SCRATCH(saving_reports_a_missing_folder),
        IN_SCRATCH(loads_the_first_images_alone),
        IN_SCRATCH(reads_of_the_largest_batch_what_is_wanted),
        IN_SCRATCH(damaged_batches_are_refused),
        IN_SCRATCH(a_label_without_a_name_is_refused),
        IN_SCRATCH(every_batch_is_checked),
        IN_SCRATCH(a_batch_that_may_not_be_read_is_refused),
        IN_SCRATCH(finds_the_folder),
        IN_SCRATCH(folders_without_batches_are_refused),
        IN_SCRATCH(a_folder_with_a_long_name_is_refused),
        IN_SCRATCH(a_folder_that_may_not_be_read_is_refused),
        IN_SCRATCH(images_are_held_out),
        IN_SCRATCH(fingerprints_tell_data_apart),
        IN_SCRATCH(names_are_official_without_a_file),
        IN_SCRATCH(names_are_loaded_as_saved),
        IN_SCRATCH(names_are_read_from_all_kinds_of_lines),
        IN_SCRATCH(malformed_names_are_refused),
        IN_SCRATCH(names_that_cannot_be_read_are_refused),
    };
    names = cifar10_official_names;
    leave_root();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
