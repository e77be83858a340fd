/* The one line that shows a training run's progress on a terminal, drawn over itself. Where
 * standard output is no terminal, or one that knows no escape sequences (TERM is dumb or unset), it
 * is never drawn, and no control character is written. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct live_line {
    bool wanted, shown;
    double drawn; /* when it was drawn last, in seconds */
};

void live_line_init(struct live_line *line, bool wanted);

/* Draws the line, at most ten times a second: `done` of `total` images of the whole run. */
void live_line_draw(struct live_line *line, int epoch, int epochs, int64_t done, int64_t total,
                    double loss, double images_per_second);

/* Takes it away, so that something else can be printed. */
void live_line_clear(struct live_line *line);
