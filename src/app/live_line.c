#include "app/live_line.h"

#include "base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR = 24 }; /* characters */

void live_line_init(struct live_line *line, bool wanted) {
    *line = (struct live_line){.wanted = wanted && isatty(STDOUT_FILENO)};
}

void live_line_draw(struct live_line *line, int epoch, int epochs, int64_t done, int64_t total,
                    double loss, double images_per_second) {
    const double time = clock_seconds();
    if (!line->wanted || time - line->drawn < 0.1)
        return;
    line->drawn = time;
    line->shown = true;
    const int filled = (int)(done * BAR / total);
    const int left = (int)((double)(total - done) / images_per_second + 0.5);
    printf("\rEpoch %d/%d [", epoch, epochs);
    for (int i = 0; i < BAR; i++)
        putchar(i < filled ? '#' : '.');
    printf("] %3d %%  loss %.3f  %.0f images/s  %d:%02d left\033[K", (int)(done * 100 / total),
           loss, images_per_second, left / 60, left % 60);
    fflush(stdout);
}

void live_line_clear(struct live_line *line) {
    if (line->shown)
        printf("\r\033[K");
    line->shown = false;
}
