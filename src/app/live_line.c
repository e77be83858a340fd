#include "app/live_line.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR = 20 }; /* characters */

void live_line_init(struct live_line *line, bool wanted) {
    const char *terminal = getenv("TERM");
    const bool draws = terminal != NULL && terminal[0] != '\0' && strcmp(terminal, "dumb") != 0;
    *line = (struct live_line){.wanted = wanted && draws && isatty(STDOUT_FILENO)};
}

void live_line_draw(struct live_line *line, int epoch, int epochs, int64_t done, int64_t total,
                    double loss, double images_per_second) {
    const double time = clock_seconds();
    if (!line->wanted || time - line->drawn < 0.1)
        return;
    line->drawn = time;
    line->shown = true;
    const int filled = (int)(done * BAR / total);
    const int64_t left = (int64_t)((double)(total - done) / images_per_second + 0.5);
    char bar[BAR + 1], text[128];
    for (int i = 0; i < BAR; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR] = '\0';
    snprintf(text, sizeof text, "Epoch %d/%d [%s] %3d %%  loss %.3f  %.0f images/s  %lld:%02d left",
             epoch, epochs, bar, (int)(done * 100 / total), loss, images_per_second,
             (long long)(left / 60), (int)(left % 60));
    /* a line that is longer than the terminal is wide could not be drawn over */
    struct winsize size = {0};
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    printf("\r%.*s\033[K", known ? size.ws_col - 1 : 79, text);
    fflush(stdout);
}

void live_line_clear(struct live_line *line) {
    if (line->shown)
        printf("\r\033[K");
    line->shown = false;
}
