#include "app/print_line.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void print_line(const char *format, ...) {
    char line[8192]; /* the longest path has room in it */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    puts(text_clean(line));
}
