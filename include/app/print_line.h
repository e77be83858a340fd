/* Output for people that names files. */
#pragma once

/* printf() of one line, without its line feed, and with what a terminal would act on made '?'. */
void print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
