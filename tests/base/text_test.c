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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(control_characters_go)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
