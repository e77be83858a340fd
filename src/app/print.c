#include "app/print.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

#include <langinfo.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static void print(FILE *to, const char *before, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));
static void print(FILE *to, const char *before, const char *format, va_list arguments) {
    char line[8192]; /* the longest path has room in it */
    vsnprintf(line, sizeof line, format, arguments);
    fprintf(to, "%s%s\n", before, text_clean(line));
}

void print_line(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print(stdout, "", format, arguments);
    va_end(arguments);
}

void print_warning(const char *program, const char *format, ...) {
    char before[64];
    va_list arguments;
    snprintf(before, sizeof before, "%s: warning: ", program);
    va_start(arguments, format);
    print(stderr, before, format, arguments);
    va_end(arguments);
}

/* The columns of a text in UTF-8, or of as much of it as takes no more than `most`: `length` bytes.
 * (mbrtowc() takes memory, and knows no UTF-8 where the locale does not.) */
static int measure(const char *text, int most, int *length) {
    int columns = 0;
    for (*length = 0; text[*length] != '\0';) {
        const unsigned char *at = (const unsigned char *)text + *length;
        wchar_t character = at[0] < 0xc0 ? at[0] : at[0] & (at[0] < 0xe0 ? 0x1f : 0x0f);
        int bytes = 1;
        for (; at[0] >= 0xc0 && (at[bytes] & 0xc0) == 0x80; bytes++)
            character = character << 6 | (at[bytes] & 0x3f);
        int width = wcwidth(character);
        if (width < 0) /* the locale does not know it */
            width = 1;
        if (columns + width > most)
            break;
        columns += width;
        *length += bytes;
    }
    return columns;
}

int print_width(const char *text) {
    int unused;
    return measure(text, INT_MAX, &unused);
}

void print_column(const char *text, int width, int most) {
    int length;
    const int columns = measure(text, most, &length), blank = abs(width) - columns;
    printf("%*s%.*s%*s", width > 0 && blank > 0 ? blank : 0, "", length, text,
           width < 0 && blank > 0 ? blank : 0, "");
}

void print_bar(double per_cent) {
    const char *full = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? "█" : "#";
    const int filled = isnan(per_cent) ? 0 : (int)lround(per_cent * PRINT_BAR / 100);
    printf("  ");
    for (int i = 0; i < PRINT_BAR; i++)
        printf("%s", i < filled ? full : " ");
}

json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_rounded(double value, int digits) {
    const double unit = pow(10, digits);
    return json_number(round(value * unit) / unit);
}

json_t *json_text(const char *text) {
    json_t *string = json_string(text);
    if (string != NULL)
        return string;
    char *ascii = strcpy(memory_take(strlen(text) + 1), text);
    for (char *at = ascii; *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    string = json_string(ascii);
    free(ascii);
    return string;
}

void json_print(json_t *object) {
    require(object != NULL);
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_DIGITS);
    printf("\n");
    json_decref(object);
}
