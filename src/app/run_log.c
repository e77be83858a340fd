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

/* Whether a record, a line of the log, belongs to the run up to where it is; moves where the log
 * is. What is no record of this program's stays, wherever it comes from. */
static bool belongs(struct run_log *log, const char *line) {
    json_error_t where;
    json_int_t epoch = 0, step = 0;
    const char *event = "";
    json_t *record = json_loads(line, 0, &where);
    json_unpack(record, "{s:s, s?I, s?I}", "event", &event, "epoch", &epoch, "step", &step);
    const bool is_start = strcmp(event, "start") == 0, is_end = strcmp(event, "end") == 0;
    const bool is_step = strcmp(event, "step") == 0, is_epoch = strcmp(event, "epoch") == 0;
    json_decref(record);
    if (is_start)
        epoch = 1;
    if (is_epoch) {
        epoch++;
        step = 0;
    }
    if (is_end || epoch > log->run.epoch || (epoch == log->run.epoch && step > log->run.step))
        return false;
    if (is_start || is_step || is_epoch) {
        log->reached.epoch = epoch;
        log->reached.step = step;
    }
    return true;
}

bool run_log_reopen(struct run_log *log, const char *path, int64_t epoch, int64_t step,
                    struct error *error) {
    if (!open_log(log, path, 0, error))
        return false;
    log->run.epoch = epoch;
    log->run.step = step;
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
        if (line[length - 1] != '\n' || !belongs(log, line))
            break;
    free(line);
    fclose(file);
    if (ftruncate(log->descriptor, keep) == 0)
        return true;
    failed(log, "cut", errno, error);
    close(log->descriptor);
    return false;
}

bool run_log_is_whole(const struct run_log *log, int64_t log_every, struct error *error) {
    const int64_t step = log->run.step - log->run.step % log_every;
    if (log->descriptor < 0 || (log->reached.epoch == log->run.epoch && log->reached.step == step))
        return true;
    return error_set(error, STATUS_FAILURE,
                     "%s: the log ends in epoch %lld at step %lld, but the run goes on in epoch "
                     "%lld after step %lld: records are missing",
                     log->path, (long long)log->reached.epoch, (long long)log->reached.step,
                     (long long)log->run.epoch, (long long)log->run.step);
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

void run_log_sync(const struct run_log *log) {
    if (log->descriptor >= 0)
        fdatasync(log->descriptor); /* a pipe has none; a disk that fails says so elsewhere, too */
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
