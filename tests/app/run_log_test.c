/* The log of a run: what is in the file after writes that fail, and after a run that went on. Every
 * test runs in a new folder of its own. */
#include "app/run_log.h"

#include "scratch.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

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

#define RUN   "0123abcd"
#define START "{\"event\":\"start\",\"epochs\":5,\"run\":\"" RUN "\"}\n"
#define STEP(epoch, step)                                                                          \
    "{\"event\":\"step\",\"epoch\":" #epoch ",\"step\":" #step ",\"loss\":2.5}\n"
#define EPOCH(epoch) "{\"event\":\"epoch\",\"epoch\":" #epoch ",\"train_loss\":2.5}\n"
#define RESUME(epoch, step)                                                                        \
    "{\"event\":\"resume\",\"epoch\":" #epoch ",\"step\":" #step ",\"run\":\"" RUN "\"}\n"
#define WARNING "{\"event\":\"warning\",\"text\":\"t\"}\n"
#define TEST    "{\"event\":\"test\",\"test_loss\":2.5}\n"
#define END     "{\"event\":\"end\",\"finished\":false}\n"

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
        {2, 0, START EPOCH(1) TEST, START EPOCH(1)}, /* the run ends with it, and tests again */
        {2, 5, START WARNING RESUME(2, 5) RESUME(2, 6), START WARNING RESUME(2, 5)},
        {2, 5, START "{\"event\":\"st", START}, /* a torn record */
        {2, 5, "{\"event\":\"start\"}", ""},    /* without its line feed it is not whole */
        /* what is no record of this program's stays */
        {2, 5, START "no record\n" STEP(3, 5), START "no record\n"},
        {2, 5, START "[1, 2]\n{\"event\":7}\n" EPOCH(2), START "[1, 2]\n{\"event\":7}\n"},
        {2, 5, START "{\"event\":\"other\"}\n" STEP(1, 5) END,
         START "{\"event\":\"other\"}\n" STEP(1, 5)},
        {2, 5, START EPOCH(9223372036854775807) STEP(2, 5),
         START EPOCH(9223372036854775807) STEP(2, 5)},
        {2, 5, START STEP(9223372036854775808, 1) STEP(-1, 1),
         START STEP(9223372036854775808, 1) STEP(-1, 1)},
        /* a log that began when the run went on */
        {2, 5, RESUME(2, 5) STEP(2, 10), RESUME(2, 5)},
        {2, 4, RESUME(2, 5) STEP(2, 10), ""},
        /* what is no log of this run is not gone on with */
        {2, 5, "no record\n" START STEP(1, 5), ""},
        {2, 5, STEP(1, 5) STEP(1, 10), ""},
        {2, 5, "{\"event\":\"start\"}\n" STEP(1, 5), ""},
        {2, 5, "{\"event\":\"start\",\"run\":\"\"}\n", ""},
        {2, 5, "{\"event\":\"start\",\"run\":\"0123abce\"}\n" STEP(1, 5), ""},
        {2, 5, "{\"event\":\"start\",\"run\":\"" RUN "0\"}\n" STEP(1, 5), ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct run_log log;
        struct error error;
        char expected[1024];
        make(CASES[i].before);
        must(run_log_reopen(&log, "log", RUN, CASES[i].epoch, CASES[i].step, &error), &error);
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
        {2, 7, START STEP(1, 5) EPOCH(1) RESUME(2, 7), false},
        {2, 7, RESUME(2, 7), true}, /* it begins there */
        {2, 10, RESUME(2, 7), false},
        {1, 0, "", false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct run_log log;
        struct error error;
        make(CASES[i].text);
        must(run_log_reopen(&log, "log", RUN, CASES[i].epoch, CASES[i].step, &error), &error);
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
    must(run_log_reopen(&log, "log", RUN, 2, 5, &error), &error);
    assert_holds("");
    must(run_log_close(&log, &error), &error);
    assert_false(run_log_reopen(&log, "no/log", RUN, 2, 5, &error));
    assert_string_equal(error.text,
                        "no/log: the log cannot be opened for writing: No such file or directory");
}

/* Whatever else is in it. */
static void a_log_is_known_by_its_first_record(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t records;
        struct run_position reached;
        bool torn;
    } CASES[] = {
        {"", 0, {0, 0}, false},
        {"{\"event\":\"start\",\"run\":\"" RUN "\"}", 0, {0, 0}, true}, /* no whole line */
        {"{\"run\":\"" RUN "\"}\n" START, 0, {0, 0}, false},
        {STEP(1, 5), 0, {0, 0}, false},
        {START, 1, {1, 0}, false},
        {RESUME(3, 7), 1, {3, 7}, false},
        {START STEP(1, 5) EPOCH(1) STEP(2, 5) END, 5, {2, 5}, false},
        {START STEP(1, 5) EPOCH(1) END "{\"ev", 4, {2, 0}, true},
        {START EPOCH(2) STEP(2, 5) WARNING RESUME(4, 1), 5, {3, 0}, false},
        {START "{}\n[]\n\nno record\n" STEP(1, 5), 2, {1, 5}, false},
        {START EPOCH(2147483648) STEP(1, 9007199254740992), 3, {2147483649, 0}, false},
        {START EPOCH(2147483649) STEP(1, 9007199254740993) STEP(1, -1) STEP(1.0, 2) EPOCH(0),
         1,
         {1, 0},
         false},
    };
    struct run_log_summary found;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        make(CASES[i].text);
        assert_int_equal(run_log_summarize("log", 0, 0, &found), CASES[i].records > 0);
        assert_string_equal(found.mark, CASES[i].records > 0 ? RUN : "");
        assert_int_equal(found.records, CASES[i].records);
        assert_int_equal(found.reached.epoch, CASES[i].reached.epoch);
        assert_int_equal(found.reached.step, CASES[i].reached.step);
        assert_int_equal(found.gap.epoch, 0); /* it was not looked for */
        if (CASES[i].records > 0)
            assert_int_equal(found.torn, CASES[i].torn);
        assert_holds(CASES[i].text);
    }
    make_folder("folder");
    make("{\"event\":\"start\",\"epochs\":5}\n"); /* of no run that can be told */
    assert_false(run_log_summarize("log", 0, 0, &found));
    assert_false(run_log_summarize("folder", 0, 0, &found));
    assert_false(run_log_summarize("none", 0, 0, &found));
    assert_false(run_log_summarize("/dev/zero", 0, 0, &found));
}

