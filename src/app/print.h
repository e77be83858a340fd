/* What the commands print: lines for people, and JSON. */
#pragma once

#include <jansson.h>

/* Prints a line, which is given without its line feed; what a terminal would act on becomes '?'. */
void print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As that, on standard error and in the form of main()'s errors. */
void print_warning(const char *program, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* How many columns a text takes on a terminal, where a character may be several bytes and take two.
 */
int print_width(const char *text);

/* As printf("%*.*s", width, most, text), but in columns. */
void print_column(const char *text, int width, int most);

/* Prints a share of 100 % as a bar of up to PRINT_BAR characters, blank to its end. */
enum { PRINT_BAR = 25 };
void print_bar(double per_cent);

/* How numbers are written: 9 significant digits, enough for every float to be read back exactly. */
#define JSON_DIGITS JSON_REAL_PRECISION(9)

/* A number; null where it is not finite, which JSON cannot say. */
json_t *json_number(double value);

/* A number with `digits` decimals; null where it is not finite. */
json_t *json_rounded(double value, int digits);

/* Text that may hold anything, such as a file's name: bytes that are no UTF-8 become '?'. */
json_t *json_text(const char *text);

/* Prints an object on standard output, for people and programs to read, and lets go of it. */
void json_print(json_t *object);
