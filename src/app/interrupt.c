#include "app/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static const int REQUESTS[] = {SIGINT, SIGTERM, SIGHUP, 0};
static const int ANNOUNCEMENTS[] = {SIGUSR1, SIGUSR2, SIGXCPU, 0};

static atomic_int noted;

static void set_all(const int *signals, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    for (; *signals != 0; signals++)
        if (sigaction(*signals, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(*signals, &action, NULL);
}

static void announced(int signal) {
    int none = 0;
    atomic_compare_exchange_strong(&noted, &none, signal);
}

static void requested(int signal) {
    announced(signal);
    set_all(REQUESTS, SIG_DFL);
}

void interrupt_watch(void) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    set_all(REQUESTS, requested);
    set_all(ANNOUNCEMENTS, announced);
}

int interrupt_signal(void) {
    return noted;
}
