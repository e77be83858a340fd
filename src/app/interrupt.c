#include "app/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS_COUNT = sizeof SIGNALS / sizeof *SIGNALS };

static atomic_int noted;

static void set_all(void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    for (int i = 0; i < SIGNALS_COUNT; i++)
        if (sigaction(SIGNALS[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
}

static void note(int signal) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    noted = signal;
    set_all(SIG_DFL);
    sigaction(SIGPIPE, &ignore, NULL); /* Ctrl-C ends a `tee`, too; the state is to be saved */
}

void interrupt_watch(void) {
    set_all(note);
}

int interrupt_signal(void) {
    return noted;
}
