#include "base/text.h"

char *text_clean(char *text) {
    for (unsigned char *at = (unsigned char *)text; *at != '\0'; at++)
        if (*at < ' ' || *at == 0x7f)
            *at = '?';
        else if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
            at[0] = at[1] = '?';
    return text;
}
