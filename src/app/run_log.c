#include "app/run_log.h"

#include "app/print.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool failed(const struct run_log *log, const char *what, int reason, struct error *error) {
    return error_set(error, STATUS_FAILURE, "%s: the log cannot be %s: %s", log->path, what,
                     reason == EAGAIN ? "its reader does not read" : strerror(reason));
}

/* ---- a log that is there ---- */

enum { LONGEST = 1 << 17 }; /* bytes of a record: more than its three paths can come to */
static const int64_t MOST_EPOCHS = INT64_C(1) << 31, MOST_STEPS = INT64_C(1) << 53;

/* What there is to know of a line. Those from START on have a place in the run; TEST and END come
 * behind all that has. */
struct record {
    enum { NO_RECORD, OTHER, TEST, END, START, RESUME, STEP, EPOCH } event;
    struct run_position at; /* where it leaves the run; 0: it has no place */
    char mark[40];
};

bool run_log_is_before(struct run_position a, struct run_position b) {
    return a.epoch < b.epoch || (a.epoch == b.epoch && a.step < b.step);
}

static struct record parse(const char *line, size_t length) {
    static const char *const NAMES[] = {[TEST] = "test",     [END] = "end",   [START] = "start",
                                        [RESUME] = "resume", [STEP] = "step", [EPOCH] = "epoch"};
    struct record record = {0};
    json_error_t where;
    json_int_t epoch = 0, step = 0;
    const char *event, *run = "";
    json_t *object = json_loadb(line, length, 0, &where);
    if (json_unpack(object, "{s:s, s?I, s?I, s?s}", "event", &event, "epoch", &epoch, "step", &step,
                    "run", &run) == 0) {
        record.event = OTHER;
        for (int i = TEST; i <= EPOCH; i++)
            if (strcmp(event, NAMES[i]) == 0)
                record.event = i;
        snprintf(record.mark, sizeof record.mark, "%s", run);
    }
    json_decref(object);
    if (record.event == START)
        epoch = 1;
    if (record.event < START)
        return record;
    if (epoch < 1 || epoch > MOST_EPOCHS || step < 0 || step > MOST_STEPS)
        return (struct record){.event = NO_RECORD};
    const bool is_epoch = record.event == EPOCH;
    record.at = (struct run_position){is_epoch ? epoch + 1 : epoch, is_epoch ? 0 : step};
    return record;
}

/* Reads a line with its line feed and answers how long it is, 0 where no whole one is left. One
 * that is longer than a record is not kept. */
static off_t read_line(FILE *file, char line[LONGEST]) {
    off_t length = 0;
    for (int c; (c = getc_unlocked(file)) != EOF;) {
        if (length < LONGEST)
            line[length] = (char)c;
        length++;
        if (c == '\n')
            return length;
    }
    return 0;
}

/* Where the record behind that of `at` belongs. */
static struct run_position next_record(struct run_position at, int64_t steps, int64_t every) {
    if (every <= steps - at.step)
        return (struct run_position){at.epoch, at.step + every};
    return (struct run_position){at.epoch + 1, 0};
}

/* The file, if it is a regular one. */
static FILE *open_to_read(const char *path) {
    struct file file;
    struct error error;
    if (!file_open(&file, path, STATUS_FAILURE, &error))
        return NULL;
    FILE *stream = fdopen(file.descriptor, "r");
    if (stream == NULL)
        memory_failed(sizeof *stream);
    return stream;
}

/* Reads a log that begins with a record of a run, as far as its lines are whole and, if it is to go
 * on from `until` (or else NULL), to there; `*size` becomes how long that is. What is no record of
 * this program's belongs to it, wherever it comes from. Looks for a gap as run_log_summarize()
 * does. False: it could not be read, errno says why. */
static bool read_log(const char *path, const struct run_position *until, int64_t steps,
                     int64_t every, struct run_log_summary *summary, off_t *size) {
    FILE *file = open_to_read(path);
    if (file == NULL)
        return false;
    struct run_position next = {0};
    char *line = memory_new(LONGEST, 1);
    *summary = (struct run_log_summary){0};
    *size = 0;
    for (off_t length; (length = read_line(file, line)) > 0; *size += length) {
        const bool is_first = *size == 0;
        struct record record = {.event = NO_RECORD};
        if (length <= LONGEST)
            record = parse(line, (size_t)length);
        const bool begins = record.event == START || (record.event == RESUME && is_first);
        if (is_first && (!begins || record.mark[0] == '\0'))
            break;
        if (until != NULL &&
            (record.event == TEST || record.event == END || run_log_is_before(*until, record.at)))
            break;
        if (is_first)
            memcpy(summary->mark, record.mark, sizeof record.mark);
        if (record.event != NO_RECORD)
            summary->records++;
        if (every > 0 && is_first) /* the one before would have been there */
            record.at.step -= record.at.step % every;
        if (record.event >= STEP && summary->gap.epoch == 0 &&
            (run_log_is_before(record.at, next) || run_log_is_before(next, record.at)))
            summary->gap = next;
        if (every > 0 && (is_first || record.event >= STEP))
            next = next_record(record.at, steps, every);
        if ((begins || record.event >= STEP) && run_log_is_before(summary->reached, record.at))
            summary->reached = record.at;
    }
    const bool read = ferror(file) == 0;
    const int reason = errno;
    summary->torn = ftello(file) != *size;
    free(line);
    fclose(file);
    errno = reason;
    return read;
}

bool run_log_summarize(const char *path, int64_t steps, int64_t every,
                       struct run_log_summary *summary) {
    off_t size;
    return read_log(path, NULL, steps, every, summary, &size) && size > 0;
}

/* ---- opening ---- */

