/* The record of a training run: a file with one JSON object a line (JSON Lines). */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdio.h>

struct run_log {
    FILE *file; /* NULL: nobody wants one */
    const char *path;
};

/* Opens (and empties) the file; with path NULL there is none and every call does nothing. Errors:
 * STATUS_FAILURE. */
bool run_log_open(struct run_log *log, const char *path, struct error *error);

/* Writes one record at once, and takes it over. Numbers have 9 significant digits, enough for every
 * float to be read back exactly. Errors: STATUS_FAILURE, when the file cannot be written. */
bool run_log_write(struct run_log *log, json_t *record, struct error *error);

bool run_log_close(struct run_log *log, struct error *error);
