/* Keys and values: how they are set and found. */
#include "base/metadata.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void metadata_is_changed_and_cut(void **state) {
    struct metadata metadata = {0};
    char text[METADATA_VALUE + 100];
    (void)state;
    assert_null(metadata_get(&metadata, "key"));
    metadata_set(&metadata, "key", "one");
    metadata_set(&metadata, "other", "%s", "%d");
    metadata_set(&metadata, "key", "%d%s", 2, "nd");
    assert_int_equal(metadata.count, 2);
    assert_string_equal(metadata_get(&metadata, "key"), "2nd");
    assert_string_equal(metadata_get(&metadata, "other"), "%d");
    assert_null(metadata_get(&metadata, "ke"));
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    metadata_set(&metadata, "long", "%s", text);
    assert_int_equal(strlen(metadata_get(&metadata, "long")), sizeof metadata.entry[0].value - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(metadata_is_changed_and_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
