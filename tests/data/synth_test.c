#include "data/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <stdlib.h>
#include <string.h>

static struct cifar10 drawn(enum cifar10_part part, int64_t count, uint64_t seed) {
    struct cifar10 images;
    synth_draw(&images, part, count, seed);
    assert_int_equal(images.count, count);
    return images;
}

static const uint8_t *record(const struct cifar10 *images, int64_t index) {
    return images->records + index * CIFAR10_RECORD;
}

static void names_are_distinct_words(void **state) {
    (void)state;
    for (int i = 0; i < CIFAR10_CLASSES; i++) {
        const char *name = synth_names.name[i];
        assert_non_null(memchr(name, 0, CIFAR10_NAME));
        assert_true(name[0] != 0);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz"), strlen(name));
        for (int j = 0; j < i; j++)
            assert_string_not_equal(name, synth_names.name[j]);
    }
}

static void only_all_ten_names_are_synthetic(void **state) {
    (void)state;
    struct cifar10_names names = synth_names;
    assert_true(synth_has_names(&names));
    names.name[9][0] = 'x';
    assert_false(synth_has_names(&names));
}

static void swap_labels(struct cifar10 *images, int64_t i, int64_t j) {
    uint8_t *one = images->records + i * CIFAR10_RECORD,
            *other = images->records + j * CIFAR10_RECORD;
    const uint8_t label = *one;
    assert_true(label != *other);
    *one = *other;
    *other = label;
}

/* Also as far as --limit goes, but not from another image than the first on. */
static void its_labels_are_known_again(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct cifar10 images = drawn((enum cifar10_part)(seed % 2), 99, seed);
        for (int64_t count = 0; count <= 99; count++)
            assert_int_equal(
                synth_has_labels(&(struct cifar10){images.records, count, CIFAR10_CLASSES}),
                count >= 20);
        const struct cifar10 later = {images.records + CIFAR10_RECORD, 98, CIFAR10_CLASSES};
        assert_false(synth_has_labels(&later));
        cifar10_free(&images);
    }
}

static void other_labels_are_not_taken_for_its_own(void **state) {
    (void)state;
    struct cifar10 images = drawn(CIFAR10_TEST, 99, 0);
    swap_labels(&images, 87, 92); /* in two different tens */
    assert_false(synth_has_labels(&images));
    for (int64_t i = 0; i < images.count; i++)
        images.records[i * CIFAR10_RECORD] = (uint8_t)((i + 3) % CIFAR10_CLASSES);
    assert_false(synth_has_labels(&images)); /* they only go round */
    swap_labels(&images, 90, 91);
    assert_true(synth_has_labels(&images));
    for (int64_t i = 0; i < images.count; i++)
        images.records[i * CIFAR10_RECORD] = (uint8_t)(i / 10);
    assert_false(synth_has_labels(&images)); /* class by class */
    cifar10_free(&images);
}

/* Counts differ by one at most, whatever the number of images. */
static void labels_are_balanced(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 10, 99, 500};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct cifar10 images = drawn(CIFAR10_TRAIN, counts[i], 3);
        int64_t of_label[CIFAR10_CLASSES] = {0};
        for (int64_t j = 0; j < counts[i]; j++) {
            assert_in_range(record(&images, j)[0], 0, CIFAR10_CLASSES - 1);
            of_label[record(&images, j)[0]]++;
        }
        for (int label = 0; label < CIFAR10_CLASSES; label++)
            assert_in_range(of_label[label], counts[i] / 10, (counts[i] + 9) / 10);
        cifar10_free(&images);
    }
}

/* Every place among ten sees every label: 1,000 images have about 10 of each. */
static void labels_are_in_random_order(void **state) {
    (void)state;
    struct cifar10 images = drawn(CIFAR10_TRAIN, 1000, 0);
    int seen[10][CIFAR10_CLASSES] = {0};
    for (int64_t i = 0; i < images.count; i++)
        seen[i % 10][record(&images, i)[0]]++;
    for (int place = 0; place < 10; place++)
        for (int label = 0; label < CIFAR10_CLASSES; label++)
            assert_in_range(seen[place][label], 1, 30);
    cifar10_free(&images);
}

static void the_same_seed_draws_the_same_bytes(void **state) {
    (void)state;
    struct cifar10 once = drawn(CIFAR10_TEST, 50, 7);
    struct cifar10 again = drawn(CIFAR10_TEST, 50, 7);
    assert_memory_equal(once.records, again.records, 50 * CIFAR10_RECORD);
    cifar10_free(&once);
    cifar10_free(&again);
}

