/* A test IN_SCRATCH() runs in a new folder of its own under /tmp, which is removed afterwards. */
#pragma once

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

static inline void make_folder(const char *path) {
    assert_int_equal(mkdir(path, 0777), 0);
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
