/* What every call of the fake libraries begins with: the log and the failures on request. */
#include "fake.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 1, 0))) static void say(const char *format, va_list arguments) {
    fputs("fake GPU: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
}

void fake_message(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

void fake_stop(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    abort();
}

size_t fake_setting(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : (size_t)strtoull(text, NULL, 10);
}

void *fake_new(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL)
        fake_stop("no memory on the host");
    return memory;
}

/* To nearest even; NaN and infinity stay. */
float fake_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7F800000) != 0x7F800000)
        bits = (bits + 0x0FFF + (bits >> 13 & 1)) & ~UINT32_C(0x1FFF);
    memcpy(&value, &bits, sizeof bits);
    return value;
}

__attribute__((format(printf, 1, 0))) static void log_line(const char *format, va_list arguments) {
    static FILE *file;
    const char *path = getenv("FAKE_GPU_LOG");
    if (path == NULL)
        return;
    if (file == NULL) {
        file = fopen(path, "a");
        if (file == NULL)
            fake_stop("FAKE_GPU_LOG: '%s' cannot be opened", path);
        setvbuf(file, NULL, _IOLBF, 0); /* complete, however the program ends */
    }
    vfprintf(file, format, arguments);
    fputs("\n", file);
}

/* FAKE_GPU_FAIL, for the function whose name is the first `length` characters of `name`. */
static bool must_fail(int *status, const char *name, size_t length) {
    static int calls;
    const char *request = getenv("FAKE_GPU_FAIL");
    int from = 1;
    if (request == NULL || strncmp(request, name, length) != 0 || request[length] != ':')
        return false;
    if (sscanf(request + length, ":%d:%d", status, &from) < 1)
        fake_stop("FAKE_GPU_FAIL=%s is not FUNCTION:STATUS[:N]", request);
    return ++calls >= from;
}

bool fake_call_v(int *status, const char *format, va_list arguments) {
    log_line(format, arguments);
    return must_fail(status, format, strcspn(format, " "));
}

bool fake_call(int *status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    bool fails = fake_call_v(status, format, arguments);
    va_end(arguments);
    return fails;
}