static void an_image_does_not_depend_on_the_count(void **state) {
    (void)state;
    struct cifar10 few = drawn(CIFAR10_TRAIN, 37, 7);
    struct cifar10 many = drawn(CIFAR10_TRAIN, 90, 7);
    assert_memory_equal(few.records, many.records, 37 * CIFAR10_RECORD);
    cifar10_free(&few);
    cifar10_free(&many);
}

/* No two images are alike, within a part, between the parts or between seeds. */
static void all_images_differ(void **state) {
    (void)state;
    enum { EACH = 100, SETS = 4 };
    struct cifar10 sets[SETS] = {drawn(CIFAR10_TRAIN, EACH, 0), drawn(CIFAR10_TEST, EACH, 0),
                                 drawn(CIFAR10_TRAIN, EACH, 1), drawn(CIFAR10_TEST, EACH, 1)};
    for (int i = 0; i < SETS * EACH; i++)
        for (int j = 0; j < i; j++) {
            const uint8_t *one = record(&sets[i / EACH], i % EACH) + 1;
            const uint8_t *other = record(&sets[j / EACH], j % EACH) + 1;
            assert_true(memcmp(one, other, CIFAR10_PIXELS) != 0);
        }
    for (int i = 0; i < SETS; i++)
        cifar10_free(&sets[i]);
}

/* FNV-1a, 64 bits. */
static uint64_t checksum(const struct cifar10 *images) {
    uint64_t sum = 0xcbf29ce484222325U;
    for (int64_t i = 0; i < images->count * CIFAR10_RECORD; i++)
        sum = (sum ^ images->records[i]) * 0x100000001b3U;
    return sum;
}

/* The figures are what the program drew when the design was settled. A machine or a compiler that
 * gives others does not round as IEEE says: look at its options (-ffp-contract, -ffast-math). */
static void the_bytes_are_the_same_on_every_machine(void **state) {
    (void)state;
    struct cifar10 train = drawn(CIFAR10_TRAIN, 100, 0);
    struct cifar10 test = drawn(CIFAR10_TEST, 100, 0);
    assert_int_equal(checksum(&train), 0x191abe83ee8148c3U);
    assert_int_equal(checksum(&test), 0xce11d91ebc4d4a5cU);
    cifar10_free(&train);
    cifar10_free(&test);
}

/* A picture is not told by its colours: the class whose mean image is nearest is rarely right. */
static void class_means_do_not_tell_the_classes_apart(void **state) {
    (void)state;
    struct cifar10 train = drawn(CIFAR10_TRAIN, 2000, 0);
    struct cifar10 test = drawn(CIFAR10_TEST, 1000, 0);
    static float mean[CIFAR10_CLASSES][CIFAR10_PIXELS];
    for (int64_t i = 0; i < train.count; i++)
        for (int p = 0; p < CIFAR10_PIXELS; p++)
            mean[record(&train, i)[0]][p] += (float)record(&train, i)[1 + p] / 200;
    int right = 0;
    for (int64_t i = 0; i < test.count; i++) {
        int nearest = 0;
        float least = FLT_MAX;
        for (int label = 0; label < CIFAR10_CLASSES; label++) {
            float distance = 0;
            for (int p = 0; p < CIFAR10_PIXELS; p++) {
                float difference = record(&test, i)[1 + p] - mean[label][p];
                distance += difference * difference;
            }
            if (distance < least) {
                least = distance;
                nearest = label;
            }
        }
        right += nearest == record(&test, i)[0];
    }
    assert_in_range(right, 0, 449);
    cifar10_free(&train);
    cifar10_free(&test);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_distinct_words),
        cmocka_unit_test(only_all_ten_names_are_synthetic),
        cmocka_unit_test(its_labels_are_known_again),
        cmocka_unit_test(other_labels_are_not_taken_for_its_own),
        cmocka_unit_test(labels_are_balanced),
        cmocka_unit_test(labels_are_in_random_order),
        cmocka_unit_test(the_same_seed_draws_the_same_bytes),
        cmocka_unit_test(an_image_does_not_depend_on_the_count),
        cmocka_unit_test(all_images_differ),
        cmocka_unit_test(the_bytes_are_the_same_on_every_machine),
        cmocka_unit_test(class_means_do_not_tell_the_classes_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