/* The stream that `path` names, or -1. One that can only be read was closed: see main(). */
static int stream_of(const char *path) {
    struct stat file, stream;
    for (int i = STDOUT_FILENO; stat(path, &file) == 0 && i <= STDERR_FILENO; i++)
        if (fstat(i, &stream) == 0 && stream.st_dev == file.st_dev &&
            stream.st_ino == file.st_ino && (fcntl(i, F_GETFL) & O_ACCMODE) != O_RDONLY)
            return i;
    return -1;
}

bool run_log_is_stream(const char *path) {
    struct stat info;
    return stream_of(path) >= 0 ||
           (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode));
}

bool run_log_lasts(const char *path) {
    static const char *const OWN[] = {"/dev/fd/", "/dev/std", "/proc/"};
    for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++)
        if (strncmp(path, OWN[i], strlen(OWN[i])) == 0)
            return false;
    return !run_log_is_stream(path);
}

static bool open_log(struct run_log *log, const char *path, int more, struct error *error) {
    struct stat info;
    *log = (struct run_log){.path = path, .descriptor = -1};
    if (path == NULL)
        return true;
    if (file_is_dangling(path, error))
        return false;
    const int stream = stream_of(path);
    if (stream >= 0) { /* opened a second time, a file would be written over from its beginning */
        log->descriptor = fcntl(stream, F_DUPFD_CLOEXEC, 0);
        return log->descriptor >= 0 || failed(log, "opened for writing", errno, error);
    }
    /* O_NONBLOCK: opening a pipe that nobody reads would wait for a reader */
    log->descriptor =
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | more, 0666);
    const int reason = errno;
    if (log->descriptor < 0 && reason == ENXIO && stat(path, &info) == 0 && S_ISFIFO(info.st_mode))
        return error_set(error, STATUS_FAILURE,
                         "%s: is a pipe that nobody reads; start its reader first", path);
    if (log->descriptor < 0)
        return failed(log, "opened for writing", reason, error);
    fcntl(log->descriptor, F_SETFL, O_APPEND);
    log->is_file = fstat(log->descriptor, &info) == 0 && S_ISREG(info.st_mode);
    return true;
}

bool run_log_open(struct run_log *log, const char *path, struct error *error) {
    return open_log(log, path, O_TRUNC, error);
}

bool run_log_reopen(struct run_log *log, const char *path, const char *mark, int64_t epoch,
                    int64_t step, struct error *error) {
    struct run_log_summary summary = {0};
    off_t size;
    if (!open_log(log, path, 0, error))
        return false;
    log->from = (struct run_position){epoch, step};
    if (!log->is_file)
        return true;
    const bool read = read_log(path, &log->from, 0, 0, &summary, &size);
    const bool own = read && strcmp(summary.mark, mark) == 0;
    if (own)
        log->reached = summary.reached;
    if (read && ftruncate(log->descriptor, own ? size : 0) == 0)
        return true;
    failed(log, read ? "cut" : "read", errno, error);
    close(log->descriptor);
    return false;
}

bool run_log_is_whole(const struct run_log *log, int64_t log_every, struct error *error) {
    const struct run_position due = {log->from.epoch, log->from.step - log->from.step % log_every};
    if (!log->is_file || !run_log_is_before(log->reached, due))
        return true;
    return error_set(error, STATUS_FAILURE,
                     "%s: the log ends in epoch %lld at step %lld, but the run goes on in epoch "
                     "%lld after step %lld: records are missing",
                     log->path, (long long)log->reached.epoch, (long long)log->reached.step,
                     (long long)log->from.epoch, (long long)log->from.step);
}

/* ---- writing ---- */

/* Milliseconds that a reader of a pipe has to make room: for each record, and in the end. A run
 * does not stand still because its log is not read. */
enum { RECORD_PATIENCE = 1000, END_PATIENCE = 5000 };

/* Writes to a stream what surely does not block: a pipe that is ready takes PIPE_BUF bytes. */
static ssize_t write_to_stream(const struct run_log *log, size_t at, int patience) {
    struct pollfd stream = {.fd = log->descriptor, .events = POLLOUT};
    const size_t size = log->waiting_size - at < PIPE_BUF ? log->waiting_size - at : PIPE_BUF;
    const int ready = (int)TEMP_FAILURE_RETRY(poll(&stream, 1, patience));
    errno = ready == 0 ? EAGAIN : errno;
    return ready <= 0 ? -1 : write(log->descriptor, log->waiting + at, size);
}

/* Writes what waits, or leaves a file as it was. */
static bool write_waiting(struct run_log *log, int patience) {
    struct stat before;
    const bool regular = log->is_file && fstat(log->descriptor, &before) == 0;
    if (!log->is_file)
        fflush(stdout); /* the log may be the same stream */
    for (size_t at = 0; at < log->waiting_size;) {
        const ssize_t put = log->is_file
                                ? write(log->descriptor, log->waiting + at, log->waiting_size - at)
                                : write_to_stream(log, at, patience);
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
    log->waiting = memory_resize(log->waiting, log->waiting_size + length + 1);
    memcpy(log->waiting + log->waiting_size, text, length);
    log->waiting[log->waiting_size + length] = '\n';
    log->waiting_size += length + 1;
    free(text);
    if (write_waiting(log, log->stalls ? 0 : RECORD_PATIENCE)) {
        log->stalls = false;
        return true;
    }
    log->stalls = errno == EAGAIN;
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
    const bool written = write_waiting(log, END_PATIENCE);
    int reason = errno;
    const bool closed = close(descriptor) == 0;
    reason = written ? errno : reason;
    free(log->waiting);
    *log = (struct run_log){.path = log->path, .descriptor = -1};
    return (written && closed) || failed(log, "written", reason, error);
}
