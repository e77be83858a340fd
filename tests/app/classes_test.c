/* The names of the classes in a checkpoint's metadata. */
#include "app/classes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct cifar10_names found;
static bool told;
static struct error error;

static bool find(const struct metadata *about) {
    memset(&found, 'x', sizeof found);
    return classes_find(&found, &told, about, "x.ckpt", &error);
}

/* What is recorded is found again, also what JSON must escape, and the longest. */
static void names_survive(void **state) {
    struct cifar10_names names = cifar10_official_names;
    struct metadata about = {0};
    (void)state;
    classes_record(&about, &names);
    assert_string_equal(metadata_get(&about, "classes"),
                        "[\"airplane\",\"automobile\",\"bird\",\"cat\",\"deer\",\"dog\",\"frog\","
                        "\"horse\",\"ship\",\"truck\"]");
    for (int i = 0; i < CIFAR10_CLASSES; i++) {
        memset(names.name[i], i % 2 == 0 ? '"' : '\\', CIFAR10_NAME - 1);
        names.name[i][CIFAR10_NAME - 1] = '\0';
    }
    strcpy(names.name[3], " ~");
    classes_record(&about, &names);
    assert_int_equal(about.count, 1);
    assert_true(find(&about));
    assert_true(told);
    assert_int_equal(cifar10_compare_names(&found, &names), CIFAR10_CLASSES);
    names.name[2][0] = '\0'; /* there may be fewer */
    classes_record(&about, &names);
    assert_true(find(&about));
    assert_int_equal(cifar10_count_names(&found), 2);
    assert_string_equal(found.name[1], names.name[1]);
}

static void without_names_they_are_the_official_ones(void **state) {
    const struct metadata about = {0};
    (void)state;
    assert_true(find(&about));
    assert_false(told);
    assert_int_equal(cifar10_compare_names(&found, &cifar10_official_names), CIFAR10_CLASSES);
}

/* A name may come twice, as in a data set's file. */
static void what_is_no_list_of_names_is_refused(void **state) {
    static const struct {
        const char *text;
        bool good;
    } CASES[] = {
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]", true},
        {" [ \"0\" , \"0\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\\u0041\" ] ", true},
        {"", false},
        {"[]", false},
        {"{}", false},
        {"7", false},
        {"cat", false},
        {"\"cat\"", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"]", true},
        {"[\"0\"]", true},
        {"[\"\"]", false},
        {"[\"0\",\"\",\"2\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",9]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",null]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",[\"9\"]]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\\u001b[31m\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\\u0000\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\033[31m\"]", false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\xc2\x9b"
         "31m\"]",
         false},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"\u00e9\"]", true},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"123456789_123456789_123456789_1"
         "\"]",
         true},
        {"[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"123456789_123456789_123456789_12"
         "\"]",
         false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct metadata about = {0};
        metadata_set(&about, "classes", "%s", CASES[i].text);
        assert_int_equal(find(&about), CASES[i].good);
        if (CASES[i].good)
            continue;
        assert_int_equal(error.status, STATUS_CHECKPOINT);
        assert_non_null(strstr(error.text, "x.ckpt: its metadata's classes is "));
        assert_non_null(strstr(error.text, "; a JSON array of the names of one to ten classes"));
        assert_null(strchr(error.text, '\033'));
    }
    struct metadata deep = {0}; /* as much as metadata holds */
    metadata_set(&deep, "classes", "%01000d", 0);
    memset(deep.entry[0].value, '[', 1000);
    assert_false(find(&deep));
}

static void the_first_difference_is_told(void **state) {
    struct cifar10_names names = cifar10_official_names;
    (void)state;
    strcpy(names.name[9], "lorry");
    assert_int_equal(cifar10_compare_names(&names, &cifar10_official_names), 9);
    strcpy(names.name[0], "plane");
    assert_int_equal(cifar10_compare_names(&cifar10_official_names, &names), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_survive),
        cmocka_unit_test(without_names_they_are_the_official_ones),
        cmocka_unit_test(what_is_no_list_of_names_is_refused),
        cmocka_unit_test(the_first_difference_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
