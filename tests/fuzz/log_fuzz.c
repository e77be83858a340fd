/* The reader of a run's log that is there.
 *
 * Input: a byte for the epoch and one for the step in which the run goes on, one whose low two
 * bits say how many times 64 KiB of zeros follow the rest, which is the log.
 *
 * Asserted: what is said of it is possible; it is left as it was until the run goes on, and then
 * what is kept are whole lines from its beginning, if it is the run's own log, and nothing else;
 * what is kept goes no further than the run, and is the same when the run goes on there again. */
#include "fuzz.h"

#include "app/run_log.h"

enum { DESCRIPTOR = 100, LONGEST = 1 << 21 };
static const char PATH[] = "/proc/self/fd/100", OTHER_RUN[] = "0123abcd";

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    fuzz_file_new(DESCRIPTOR);
    return 0;
}

static size_t content(char bytes[LONGEST]) {
    const ssize_t size = pread(DESCRIPTOR, bytes, LONGEST, 0);
    require(size >= 0);
    return (size_t)size;
}

static bool is_beyond(struct run_position a, int64_t epoch, int64_t step) {
    return a.epoch > epoch || (a.epoch == epoch && a.step > step);
}

/* What is kept of a log of which this was found. */
static size_t go_on(const struct run_log_summary *found, const char *run, int64_t epoch,
                    int64_t step, const char *before, size_t size) {
    static char after[LONGEST];
    struct run_log_summary again;
    struct run_log log;
    struct error error;
    require(run_log_reopen(&log, PATH, run, epoch, step, &error));
    const struct run_position reached = log.reached;
    const size_t kept = content(after);
    require(kept <= size && memcmp(after, before, kept) == 0);
    require(kept == 0 || (after[kept - 1] == '\n' && strcmp(found->mark, run) == 0));
    require((kept == 0) == (reached.epoch == 0) && !is_beyond(reached, epoch, step));
    if (!run_log_is_whole(&log, 3, &error))
        fuzz_check_error(&error, STATUS_FAILURE);
    require(run_log_write(&log, json_pack("{s:s}", "event", "warning"), &error));
    require(run_log_close(&log, &error));
    require(content(after) == kept + strlen("{\"event\":\"warning\"}\n"));
    require(memcmp(after, before, kept) == 0);
    require(run_log_summarize(PATH, 0, 0, &again) == (kept > 0) && (kept == 0 || !again.torn));
    require(again.reached.epoch == reached.epoch && again.reached.step == reached.step);
    require(again.records <= found->records + 1);
    return kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char before[LONGEST], after[LONGEST];
    if (size < 3 || size > LONGEST / 2)
        return -1;
    const int64_t epoch = data[0], step = data[1];
    const char *bytes = (const char *)data + 3;
    const size_t count = size - 3, hole = (size_t)(data[2] & 3) << 16;
    struct run_log_summary found = {0};
    fuzz_file_fill(DESCRIPTOR, bytes, count, count + hole);
    const size_t all = content(before);
    const bool is_log = run_log_summarize(PATH, 64, data[2] >> 2, &found);
    require(content(after) == all && memcmp(after, before, all) == 0);
    require(is_log == (found.mark[0] != '\0') && is_log == (found.records > 0));
    require(memchr(found.mark, '\0', sizeof found.mark) != NULL);
    if (is_log) {
        require(found.reached.epoch >= 1 && found.reached.epoch <= (INT64_C(1) << 31) + 1);
        require(found.reached.step >= 0 && found.reached.step <= INT64_C(1) << 53);
        require(found.torn == (hole > 0 || bytes[count - 1] != '\n'));
        if (go_on(&found, found.mark, epoch, step, before, all) > 0) {
            const size_t again = content(before);
            require(run_log_summarize(PATH, 0, 0, &found));
            require(go_on(&found, found.mark, epoch, step, before, again) == again);
        }
    }
    fuzz_file_fill(DESCRIPTOR, bytes, count, count + hole);
    content(before);
    go_on(&found, OTHER_RUN, epoch, step, before, all);
    return 0;
}
