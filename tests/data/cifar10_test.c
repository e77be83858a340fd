/* Every test runs in a new folder of its own, and as "nobody" where it was started as root, whom
 * no permission stops. */
#include "data/cifar10.h"

#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN = 13, TEST = 4 }; /* images of the small data set */

static void make(const char *path, const void *bytes, size_t size) {
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}
static void poke(const char *path, long at, uint8_t value) {
    FILE *stream = fopen(path, "r+");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, at, SEEK_SET), 0);
    assert_int_equal(fputc(value, stream), value);
    assert_int_equal(fclose(stream), 0);
}

/* Labels go round, pixels are any bytes. */
static uint8_t byte_at(enum cifar10_part part, int64_t image, int64_t byte) {
    if (byte == 0)
        return (uint8_t)((image + part) % CIFAR10_CLASSES);
    return (uint8_t)(image * 7919 + byte * 31 + byte / 256 + part);
}

static void make_part(const char *folder, enum cifar10_part part, int64_t count) {
    struct error error;
    struct cifar10 images = {calloc((size_t)count, CIFAR10_RECORD), count};
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

static void assert_says(const struct error *error, const char *part) {
    assert_int_equal(error->status, STATUS_DATA);
    if (strstr(error->text, part) == NULL)
        fail_msg("'%s' is not in: %s", part, error->text);
}

/* A message names the file, says what was found and what was expected. */
struct says {
    const char *file, *found, *expected;
};
static void assert_says_all(const struct error *error, struct says says) {
    assert_int_equal(strncmp(error->text, says.file, strlen(says.file)), 0);
    assert_says(error, says.found);
    assert_says(error, says.expected);
}

/* ---- the images ---- */

static void loads_what_was_saved(void **state) {
    (void)state;
    static const int64_t counts[] = {TRAIN, TEST};
    make_data("data");
    for (int part = CIFAR10_TRAIN; part <= CIFAR10_TEST; part++) {
        struct error error;
        struct cifar10 images;
        assert_true(cifar10_load(&images, "data", part, 0, &error));
        assert_int_equal(images.count, counts[part]);
        for (int64_t i = 0; i < images.count; i++)
            for (int64_t j = 0; j < CIFAR10_RECORD; j++)
                assert_int_equal(images.records[i * CIFAR10_RECORD + j], byte_at(part, i, j));
        cifar10_free(&images);
        assert_null(images.records);
        cifar10_free(&images); /* twice does no harm */
    }
}

static void saves_training_images_evenly_over_five_files(void **state) {
    (void)state;
    static const char *const names[] = {"data/data_batch_1.bin", "data/data_batch_2.bin",
                                        "data/data_batch_3.bin", "data/data_batch_4.bin",
                                        "data/data_batch_5.bin"};
    static const int counts[][6] = {
        {5, 1, 1, 1, 1, 1}, {10, 2, 2, 2, 2, 2}, {13, 2, 3, 2, 3, 3}, {9, 1, 2, 2, 2, 2}};
    make_folder("data");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        make_part("data", CIFAR10_TRAIN, counts[i][0]);
        for (int j = 0; j < CIFAR10_TRAIN_FILES; j++) {
            struct stat info;
            assert_int_equal(stat(names[j], &info), 0);
            assert_int_equal(info.st_size, counts[i][j + 1] * CIFAR10_RECORD);
            assert_string_equal(cifar10_file(CIFAR10_TRAIN, j), names[j] + strlen("data/"));
        }
    }
    assert_string_equal(cifar10_file(CIFAR10_TEST, 0), "test_batch.bin");
}

static void saving_reports_a_missing_folder(void **state) {
    uint8_t records[5 * CIFAR10_RECORD] = {0};
    const struct cifar10 images = {records, 5};
    struct error error;
    (void)state;
    assert_false(cifar10_save(&images, "missing", CIFAR10_TEST, &error));
    assert_int_equal(error.status, STATUS_FAILURE);
    assert_non_null(strstr(error.text, "missing/test_batch.bin: cannot be written"));
    assert_false(cifar10_save_names(&cifar10_official_names, "missing", &error));
    assert_non_null(strstr(error.text, "missing/batches.meta.txt: cannot be written"));
}

