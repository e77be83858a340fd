/* The log of a run: what is in the file after writes that fail, and after a run that went on. Every
 * test runs in a new folder of its own. */
#include "app/run_log.h"

#include "scratch.h"

#include <signal.h>
#include <sys/resource.h>

static void make(const char *text) {
    FILE *stream = fopen("log", "w");
    assert_non_null(stream);
    fputs(text, stream);
    fclose(stream);
}

static void assert_holds(const char *text) {
    char found[8192] = "";
    FILE *stream = fopen("log", "r");
    assert_non_null(stream);
    found[fread(found, 1, sizeof found - 1, stream)] = '\0';
    fclose(stream);
    assert_string_equal(found, text);
}

static void must(bool good, const struct error *error) {
    if (!good)
        fail_msg("%s", error->text);
}

static void writes_a_line_at_once(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    make("of before\n");
    must(run_log_open(&log, "log", &error), &error);
    assert_holds("");
    must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
    assert_holds("{\"a\":1}\n");
    must(run_log_write(&log, json_pack("{s:f}", "b", (double)0.1F), &error), &error);
    assert_holds("{\"a\":1}\n{\"b\":0.100000001}\n");
    must(run_log_close(&log, &error), &error);

    must(run_log_open(&log, NULL, &error), &error); /* nobody wants one */
    must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
    must(run_log_close(&log, &error), &error);
}

static void set_limit(rlim_t bytes) {
    const struct rlimit limit = {bytes, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A full disk in the middle of a record: the file ends in a whole one, and what is missing follows
 * as soon as there is room. */
static void records_wait_for_room(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    must(run_log_open(&log, "log", &error), &error);
    must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
    set_limit(12);
    for (int i = 2; i < 4; i++) {
        assert_false(run_log_write(&log, json_pack("{s:i}", "a", i), &error));
        assert_int_equal(error.status, STATUS_FAILURE);
        assert_string_equal(error.text, "log: the log cannot be written: File too large");
        assert_holds("{\"a\":1}\n");
    }
    assert_int_equal(log.failures, 2);
    set_limit(RLIM_INFINITY);
    must(run_log_write(&log, json_pack("{s:i}", "a", 4), &error), &error);
    assert_holds("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n");
    set_limit(33);
    assert_false(run_log_write(&log, json_pack("{s:i}", "a", 5), &error));
    assert_false(run_log_close(&log, &error)); /* it still waits */
    set_limit(RLIM_INFINITY);
}

#define START "{\"event\":\"start\",\"epochs\":5}\n"
#define STEP(epoch, step)                                                                          \
    "{\"event\":\"step\",\"epoch\":" #epoch ",\"step\":" #step ",\"loss\":2.5}\n"
#define EPOCH(epoch)        "{\"event\":\"epoch\",\"epoch\":" #epoch ",\"train_loss\":2.5}\n"
#define RESUME(epoch, step) "{\"event\":\"resume\",\"epoch\":" #epoch ",\"step\":" #step "}\n"
#define WARNING             "{\"event\":\"warning\",\"text\":\"t\"}\n"
#define END                 "{\"event\":\"end\",\"finished\":false}\n"

static void a_run_that_goes_on_cuts_what_comes_again(void **state) {
    (void)state;
    static const struct {
        int64_t epoch, step;
        const char *before, *kept;
    } CASES[] = {
        {1, 0, "", ""},
        {1, 0, START STEP(1, 5), START},
        {1, 5, START STEP(1, 5) STEP(1, 10), START STEP(1, 5)},
        {1, 7, START STEP(1, 5) STEP(1, 10), START STEP(1, 5)},
        {2, 0, START STEP(1, 5) EPOCH(1) STEP(2, 5), START STEP(1, 5) EPOCH(1)},
        {1, 9, START STEP(1, 5) EPOCH(1), START STEP(1, 5)},
        {2, 5, START STEP(1, 5) EPOCH(1) STEP(2, 5) END, START STEP(1, 5) EPOCH(1) STEP(2, 5)},
        {3, 0, START EPOCH(1) END EPOCH(2), START EPOCH(1)},
        {2, 5, START WARNING RESUME(2, 5) RESUME(2, 6), START WARNING RESUME(2, 5)},
        {2, 5, START "{\"event\":\"st", START}, /* a torn record */
        {2, 5, "{\"event\":\"start\"}", ""},    /* without its line feed it is not whole */
        /* what is no record of this program's stays */
        {2, 5, START "no record\n" STEP(3, 5), START "no record\n"},
        {2, 5, START "[1, 2]\n{\"event\":7}\n" EPOCH(2), START "[1, 2]\n{\"event\":7}\n"},
        {2, 5, "{\"event\":\"other\"}\n" STEP(1, 5) END, "{\"event\":\"other\"}\n" STEP(1, 5)},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct run_log log;
        struct error error;
        char expected[1024];
        make(CASES[i].before);
        must(run_log_reopen(&log, "log", CASES[i].epoch, CASES[i].step, &error), &error);
        assert_holds(CASES[i].kept);
        must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
        must(run_log_close(&log, &error), &error);
        snprintf(expected, sizeof expected, "%s{\"a\":1}\n", CASES[i].kept);
        assert_holds(expected);
    }
}

/* A log that lost its end, to a machine that failed, say, is told of. */
static void a_log_that_is_short_is_noticed(void **state) {
    (void)state;
    static const struct {
        int64_t epoch, step;
        const char *text;
        bool whole;
    } CASES[] = {
        {1, 0, START, true},
        {1, 4, START, true}, /* a report is due every 5 steps */
        {1, 5, START, false},
        {1, 9, START STEP(1, 5), true},
        {1, 10, START STEP(1, 5), false},
        {2, 0, START STEP(1, 5), false},
        {2, 0, START STEP(1, 5) EPOCH(1), true},
        {2, 7, START STEP(1, 5) EPOCH(1), false},
        {2, 7, START STEP(1, 5) EPOCH(1) STEP(2, 5) STEP(2, 10), true},
        {2, 7, START STEP(1, 5) EPOCH(1) STEP(2, 5) RESUME(2, 7) WARNING, true},
        {1, 0, "", false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct run_log log;
        struct error error;
        make(CASES[i].text);
        must(run_log_reopen(&log, "log", CASES[i].epoch, CASES[i].step, &error), &error);
        assert_int_equal(run_log_is_whole(&log, 5, &error), CASES[i].whole);
        if (!CASES[i].whole)
            assert_non_null(strstr(error.text, "log: the log ends in epoch "));
        must(run_log_close(&log, &error), &error);
    }
}

static void a_log_that_is_gone_begins_anew(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    must(run_log_reopen(&log, "log", 2, 5, &error), &error);
    assert_holds("");
    must(run_log_close(&log, &error), &error);
    assert_false(run_log_reopen(&log, "no/log", 2, 5, &error));
    assert_string_equal(error.text,
                        "no/log: the log cannot be opened for writing: No such file or directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(writes_a_line_at_once),
        IN_SCRATCH(records_wait_for_room),
        IN_SCRATCH(a_run_that_goes_on_cuts_what_comes_again),
        IN_SCRATCH(a_log_that_is_short_is_noticed),
        IN_SCRATCH(a_log_that_is_gone_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
