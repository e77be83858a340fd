#include "app/json_output.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