/* Batches of 2, 3, 2, 3 and 3 images, cut within a batch and between two. */
static void loads_the_first_images_alone(void **state) {
    (void)state;
    make_data("data");
    poke("data/data_batch_3.bin", CIFAR10_RECORD, 10); /* image 6 */
    for (int limit = 1; limit <= 6; limit++) {
        struct error error;
        struct cifar10 images;
        assert_true(cifar10_load(&images, "data", CIFAR10_TRAIN, limit, &error));
        assert_int_equal(images.count, limit);
        for (int64_t i = 0; i < limit; i++)
            for (int64_t j = 0; j < CIFAR10_RECORD; j++)
                assert_int_equal(images.records[i * CIFAR10_RECORD + j],
                                 byte_at(CIFAR10_TRAIN, i, j));
        cifar10_free(&images);
        assert_false(cifar10_load(&images, "data", CIFAR10_TRAIN, 7, &error));
        assert_says(&error, "byte 3073, the label of image 1, is 10");
        assert_true(cifar10_load(&images, "data", CIFAR10_TEST, TEST + limit, &error));
        assert_int_equal(images.count, TEST);
        cifar10_free(&images);
    }
}

/* The damage, done to batch 3 of a good data set. */
static const char BATCH[] = "data/data_batch_3.bin";

static void remove_it(void) {
    assert_int_equal(unlink(BATCH), 0);
}
static void empty_it(void) {
    assert_int_equal(truncate(BATCH, 0), 0);
}
static void cut_one_byte(void) {
    assert_int_equal(truncate(BATCH, 2 * CIFAR10_RECORD - 1), 0);
}
static void leave_one_byte(void) {
    assert_int_equal(truncate(BATCH, 1), 0);
}
static void add_one_byte(void) {
    assert_int_equal(truncate(BATCH, 2 * CIFAR10_RECORD + 1), 0);
}
static void label_10_in_the_second_record(void) {
    poke(BATCH, CIFAR10_RECORD, 10);
}
static void label_255_in_the_first_record(void) {
    poke(BATCH, 0, 255);
}
static void grow_it(void) {
    assert_int_equal(truncate(BATCH, CIFAR10_RECORD * 400000L), 0); /* zeros that take no room */
}
static void loop_it(void) {
    remove_it();
    assert_int_equal(symlink("data_batch_3.bin", BATCH), 0); /* a link to itself */
}
static void folder_in_its_place(void) {
    remove_it();
    make_folder(BATCH);
}
static void pipe_in_its_place(void) {
    remove_it();
    assert_int_equal(mkfifo(BATCH, 0666), 0);
}