/* An epoch has 12 steps, of which each fifth has a record. */
static void gaps_are_found(void **state) {
    (void)state;
    static const struct {
        const char *text;
        struct run_position gap;
    } CASES[] = {
        {START STEP(1, 5) STEP(1, 10) EPOCH(1) STEP(2, 5), {0, 0}},
        {START STEP(1, 5) WARNING RESUME(1, 7) STEP(1, 10) EPOCH(1), {0, 0}},
        {RESUME(2, 7) STEP(2, 10) EPOCH(2) STEP(3, 5) END, {0, 0}},
        {RESUME(2, 10) EPOCH(2), {0, 0}},
        {START STEP(1, 10) EPOCH(1), {1, 5}},
        {START STEP(1, 5) STEP(1, 10) STEP(2, 5), {2, 0}},
        {START STEP(1, 5) STEP(1, 10) EPOCH(1) EPOCH(2), {2, 5}},
        {START STEP(1, 5) STEP(1, 5) STEP(1, 10), {1, 10}},
        {START STEP(1, 5) STEP(1, 10) EPOCH(1) EPOCH(1) STEP(2, 10), {2, 5}},
        {START STEP(1, 10) STEP(2, 5), {1, 5}}, /* the first of two */
        {START STEP(1, 7), {1, 5}},
        {RESUME(2, 7) EPOCH(2), {2, 10}},
        {START STEP(1, 9007199254740992), {1, 5}},
    };
    struct run_log_summary found;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        make(CASES[i].text);
        assert_true(run_log_summarize("log", 12, 5, &found));
        assert_int_equal(found.gap.epoch, CASES[i].gap.epoch);
        assert_int_equal(found.gap.step, CASES[i].gap.step);
    }
    make(START STEP(1, 5) STEP(1, 10) EPOCH(1) STEP(2, 5)); /* the last step has one, too */
    assert_true(run_log_summarize("log", 10, 5, &found) && found.gap.epoch == 0);
    make(START EPOCH(1) EPOCH(2)); /* fewer steps than that */
    assert_true(run_log_summarize("log", 3, INT64_MAX, &found) && found.gap.epoch == 0);
    assert_true(run_log_summarize("log", INT64_MAX, 1, &found) && found.gap.step == 1);
}

