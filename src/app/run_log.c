#include "app/run_log.h"

#include "app/json_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool failed(const struct run_log *log, const char *what, int reason, struct error *error) {
    return error_set(error, STATUS_FAILURE, "%s: the log cannot be %s: %s", log->path, what,
                     strerror(reason));
}

static bool open_log(struct run_log *log, const char *path, int more, struct error *error) {
    *log = (struct run_log){.path = path, .descriptor = -1};
    if (path == NULL)
        return true;
    log->descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | more, 0666);
    return log->descriptor >= 0 || failed(log, "opened for writing", errno, error);
}

bool run_log_open(struct run_log *log, const char *path, struct error *error) {
    return open_log(log, path, O_TRUNC, error);
}

/* Whether a record, a line of the log, stands before that point of the run. */
static bool stands_before(const char *line, int64_t epoch, int64_t step) {
    json_error_t where;
    json_int_t at_epoch = 0, at_step = 0;
    const char *event = "";
    json_t *record = json_loads(line, 0, &where);
    json_unpack(record, "{s:s, s?I, s?I}", "event", &event, "epoch", &at_epoch, "step", &at_step);
    bool before = strcmp(event, "start") == 0 || strcmp(event, "warning") == 0;
    if (strcmp(event, "step") == 0 || strcmp(event, "resume") == 0)
        before = at_epoch < epoch || (at_epoch == epoch && at_step <= step);
    if (strcmp(event, "epoch") == 0)
        before = at_epoch < epoch;
    json_decref(record);
    return before;
}

bool run_log_reopen(struct run_log *log, const char *path, int64_t epoch, int64_t step,
                    struct error *error) {
    if (!open_log(log, path, 0, error))
        return false;
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    struct stat info;
    if (file == NULL || fstat(log->descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        if (file != NULL)
            fclose(file);
        return true;
    }
    char *line = NULL;
    size_t room = 0;
    off_t keep = 0;
    for (ssize_t length; (length = getline(&line, &room, file)) > 0; keep += length)
        if (line[length - 1] != '\n' || !stands_before(line, epoch, step))
            break;
    free(line);
    fclose(file);
    if (ftruncate(log->descriptor, keep) == 0)
        return true;
    failed(log, "cut", errno, error);
    close(log->descriptor);
    return false;
}

/* Writes what waits, or leaves a file as it was. */
static bool write_waiting(struct run_log *log) {
    struct stat before;
    const bool regular = fstat(log->descriptor, &before) == 0 && S_ISREG(before.st_mode);
    for (size_t at = 0; at < log->waiting_size;) {
        const ssize_t put = write(log->descriptor, log->waiting + at, log->waiting_size - at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            const int reason = errno;
            if (!regular || ftruncate(log->descriptor, before.st_size) != 0) {
                log->waiting_size -= at; /* what is out cannot be taken back */
                memmove(log->waiting, log->waiting + at, log->waiting_size);
            }
            errno = reason;
            return false;
        }
        at += (size_t)put;
    }
    log->waiting_size = 0;
    return true;
}

bool run_log_write(struct run_log *log, json_t *record, struct error *error) {
    require(record != NULL);
    char *text = log->descriptor < 0 ? NULL : json_dumps(record, JSON_COMPACT | JSON_DIGITS);
    json_decref(record);
    if (text == NULL)
        return true;
    const size_t length = strlen(text);
    char *waiting = realloc(log->waiting, log->waiting_size + length + 1);
    require(waiting != NULL);
    log->waiting = waiting;
    memcpy(log->waiting + log->waiting_size, text, length);
    log->waiting[log->waiting_size + length] = '\n';
    log->waiting_size += length + 1;
    free(text);
    if (write_waiting(log))
        return true;
    log->failures++;
    return failed(log, "written", errno, error);
}

bool run_log_close(struct run_log *log, struct error *error) {
    const int descriptor = log->descriptor;
    if (descriptor < 0)
        return true;
    const bool written = write_waiting(log);
    int reason = errno;
    const bool closed = close(descriptor) == 0;
    reason = written ? errno : reason;
    free(log->waiting);
    *log = (struct run_log){.path = log->path, .descriptor = -1};
    return (written && closed) || failed(log, "written", reason, error);
}
