/* Output for people that names files. */
#pragma once

/* Prints a line, which is given without its line feed; what a terminal would act on becomes '?'. */
void print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As print_line(), on standard error and in the form of main()'s errors. */
void print_warning(const char *program, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
