/* Ctrl-C and its like, taken as a wish to stop. */
#pragma once

/* From now on a signal that asks for an end is only noted. After a SIGINT, SIGTERM or SIGHUP the
 * next of these three ends the program as ever. SIGUSR1, SIGUSR2 and SIGXCPU announce that it will
 * be ended soon, as batch systems and limits of processor time do, and may come again and again.
 * SIGPIPE is ignored: a run goes on without its reader. A signal that the program was started to
 * ignore (nohup) stays ignored. */
void interrupt_watch(void);

/* The first signal that was noted, or 0. */
int interrupt_signal(void);
