/* The live line on a terminal that this test makes, and into a file. */
#include "app/live_line.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

static int terminal, kept; /* the terminal's other end; standard output as it was */

/* Makes `descriptor` the standard output. */
static void redirect(int descriptor) {
    assert_true(descriptor >= 0);
    fflush(stdout);
    kept = dup(STDOUT_FILENO);
    dup2(descriptor, STDOUT_FILENO);
    close(descriptor);
}

static void restore(void) {
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
}

static void open_terminal(int columns) {
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) {
        print_message("SKIPPED: no terminal can be made here\n");
        skip();
    }
    redirect(open(ptsname(terminal), O_RDWR | O_NOCTTY));
    const struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    assert_int_equal(ioctl(STDOUT_FILENO, TIOCSWINSZ, &size), 0);
}

/* What has arrived at the terminal must be `expected`. */
static void assert_shown(const char *expected) {
    char text[512] = "";
    size_t size = 0;
    while (size < strlen(expected)) {
        const ssize_t got = read(terminal, text + size, sizeof text - 1 - size);
        assert_true(got > 0);
        size += (size_t)got;
    }
    assert_string_equal(text, expected);
}

static void tells_progress_and_time(void **unused) {
    (void)unused;
    struct live_line line;
    open_terminal(100);
    alarm(30); /* reading a line that never comes */
    live_line_init(&line, true);
    live_line_draw(&line, 2, 5, 2500, 10000, 1.2345, 50);
    live_line_draw(&line, 2, 5, 2600, 10000, 1.2, 50); /* too soon to be drawn */
    assert_shown(
        "\rEpoch 2/5 [#####...............]  25 %  loss 1.234  50 images/s  2:30 left\033[K");
    live_line_clear(&line);
    live_line_clear(&line); /* nothing is there to be cleared */
    printf("next");
    fflush(stdout);
    assert_shown("\r\033[Knext");
    alarm(0);
    restore();
    close(terminal);
}

static void is_cut_to_the_terminals_width(void **unused) {
    (void)unused;
    struct live_line line;
    open_terminal(20);
    alarm(30);
    live_line_init(&line, true);
    live_line_draw(&line, 2, 5, 2500, 10000, 1.2345, 50);
    printf("|");
    fflush(stdout);
    assert_shown("\rEpoch 2/5 [#####...\033[K|");
    alarm(0);
    restore();
    close(terminal);
}

/* Nothing is drawn where nobody wants it, nor where it would not be seen or understood. */
static void is_not_drawn(void **unused) {
    (void)unused;
    struct live_line line;
    open_terminal(100);
    static const char *const TERMINALS[] = {"xterm", "dumb", "", NULL};
    for (int i = 0; i < 4; i++) {
        if (TERMINALS[i] == NULL)
            unsetenv("TERM");
        else
            setenv("TERM", TERMINALS[i], 1);
        live_line_init(&line, i > 0);
        live_line_draw(&line, 2, 5, 2500, 10000, 1.2345, 50);
        live_line_clear(&line);
    }
    setenv("TERM", "xterm", 1);
    printf("|");
    fflush(stdout);
    alarm(30);
    assert_shown("|");
    alarm(0);
    restore();
    close(terminal);

    FILE *file = tmpfile();
    assert_non_null(file);
    redirect(dup(fileno(file)));
    live_line_init(&line, true);
    live_line_draw(&line, 2, 5, 2500, 10000, 1.2345, 50);
    live_line_clear(&line);
    restore();
    assert_int_equal(lseek(fileno(file), 0, SEEK_END), 0);
    fclose(file);
}

int main(void) {
    setenv("TERM", "xterm", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_progress_and_time),
        cmocka_unit_test(is_cut_to_the_terminals_width),
        cmocka_unit_test(is_not_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
