#include "device/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const char *const NAMES[] = {"openblas", "cpu", "cudnn", "cuda"};
enum { NAME_COUNT = sizeof NAMES / sizeof *NAMES };

static void backends_are_found_or_not_built_in(void **state) {
    (void)state;
    for (int i = 0; i < NAME_COUNT; i++) {
        struct error error = {STATUS_OK, ""};
        const struct device_ops *ops = device_find(NAMES[i], &error);
        if (ops != NULL) {
            assert_ptr_equal(device_find(ops->name, &error), ops);
            continue;
        }
        assert_int_equal(error.status, STATUS_DEVICE);
        assert_non_null(strstr(error.text, NAMES[i]));
        assert_non_null(strstr(error.text, "not built in"));
    }
}

static void processors_need_no_option_of_the_build(void **state) {
    (void)state;
    struct error error;
    assert_non_null(device_find("openblas", &error));
    assert_non_null(device_find("cpu", &error));
}

static void names_are_listed_best_first(void **state) {
    (void)state;
    static const char *const best_first[] = {"cuda", "cudnn", "cpu", "openblas"};
    for (int i = 0; i < NAME_COUNT; i++)
        assert_string_equal(device_name(i), best_first[i]);
    assert_null(device_name(NAME_COUNT));
}

/* The first of the list that opens. */
static void automatic_is_the_best_that_opens(void **state) {
    (void)state;
    const struct device_options options = {.threads = 1};
    struct error error;
    struct device *best = NULL, *automatic;
    for (int i = 0; best == NULL && device_name(i) != NULL; i++)
        if (!device_open(&best, device_name(i), &options, &error))
            best = NULL;
    assert_non_null(best);
    assert_true(device_open(&automatic, "auto", &options, &error));
    assert_ptr_equal(automatic->ops, best->ops);
    automatic->ops->close(automatic);
    best->ops->close(best);
}

static void unknown_names_are_told_the_known_ones(void **state) {
    (void)state;
    static const char *const unknown[] = {"",    "gpu",    "CPU",         "cpu ",
                                          "cud", "cuda:0", "openblas,cpu"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        struct error error = {STATUS_OK, ""};
        assert_null(device_find(unknown[i], &error));
        assert_int_equal(error.status, STATUS_DEVICE);
        assert_non_null(strstr(error.text, unknown[i]));
        assert_non_null(strstr(error.text, "auto"));
        for (int j = 0; j < NAME_COUNT; j++)
            assert_non_null(strstr(error.text, NAMES[j]));
    }
}

/* All members of struct device_ops are pointers: the name, then functions. */
static void no_function_is_missing(void **state) {
    (void)state;
    typedef void function(void);
    _Static_assert(sizeof(function *) == sizeof(char *), "a table of pointers of one size");
    _Static_assert(sizeof(struct device_ops) % sizeof(char *) == 0, "a table of pointers");
    for (int i = 0; i < NAME_COUNT; i++) {
        struct error error;
        const struct device_ops *ops = device_find(NAMES[i], &error);
        for (size_t at = 0; ops != NULL && at < sizeof *ops; at += sizeof(char *)) {
            function *member;
            memcpy(&member, (const char *)ops + at, sizeof member);
            if (member == NULL)
                fail_msg("%s: member %zu of its operations is NULL", NAMES[i], at / sizeof(char *));
        }
    }
}

static void check_cut(const struct device_ops *ops, const struct device *device) {
    for (size_t size = 1; size < 100; size++) {
        char text[200];
        memset(text, '#', sizeof text);
        ops->describe(device, text, size);
        assert_non_null(memchr(text, '\0', size));
        for (size_t i = size; i < sizeof text; i++)
            assert_int_equal(text[i], '#');
    }
}

/* Backends describe themselves without a device and with one, in one line that fits. */
static void backends_describe_themselves(void **state) {
    (void)state;
    for (int i = 0; i < NAME_COUNT; i++) {
        struct error error;
        struct device *device = NULL;
        const struct device_ops *ops = device_find(NAMES[i], &error);
        if (ops == NULL)
            continue;
        char alone[200] = "", opened[200] = "";
        ops->describe(NULL, alone, sizeof alone);
        assert_true(strlen(alone) > 3 && strchr(alone, '\n') == NULL);
        check_cut(ops, NULL);
        if (!ops->open(&device, &(struct device_options){.threads = 3}, &error)) {
            print_message("skipped: %s\n", error.text);
            continue;
        }
        assert_string_equal(device->ops->name, ops->name); /* the table may be for a processor */
        ops->describe(device, opened, sizeof opened);
        assert_true(strlen(opened) > 3 && strchr(opened, '\n') == NULL);
        check_cut(ops, device);
        ops->close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backends_are_found_or_not_built_in),
        cmocka_unit_test(processors_need_no_option_of_the_build),
        cmocka_unit_test(names_are_listed_best_first),
        cmocka_unit_test(automatic_is_the_best_that_opens),
        cmocka_unit_test(unknown_names_are_told_the_known_ones),
        cmocka_unit_test(no_function_is_missing),
        cmocka_unit_test(backends_describe_themselves),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
