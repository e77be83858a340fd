#include "app/print_line.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

static void print(FILE *to, const char *before, const char *format, va_list arguments) {
    char line[8192]; /* the longest path has room in it */
    vsnprintf(line, sizeof line, format, arguments);
    fprintf(to, "%s%s\n", before, text_clean(line));
}

void print_line(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print(stdout, "", format, arguments);
    va_end(arguments);
}

void print_warning(const char *program, const char *format, ...) {
    char before[64];
    va_list arguments;
    snprintf(before, sizeof before, "%s: warning: ", program);
    va_start(arguments, format);
    print(stderr, before, format, arguments);
    va_end(arguments);
}
