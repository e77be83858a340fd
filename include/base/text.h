/* Text that a terminal shows. */
#pragma once

#include <stdbool.h>

/* What a user, a file or a name holds must not give orders to a terminal: control characters, in
 * UTF-8 also U+0080 .. U+009F, become '?'. Answers `text`. */
char *text_clean(char *text);

/* Whether it is UTF-8 and holds nothing of that kind. */
bool text_is_clean(const char *text);
