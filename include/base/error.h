/* Errors: one rule for the whole program.
 *
 * What a user, a file or a machine can cause is returned: the function answers false and fills a
 * `struct error` whose text names the file, the byte, what was found, what was expected and what
 * to do. Only the app floor prints it. What can only mean a fault of this program stops it at
 * once: `require`. */
#pragma once

#include <stdbool.h>

/* Exit statuses of the program, and the kinds of error. */
enum status {
    STATUS_OK = 0,
    STATUS_FAILURE = 1,    /* anything that has no status of its own: a full disk, a closed pipe */
    STATUS_USAGE = 2,      /* an option or a word that is wrong */
    STATUS_DATA = 3,       /* the data set */
    STATUS_CHECKPOINT = 4, /* a checkpoint that is read */
    STATUS_DEVICE = 5,     /* a device that is not there, not built in or that failed */
    STATUS_DIVERGED = 6,   /* the loss is no longer finite */
    STATUS_INTERRUPTED = 128, /* by a signal, whose number is added */
};

struct error {
    enum status status;
    char text[6144]; /* a paragraph without a final newline; the longest path has room in it */
};

/* Fills `error` and answers false, so that a function can end in `return error_set(...)`. */
bool error_set(struct error *error, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As that, of a file: its path stands before the text, with a colon. */
bool error_set_file(struct error *error, enum status status, const char *path, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

/* A condition that only a fault of the program can break: prints it with its place and aborts. */
#define require(condition)                                                                         \
    ((condition) ? (void)0 : require_failed(#condition, __FILE__, __LINE__, __func__))

_Noreturn void require_failed(const char *condition, const char *file, int line,
                              const char *function);
