#include "base/error.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool set(struct error *error, enum status status, size_t used, const char *format,
                va_list arguments) {
    error->status = status;
    vsnprintf(error->text + used, sizeof error->text - used, format, arguments);
    text_clean(error->text);
    return false;
}

bool error_set(struct error *error, enum status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    set(error, status, 0, format, arguments);
    va_end(arguments);
    return false;
}

bool error_set_file(struct error *error, enum status status, const char *path, const char *format,
                    ...) {
    va_list arguments;
    va_start(arguments, format);
    snprintf(error->text, sizeof error->text, "%s: ", path);
    set(error, status, strlen(error->text), format, arguments);
    va_end(arguments);
    return false;
}

void require_failed(const char *condition, const char *file, int line, const char *function) {
    fprintf(stderr, "%s:%d: %s: '%s' does not hold: a fault of this program, please report it\n",
            file, line, function, condition);
    abort();
}
