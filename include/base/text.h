/* Text that a terminal shows. */
#pragma once

/* What a user, a file or a name holds must not give orders to a terminal: control characters, in
 * UTF-8 also U+0080 .. U+009F, become '?'. Answers `text`. */
char *text_clean(char *text);
