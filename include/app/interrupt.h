/* Ctrl-C and its like, taken as a wish to stop. */
#pragma once

/* From now on the first SIGINT, SIGTERM or SIGHUP is only noted; the next one ends the program as
 * ever. SIGPIPE is ignored from the first on: what reads the output may have been ended, too, and
 * the state is to be saved. A signal that the program was started to ignore (nohup) stays ignored.
 */
void interrupt_watch(void);

/* The signal that was noted, or 0. */
int interrupt_signal(void);
