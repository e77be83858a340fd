#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bool error_set(struct error *error, enum status status, const char *format, ...) {
    va_list arguments;
    error->status = status;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    /* what a file holds must not give orders to the terminal: control characters, in UTF-8 also
     * U+0080 .. U+009F */
    for (unsigned char *at = (unsigned char *)error->text; *at != '\0'; at++)
        if (*at < ' ' || *at == 0x7f)
            *at = '?';
        else if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
            at[0] = at[1] = '?';
    return false;
}

void require_failed(const char *condition, const char *file, int line, const char *function) {
    fprintf(stderr, "%s:%d: %s: '%s' does not hold: a fault of this program, please report it\n",
            file, line, function, condition);
    abort();
}
