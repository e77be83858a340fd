#include "base/error.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool error_set(struct error *error, enum status status, const char *format, ...) {
    va_list arguments;
    error->status = status;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    text_clean(error->text);
    return false;
}

bool error_set_file(struct error *error, enum status status, const char *path, const char *format,
                    ...) {
    va_list arguments;
    error_set(error, status, "%s: ", path);
    const size_t used = strlen(error->text);
    va_start(arguments, format);
    vsnprintf(error->text + used, sizeof error->text - used, format, arguments);
    va_end(arguments);
    text_clean(error->text);
    return false;
}

void require_failed(const char *condition, const char *file, int line, const char *function) {
    fprintf(stderr, "%s:%d: %s: '%s' does not hold: a fault of this program, please report it\n",
            file, line, function, condition);
    abort();
}
