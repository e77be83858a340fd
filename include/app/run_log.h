/* The record of a training run: a file with one JSON object a line (JSON Lines). */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

struct run_log {
    const char *path;
    int descriptor; /* below 0: nobody wants a log */
    char *waiting;  /* records that could not be written yet */
    size_t waiting_size;
    int failures; /* writes that failed */
};

/* Opens (and empties) the file; with path NULL there is none and every call does nothing. Errors:
 * STATUS_FAILURE. */
bool run_log_open(struct run_log *log, const char *path, struct error *error);

/* Opens the log of a run that goes on in `epoch` after `step` steps, and cuts off what that run
 * recorded behind that point, which will come again. Without the file, a new one. Errors:
 * STATUS_FAILURE. */
bool run_log_reopen(struct run_log *log, const char *path, int64_t epoch, int64_t step,
                    struct error *error);

/* Writes one record at once, and takes it over. Numbers have 9 significant digits, enough for every
 * float to be read back exactly. Errors: STATUS_FAILURE, when the file cannot be written; it ends
 * in a whole record then, and what is missing waits for the next call. */
bool run_log_write(struct run_log *log, json_t *record, struct error *error);

/* Errors: STATUS_FAILURE, when records still wait. */
bool run_log_close(struct run_log *log, struct error *error);