static void damaged_batches_are_refused(void **state) {
    (void)state;
    static const struct {
        void (*damage)(void);
        struct says says;
    } cases[] = {
        {remove_it, {BATCH, "is missing", "must hold data_batch_1.bin .. data_batch_5.bin and"}},
        {empty_it, {BATCH, "is empty", "whole records of 3073 bytes are expected"}},
        {cut_one_byte, {BATCH, "has 6145 bytes", "from byte 3073 on, is cut short"}},
        {leave_one_byte, {BATCH, "has 1 bytes", "from byte 0 on, is cut short"}},
        {add_one_byte, {BATCH, "has 6147 bytes", "no multiple of the record's 3073 bytes"}},
        {label_10_in_the_second_record,
         {BATCH, "byte 3073, the label of image 1, is 10", "a label from 0 to 9 is expected"}},
        {label_255_in_the_first_record,
         {BATCH, "byte 0, the label of image 0, is 255", "a label from 0 to 9 is expected"}},
        {folder_in_its_place, {BATCH, "is a folder", "a regular file is expected"}},
        {grow_it, {BATCH, "has 1229200000 bytes", "at most 1075550000 are read"}},
        {loop_it, {BATCH, "cannot be opened", "Too many levels of symbolic links"}},
        {pipe_in_its_place, {BATCH, "is a pipe", "a regular file is expected"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        struct cifar10 images;
        make_data("data");
        cases[i].damage();
        assert_false(cifar10_load(&images, "data", CIFAR10_TRAIN, 0, &error));
        assert_says_all(&error, cases[i].says);
        assert_null(images.records);
        assert_true(cifar10_load(&images, "data", CIFAR10_TEST, 0, &error)); /* which is good */
        cifar10_free(&images);
        assert_int_equal(system("rm -r data"), 0);
    }
}

/* What cifar-synth may draw can be read; none of what is beyond the limit is. */
static void reads_of_the_largest_batch_what_is_wanted(void **state) {
    struct error error;
    struct cifar10 images;
    (void)state;
    make_data("data");
    assert_int_equal(truncate(BATCH, (off_t)CIFAR10_MOST * CIFAR10_RECORD), 0); /* sparse */
    assert_true(cifar10_load(&images, "data", CIFAR10_TRAIN, 9, &error));
    assert_int_equal(images.count, 9);
    cifar10_free(&images);
    struct rusage used;
    assert_int_equal(getrusage(RUSAGE_SELF, &used), 0);
    assert_in_range(used.ru_maxrss, 1, 500000); /* KiB at most; a batch has 1,050,341 */
}

/* The byte where the damage lies counts from the beginning of its file, not of the part. */
static void every_batch_is_checked(void **state) {
    (void)state;
    static const enum cifar10_part parts[] = {CIFAR10_TRAIN, CIFAR10_TRAIN, CIFAR10_TRAIN,
                                              CIFAR10_TRAIN, CIFAR10_TRAIN, CIFAR10_TEST};
    make_data("data");
    for (int i = 0; i < 6; i++) {
        struct error error;
        struct cifar10 images;
        char path[64];
        snprintf(path, sizeof path, "data/%s", cifar10_file(parts[i], i % CIFAR10_TRAIN_FILES));
        poke(path, CIFAR10_RECORD, 10);
        assert_false(cifar10_load(&images, "data", parts[i], 0, &error));
        assert_says_all(&error, (struct says){path, "byte 3073,", "from 0 to 9"});
        poke(path, CIFAR10_RECORD, 9);
        assert_true(cifar10_load(&images, "data", parts[i], 0, &error));
        cifar10_free(&images);
    }
}

static void a_batch_that_may_not_be_read_is_refused(void **state) {
    struct error error;
    struct cifar10 images;
    (void)state;
    need_no_root();
    make_data("data");
    chmod(BATCH, 0);
    assert_false(cifar10_load(&images, "data", CIFAR10_TRAIN, 0, &error));
    assert_says_all(&error, (struct says){BATCH, "cannot be opened", "Permission denied"});
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
    assert_int_equal(symlink("plain", "link"), 0);
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

static void folders_without_batches_are_refused(void **state) {
    (void)state;
    /* `entry` is what the folder holds, if anything: a file, or a folder if it ends in '/' */
    static const struct {
        const char *dir, *entry;
        struct says says;
    } cases[] = {
        {"", NULL, {"the name of the data folder", "is empty", "name one"}},
        {"missing", NULL, {"missing: ", "No such file", "get_data.sh"}},
        {"file", NULL, {"file: ", "is not a folder", "the folder that holds data_batch_1.bin"}},
        {"empty", NULL, {"empty: ", "holds no CIFAR-10 batches", "get_data.sh"}},
        {"other", "notes.txt", {"other: ", "holds no CIFAR-10 batches", "cifar-10-batches-bin"}},
        {"hollow",
         "cifar-10-batches-bin/",
         {"hollow: ", "holds no CIFAR-10 batches", "nor a folder cifar-10-batches-bin with them"}},
        {"python", "data_batch_1", {"python: ", "the Python version", "binary version is needed"}},
        {"python_above",
         "cifar-10-batches-py/",
         {"python_above: ", "the Python version", "binary version is needed"}},
        {"python_packed",
         "cifar-10-python.tar.gz",
         {"python_packed: ", "the Python version of CIFAR-10, packed", "cifar-10-python.tar.gz"}},
        {"matlab",
         "data_batch_1.mat",
         {"matlab: ", "the MATLAB version", "binary version is needed"}},
        {"matlab_above",
         "cifar-10-batches-mat/",
         {"matlab_above: ", "the MATLAB version", "binary version is needed"}},
        {"matlab_packed",
         "cifar-10-matlab.tar.gz",
         {"matlab_packed: ", "the MATLAB version of CIFAR-10, packed", "cifar-10-matlab.tar.gz"}},
        {"hundred",
         "fine_label_names.txt",
         {"hundred: ", "holds CIFAR-100", "binary version is needed"}},
        {"hundred_above",
         "cifar-100-binary/",
         {"hundred_above: ", "holds CIFAR-100", "binary version is needed"}},
        {"packed",
         "cifar-10-binary.tar.gz",
         {"packed: ", "the binary version, but still packed", "unpacked binary version is needed"}},
    };
    make("file", "text", 4);
    make_folder("empty");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        char folder[4096], entry[128];
        snprintf(entry, sizeof entry, "%s/%s", cases[i].dir, cases[i].entry);
        if (cases[i].entry != NULL) {
            make_folder(cases[i].dir);
            if (entry[strlen(entry) - 1] == '/')
                make_folder(entry);
            else
                make(entry, "", 0);
        }
        assert_false(cifar10_find(folder, cases[i].dir, &error));
        assert_says_all(&error, cases[i].says);
    }
}

static void a_folder_with_a_long_name_is_refused(void **state) {
    struct error error;
    char folder[4096], name[5000];
    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_false(cifar10_find(folder, name, &error));
    assert_says_all(&error, (struct says){"nnnn", "too long", "for a folder"});
    name[300] = '\0'; /* no folder's entry can be as long */
    assert_false(cifar10_find(folder, name, &error));
    assert_says_all(&error, (struct says){"nnnn", "cannot be found", "File name too long"});
}

static void a_folder_that_may_not_be_read_is_refused(void **state) {
    struct error error;
    char folder[4096];
    (void)state;
    need_no_root();
    make_data("data");
    chmod("data", 0);
    assert_false(cifar10_find(folder, "data", &error));
    assert_says_all(&error, (struct says){"data: ", "cannot be read", "Permission denied"});
}

/* ---- the names ---- */

static const char META[] = "data/batches.meta.txt";
static const char LETTERS[10][2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};

/* Every byte counts, and where it stands; so do the order of parts and the number of images. */
static void fingerprints_tell_data_apart(void **state) {
    (void)state;
    uint8_t *records = calloc(TRAIN, CIFAR10_RECORD);
    assert_non_null(records);
    const struct cifar10 images = {records, TRAIN}, fewer = {records, TRAIN - 1};
    const struct cifar10 one = {records, 1};
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
    struct cifar10_names names;
    (void)state;
    make_folder("data");
    assert_true(cifar10_load_names(&names, "data", &error));
    assert_memory_equal(&names, &cifar10_official_names, sizeof names);
    assert_string_equal(names.name[0], "airplane");
    assert_string_equal(names.name[9], "truck");
}

static void names_are_loaded_as_saved(void **state) {
    struct error error;
    struct cifar10_names names = {{"0", "a b", "2", "3", "4", "5", "6", "7", "8"}}, loaded;
    (void)state;
    memset(names.name[9], 'n', CIFAR10_NAME - 1); /* the longest */
    make_folder("data");
    assert_true(cifar10_save_names(&names, "data", &error));
    assert_true(cifar10_load_names(&loaded, "data", &error));
    for (int i = 0; i < CIFAR10_CLASSES; i++)
        assert_string_equal(loaded.name[i], names.name[i]);
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
        struct cifar10_names names;
        make(META, texts[i], strlen(texts[i]));
        assert_true(cifar10_load_names(&names, "data", &error));
        for (int j = 0; j < CIFAR10_CLASSES; j++)
            assert_string_equal(names.name[j], LETTERS[j]);
    }
}

static void malformed_names_are_refused(void **state) {
    (void)state;
    static char large[1025];
    static const struct {
        const char *text;
        struct says says;
    } cases[] = {
        {"", {META, "ends at byte 0 after 0 class names", "ten, one a line, are expected"}},
        {"a\nb\nc\nd\ne\nf\ng\nh\ni\n",
         {META, "ends at byte 18 after 9 class names", "ten, one a line, are expected"}},
        {"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n",
         {META, "byte 20: found 'k'", "ten class names of at most 31 bytes"}},
        {"a\nb\n12345678901234567890123456789012\nd\ne\nf\ng\nh\ni\nj\n",
         {META, "byte 4: found '12345678901234567890123456789012'", "at most 31 bytes"}},
        {large, {META, "has 1025 bytes", "ten class names, one a line, are expected"}},
    };
    make_folder("data");
    memset(large, '\n', sizeof large);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        struct cifar10_names names;
        const char *text = cases[i].text;
        make(META, text, text == large ? sizeof large : strlen(text));
        assert_false(cifar10_load_names(&names, "data", &error));
        assert_says_all(&error, cases[i].says);
    }
}

