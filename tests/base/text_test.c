/* What a terminal would act on, and what it would not. */
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void control_characters_go(void **state) {
    (void)state;
    static const struct {
        const char *text, *clean;
    } CASES[] = {
        {"", ""},
        {" a~", " a~"},
        {"\001\t\n\r\033[31m\037\177", "?????[31m??"},
        {"\xc2\x80\xc2\x9b"
         "1m\xc2\x9f",
         "????1m??"},
        {"\u00a0\u00e9\u00c2", "\u00a0\u00e9\u00c2"}, /* bytes c2 a0, c3 a9 and c3 82 */
        {"\u65e5\u672c", "\u65e5\u672c"},
        {"\xc2", "\xc2"},
        {"\xc2\033", "\xc2?"},
        {"\xff\x9b", "\xff\x9b"}, /* no UTF-8 */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[32];
        strcpy(text, CASES[i].text);
        assert_ptr_equal(text_clean(text), text);
        assert_string_equal(text, CASES[i].clean);
    }
}

static void what_is_clean_is_shown_as_it_is(void **state) {
    static const char *const CLEAN[] = {"", " a~", "\u00a0\u00e9\u00c2", "\u65e5\u672c",
                                        "\U0001f408"};
    static const char *const NOT[] = {"\n",       "a\033[31m", "\x7f",
                                      "\xc2\x9b", "\xc2",      "caf\xe9",
                                      "\xff",     "\xe6\x97",  "\xed\xa0\x80" /* half of a pair */,
                                      "\xc0\x80"};
    (void)state;
    for (size_t i = 0; i < sizeof CLEAN / sizeof *CLEAN; i++)
        assert_true(text_is_clean(CLEAN[i]));
    for (size_t i = 0; i < sizeof NOT / sizeof *NOT; i++)
        assert_false(text_is_clean(NOT[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_characters_go),
        cmocka_unit_test(what_is_clean_is_shown_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
