/* A test IN_SCRATCH() runs in a new folder of its own under /tmp, which is removed afterwards. And
 * what such tests have in common: files, and what must be said of them. */
#pragma once

#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define IN_SCRATCH(name) cmocka_unit_test_setup_teardown(name, enter_scratch, leave_scratch)

static char scratch[64]; /* the folder */

static inline int enter_scratch(void **state) {
    (void)state;
    strcpy(scratch, "/tmp/cifar_test.XXXXXX");
    alarm(60); /* for each test: one that waits for ever ends the program */
    return mkdtemp(scratch) == NULL || chdir(scratch) != 0;
}

static inline int leave_scratch(void **state) {
    char command[256];
    (void)state;
    snprintf(command, sizeof command, "chmod -R u+rwx %s && rm -r %s", scratch, scratch);
    return chdir("/") != 0 || system(command) != 0;
}

/* ---- files ---- */

static inline void make_folder(const char *path) {
    assert_int_equal(mkdir(path, 0777), 0);
}

static inline void make_pipe(const char *path) {
    assert_int_equal(mkfifo(path, 0666), 0);
}

static inline void make_link(const char *target, const char *path) {
    assert_int_equal(symlink(target, path), 0);
}

static inline void make_file(const char *path, const void *bytes, size_t size) {
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

static inline void make_text(const char *path, const char *text) {
    make_file(path, text, strlen(text));
}

/* Writes over what is there. */
static inline void poke_file(const char *path, size_t at, const void *bytes, size_t size) {
    FILE *stream = fopen(path, "r+");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

/* Makes a file shorter, or longer by zeros. */
static inline void cut_file(const char *path, off_t size) {
    assert_int_equal(truncate(path, size), 0);
}

/* The bytes of a file, as far as there is room. Answers how many. */
static inline size_t read_file(const char *path, void *bytes, size_t room) {
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    const size_t size = fread(bytes, 1, room, stream);
    assert_int_equal(fclose(stream), 0);
    return size;
}

/* ---- errors ---- */

/* It has this status, and a text that begins with the first of these parts and holds all. */
#define assert_says(error, status, ...)                                                            \
    assert_says_all(error, status, (const char *const[]){__VA_ARGS__, NULL})

static inline void assert_says_all(const struct error *error, enum status status,
                                   const char *const *parts) {
    assert_int_equal(error->status, status);
    if (strncmp(error->text, parts[0], strlen(parts[0])) != 0)
        fail_msg("'%s' is not the beginning of: %s", parts[0], error->text);
    for (; *parts != NULL; parts++)
        if (strstr(error->text, *parts) == NULL)
            fail_msg("'%s' is not in: %s", *parts, error->text);
}

static inline void assert_good(bool good, const struct error *error) {
    if (!good)
        fail_msg("%s", error->text);
}

/* ---- tests of permissions, which stop everyone but root ---- */

/* Goes on as "nobody" where the tests were started as root. */
static inline void leave_root(void) {
    enum { NOBODY = 65534 };
    if (geteuid() == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0)
        prctl(PR_SET_DUMPABLE, 1); /* which the leak checker needs */
}

static inline void need_no_root(void) {
    if (geteuid() == 0) {
        print_message("SKIPPED: root may do anything, and cannot become nobody here\n");
        skip();
    }
}
