/* The record of a training run: a file with one JSON object a line (JSON Lines). */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/* How far a run or its log is: in `epoch` (from 1; 0: nothing yet) after so many steps; after an
 * epoch, in the next one after 0. */
struct run_position {
    int64_t epoch, step;
};

bool run_log_is_before(struct run_position a, struct run_position b);

/* What is in a log that is there. */
struct run_log_summary {
    char mark[40];               /* the mark of the run that its first record names */
    int64_t records;             /* whole ones */
    struct run_position reached; /* how far they go, wherever in the file the furthest is */
    struct run_position gap;     /* the first whose record is not where it belongs; epoch 0: none */
    bool torn;                   /* what is behind the last line feed is no whole record */
};

/* Whether `path` is a regular file that begins with a whole record of a run of this program; says
 * what is in it. Looks for a gap if `every` is above 0: an epoch has `steps` steps, and every
 * so many of them a record. Takes no more memory for a longer file. */
bool run_log_summarize(const char *path, int64_t steps, int64_t every,
                       struct run_log_summary *summary);

/* Whether `path` is where standard output or standard error goes, such as /dev/stdout, or a device
 * or a pipe: a log there follows what is written to it, and nothing that was there is read or cut.
 */
bool run_log_is_stream(const char *path);

/* Whether another process would find the same file by that name: no stream, and no name that each
 * process has for itself, such as /dev/fd/3. */
bool run_log_lasts(const char *path);

struct run_log {
    const char *path;
    int descriptor; /* below 0: nobody wants a log */
    bool is_file;   /* of its own, which can be read and cut: no pipe, device or stream */
    char *waiting;  /* records that could not be written yet */
    size_t waiting_size;
    bool stalls;                       /* a pipe's reader does not read */
    int failures;                      /* writes that failed */
    struct run_position from, reached; /* where a run that goes on is, and where its log was */
};

/* Opens (and empties) the file; with path NULL there is none and every call does nothing. Errors:
 * STATUS_FAILURE; a link that leads to no file and a pipe that nobody reads are two. */
bool run_log_open(struct run_log *log, const char *path, struct error *error);

/* Opens the log of the run with that mark, which goes on in `epoch` after `step` steps, and
 * cuts off what that run recorded behind that point, which will come again. A file that does not
 * begin with a record of that run is emptied. Errors as above, and of reading. */
bool run_log_reopen(struct run_log *log, const char *path, const char *mark, int64_t epoch,
                    int64_t step, struct error *error);

/* Whether a log that was reopened had come as far as the run, which reports every `log_every`
 * steps; the error says what it lacks. What is no file of its own lacks nothing. */
bool run_log_is_whole(const struct run_log *log, int64_t log_every, struct error *error);

/* Writes one record at once, and takes it over. Numbers have 9 significant digits, enough for every
 * float to be read back exactly. Errors: STATUS_FAILURE, when the file cannot be written; it ends
 * in a whole record then, and what is missing waits for the next call. */
bool run_log_write(struct run_log *log, json_t *record, struct error *error);

/* Makes sure that what was written survives the machine, as well as a file does after
 * file_replace(). */
void run_log_sync(const struct run_log *log);

/* Errors: STATUS_FAILURE, when records still wait. */
bool run_log_close(struct run_log *log, struct error *error);