static void names_with_a_zero_byte_are_refused(void **state) {
    static const char text[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\0more";
    struct error error;
    struct cifar10_names names;
    (void)state;
    make_folder("data");
    make(META, text, sizeof text - 1);
    assert_false(cifar10_load_names(&names, "data", &error));
    assert_says_all(&error, (struct says){META, "byte 20 is 0", "ten class names"});
}

/* What a terminal would act on, or show as something else. */
static void names_must_be_printable(void **state) {
    static const char *const names[] = {"a\033[31m", "b\x7f", "c\xc3\xa9", "\t"};
    struct error error;
    struct cifar10_names loaded;
    (void)state;
    make_folder("data");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make(META, names[i], strlen(names[i]));
        assert_false(cifar10_load_names(&loaded, "data", &error));
        assert_says_all(&error, (struct says){META, "is 0x", "printable ASCII"});
    }
}

static void names_that_cannot_be_read_are_refused(void **state) {
    struct error error;
    struct cifar10_names names;
    (void)state;
    make_folder("data");
    make_folder(META);
    assert_false(cifar10_load_names(&names, "data", &error));
    assert_says_all(&error, (struct says){META, "is a folder", "a regular file is expected"});
    need_no_root();
    rmdir(META);
    make(META, "", 0);
    chmod(META, 0);
    assert_false(cifar10_load_names(&names, "data", &error));
    assert_says_all(&error, (struct says){META, "cannot be opened", "Permission denied"});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(loads_what_was_saved),
        IN_SCRATCH(saves_training_images_evenly_over_five_files),
        IN_SCRATCH(saving_reports_a_missing_folder),
        IN_SCRATCH(loads_the_first_images_alone),
        IN_SCRATCH(reads_of_the_largest_batch_what_is_wanted),
        IN_SCRATCH(damaged_batches_are_refused),
        IN_SCRATCH(every_batch_is_checked),
        IN_SCRATCH(a_batch_that_may_not_be_read_is_refused),
        IN_SCRATCH(finds_the_folder),
        IN_SCRATCH(folders_without_batches_are_refused),
        IN_SCRATCH(a_folder_with_a_long_name_is_refused),
        IN_SCRATCH(a_folder_that_may_not_be_read_is_refused),
        IN_SCRATCH(fingerprints_tell_data_apart),
        IN_SCRATCH(names_are_official_without_a_file),
        IN_SCRATCH(names_are_loaded_as_saved),
        IN_SCRATCH(names_are_read_from_all_kinds_of_lines),
        IN_SCRATCH(malformed_names_are_refused),
        IN_SCRATCH(names_with_a_zero_byte_are_refused),
        IN_SCRATCH(names_must_be_printable),
        IN_SCRATCH(names_that_cannot_be_read_are_refused),
    };
    leave_root();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
