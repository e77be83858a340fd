#include "base/text.h"

#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

char *text_clean(char *text) {
    for (unsigned char *at = (unsigned char *)text; *at != '\0'; at++)
        if (*at < ' ' || *at == 0x7f)
            *at = '?';
        else if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
            at[0] = at[1] = '?';
    return text;
}

bool text_is_clean(const char *text) {
    json_t *copy = json_string(text); /* there is one of UTF-8 only */
    char *cleaned = strcpy(memory_take(strlen(text) + 1), text);
    const bool is = copy != NULL && strcmp(text_clean(cleaned), text) == 0;
    free(cleaned);
    json_decref(copy);
    return is;
}