/* Makes a log whose second line is that deep, and then a hole. */
static void make_long(int depth, long hole) {
    FILE *stream = fopen("log", "w");
    assert_non_null(stream);
    fputs(START, stream);
    for (int i = 0; i < depth; i++)
        putc('[', stream);
    assert_int_equal(fseek(stream, hole, SEEK_CUR), 0);
    fputs("\n" STEP(1, 5), stream);
    fclose(stream);
}

/* As long as records with long names, and much longer; with little memory. */
static void lines_may_be_long(void **state) {
    (void)state;
    struct run_log_summary found;
    struct run_log log;
    struct error error;
    char *record = malloc(100000);
    assert_non_null(record);
    snprintf(record, 100000, "{\"event\":\"start\",\"model\":\"%90000s\",\"run\":\"%s\"}\n", "",
             RUN);
    make(record);
    free(record);
    assert_true(run_log_summarize("log", 0, 0, &found) && strcmp(found.mark, RUN) == 0);
    make_long(100000, 0);
    assert_true(run_log_summarize("log", 0, 0, &found) && found.reached.step == 5);
    make_long(0, 200000000);
    assert_true(run_log_summarize("log", 0, 0, &found) && found.reached.step == 5);
    must(run_log_reopen(&log, "log", RUN, 1, 5, &error), &error);
    assert_int_equal(log.reached.step, 5);
    must(run_log_close(&log, &error), &error);
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
#ifndef __SANITIZE_ADDRESS__
    assert_true(usage.ru_maxrss < 100000); /* KB */
#endif
}

