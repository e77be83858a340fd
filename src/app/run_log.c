#include "app/run_log.h"

#include "app/json_output.h"

#include <errno.h>
#include <string.h>

static bool failed(const struct run_log *log, const char *what, struct error *error) {
    return error_set(error, STATUS_FAILURE, "%s: the log cannot be %s: %s", log->path, what,
                     strerror(errno));
}

bool run_log_open(struct run_log *log, const char *path, struct error *error) {
    *log = (struct run_log){.path = path};
    if (path == NULL)
        return true;
    log->file = fopen(path, "w");
    return log->file != NULL || failed(log, "opened for writing", error);
}

bool run_log_write(struct run_log *log, json_t *record, struct error *error) {
    bool good = true;
    require(record != NULL);
    if (log->file != NULL)
        good = json_dumpf(record, log->file, JSON_COMPACT | JSON_DIGITS) == 0 &&
               fputc('\n', log->file) != EOF && fflush(log->file) == 0;
    json_decref(record);
    return good || failed(log, "written", error);
}

bool run_log_close(struct run_log *log, struct error *error) {
    FILE *file = log->file;
    log->file = NULL;
    return file == NULL || fclose(file) == 0 || failed(log, "written", error);
}