/* Pipes, links, devices: opened without waiting, and neither read nor cut. */
static void a_log_need_not_be_a_file(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    char found[16] = "";
    assert_int_equal(mkfifo("pipe", 0666), 0);
    assert_false(run_log_open(&log, "pipe", &error));
    assert_string_equal(error.text, "pipe: is a pipe that nobody reads; start its reader first");
    assert_false(run_log_reopen(&log, "pipe", RUN, 2, 5, &error));
    const int reader = open("pipe", O_RDONLY | O_NONBLOCK);
    must(run_log_reopen(&log, "pipe", RUN, 2, 5, &error), &error);
    assert_true(run_log_is_whole(&log, 5, &error));
    must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
    assert_int_equal(read(reader, found, sizeof found), 8);
    assert_string_equal(found, "{\"a\":1}\n");
    /* a reader that stalls: what it has no room for waits, and comes in order once it reads */
    int64_t written = 0, whole = 0;
    while (run_log_write(&log, json_pack("{s:I}", "n", (json_int_t)++written), &error))
        assert_true(written < 100000);
    assert_string_equal(error.text, "pipe: the log cannot be written: its reader does not read");
    for (int i = 0; i < 1000; i++) /* it is not waited for once more */
        assert_false(run_log_write(&log, json_pack("{s:I}", "n", (json_int_t)++written), &error));
    static char all[1 << 20];
    ssize_t size = read(reader, all, PIPE_BUF); /* there is room, but not for all that waits */
    assert_int_equal(size, PIPE_BUF);
    assert_false(run_log_write(&log, json_pack("{s:I}", "n", (json_int_t)++written), &error));
    for (ssize_t got; (got = read(reader, all + size, sizeof all - 1 - (size_t)size)) > 0;)
        size += got;
    must(run_log_write(&log, json_pack("{s:I}", "n", (json_int_t)++written), &error), &error);
    for (ssize_t got; (got = read(reader, all + size, sizeof all - 1 - (size_t)size)) > 0;)
        size += got;
    for (char *line = strtok(all, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char expected[32];
        snprintf(expected, sizeof expected, "{\"n\":%lld}", (long long)++whole);
        assert_string_equal(line, expected);
    }
    assert_int_equal(whole, written);
    must(run_log_close(&log, &error), &error);
    close(reader);

    must(run_log_reopen(&log, "/dev/null", RUN, 2, 5, &error), &error);
    assert_true(run_log_is_whole(&log, 5, &error));
    must(run_log_close(&log, &error), &error);

    assert_int_equal(symlink("nothing", "link"), 0);
    assert_false(run_log_open(&log, "link", &error));
    assert_string_equal(error.text, "link: is a link that leads to no file: No such file or "
                                    "directory; remove it or make its file");
    assert_int_not_equal(access("nothing", F_OK), 0);
}

/* A reader that is slow: each record waits for it for a while, also after one that waited in vain,
 * and so does the end. */
static void a_slow_reader_is_waited_for(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    char some[PIPE_BUF] = "";
    for (int k = 0; k < 3; k++) {
        unlink("pipe");
        assert_int_equal(mkfifo("pipe", 0666), 0);
        const int reader = open("pipe", O_RDONLY | O_NONBLOCK);
        const int filler = open("pipe", O_WRONLY | O_NONBLOCK);
        must(run_log_open(&log, "pipe", &error), &error);
        while (write(filler, some, sizeof some) > 0)
            ;
        if (k > 0)
            assert_false(run_log_write(&log, json_pack("{s:i}", "a", 1), &error));
        if (k > 1) {
            assert_int_equal(read(reader, some, sizeof some), sizeof some);
            must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
            while (write(filler, some, 1) > 0)
                ;
        }
        const pid_t child = fork();
        if (child == 0) {
            usleep(50000);
            while (read(reader, some, sizeof some) > 0)
                ;
            _exit(0);
        }
        if (k != 1)
            must(run_log_write(&log, json_pack("{s:i}", "a", 1), &error), &error);
        must(run_log_close(&log, &error), &error);
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(reader);
        close(filler);
    }
}

/* A file that is standard output, too: both are in it whole and in order, behind what was there. */
static void a_log_may_be_a_stream(void **state) {
    (void)state;
    struct run_log log;
    struct error error;
    make(START STEP(3, 5));
    assert_false(run_log_is_stream("log"));
    fflush(stdout);
    const int kept = dup(STDOUT_FILENO), file = open("log", O_RDWR);
    lseek(file, 0, SEEK_END);
    dup2(file, STDOUT_FILENO);
    const bool is_stream = run_log_is_stream("log") && run_log_is_stream("/dev/stdout");
    printf("text,");
    const bool written = run_log_reopen(&log, "/dev/stdout", RUN, 2, 5, &error) &&
                         run_log_is_whole(&log, 5, &error) &&
                         run_log_write(&log, json_pack("{s:i}", "a", 1), &error);
    printf("more,");
    fflush(stdout);
    set_limit((rlim_t)lseek(file, 0, SEEK_CUR) + 4); /* cut off, the rest follows nevertheless */
    const bool failed = !run_log_write(&log, json_pack("{s:i}", "b", 1), &error);
    set_limit(RLIM_INFINITY);
    const bool closed = run_log_close(&log, &error);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(file);
    assert_true(is_stream && written && failed && closed);
    assert_holds(START STEP(3, 5) "text,{\"a\":1}\nmore,{\"b\":1}\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(writes_a_line_at_once),
        IN_SCRATCH(records_wait_for_room),
        IN_SCRATCH(a_run_that_goes_on_cuts_what_comes_again),
        IN_SCRATCH(a_log_that_is_short_is_noticed),
        IN_SCRATCH(a_log_that_is_gone_begins_anew),
        IN_SCRATCH(a_log_is_known_by_its_first_record),
        IN_SCRATCH(gaps_are_found),
        IN_SCRATCH(lines_may_be_long),
        IN_SCRATCH(a_log_need_not_be_a_file),
        IN_SCRATCH(a_slow_reader_is_waited_for),
        IN_SCRATCH(a_log_may_be_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
