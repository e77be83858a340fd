#include "base/memory.h"
#include "data/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The formulas are those of Pillow's Image.resize(BILINEAR), src/libImaging/Resample.c: a triangle,
 * two pixels wide where the picture grows and two of the new ones where it shrinks, its weights
 * rounded to 22 bits behind the point; first across, rounded to bytes, then down. From version 13
 * on, Pillow goes down first where that is faster, which can differ by 1. */
enum { SIDE = CIFAR10_SIDE, POINT = 22, CHANNELS = CIFAR10_CHANNELS };

/* One axis: how many pixels there are, how many it would be resized to, and which of those is the
 * first of the 32 that are wanted. */
struct axis {
    int size;
    int64_t resized, first;
};

/* What one resized pixel is made of: `count` pixels from `first` on. */
struct window {
    double center, scale, sum;
    int first, count;
};

static double triangle(const struct window *w, int i) {
    const double x = fabs((i + w->first - w->center + 0.5) * w->scale);
    return x < 1 ? 1 - x : 0;
}

static struct window window_of(const struct axis *axis, int i) {
    const double step = (double)axis->size / (double)axis->resized, support = fmax(step, 1);
    struct window w = {.center = ((double)(axis->first + i) + 0.5) * step, .scale = 1 / support};
    const int end = (int)(w.center + support + 0.5);
    w.first = (int)fmax(w.center - support + 0.5, 0);
    w.count = (end < axis->size ? end : axis->size) - w.first;
    for (int j = 0; j < w.count; j++)
        w.sum += triangle(&w, j);
    return w;
}

static int weight(const struct window *w, int i) {
    return (int)(0.5 + triangle(w, i) / w->sum * (1 << POINT));
}

/* Rounding the weights of many pixels up can lead beyond 255. */
static uint8_t to_byte(int sum) {
    const int value = (sum + (1 << (POINT - 1))) >> POINT;
    return (uint8_t)(value < 255 ? value : 255);
}

/* Python's round((resized - 32) / 2): of two whole numbers alike near, the even one. */
static int64_t middle(int64_t resized) {
    const int64_t twice = resized - SIDE;
    return twice % 4 == 3 ? twice / 2 + 1 : twice / 2;
}

static void set_axes(struct axis axes[2], const struct picture *p, enum picture_crop crop) {
    const int size[2] = {p->width, p->height}, shorter = size[0] < size[1] ? size[0] : size[1];
    for (int i = 0; i < 2; i++) {
        const int64_t resized = crop == PICTURE_SQUASH ? SIDE : (int64_t)SIDE * size[i] / shorter;
        axes[i] = (struct axis){size[i], resized, middle(resized)};
    }
}

/* Resizes `count` rows across, to [count][32][3]. */
static void resize_rows(uint8_t *to, const uint8_t *from, int count, const struct axis *across,
                        int *weights) {
    const size_t stride = (size_t)across->size * CHANNELS;
    for (int x = 0; x < SIDE; x++) {
        const struct window w = window_of(across, x);
        for (int i = 0; i < w.count; i++)
            weights[i] = weight(&w, i);
        for (int y = 0; y < count; y++) {
            const uint8_t *pixel = from + (size_t)y * stride + (size_t)w.first * CHANNELS;
            int sum[CHANNELS] = {0};
            for (int i = 0; i < w.count; i++, pixel += CHANNELS)
                for (int c = 0; c < CHANNELS; c++)
                    sum[c] += pixel[c] * weights[i];
            for (int c = 0; c < CHANNELS; c++)
                to[(y * SIDE + x) * CHANNELS + c] = to_byte(sum[c]);
        }
    }
}

void picture_fit(const struct picture *picture, enum picture_crop crop,
                 uint8_t pixels[CIFAR10_PIXELS]) {
    enum { ROW = SIDE * CHANNELS, STRIPE = 1024 }; /* so many rows at once: they may be millions */
    struct axis axes[2];
    struct window down[SIDE];
    int sums[SIDE][ROW] = {{0}};
    if (picture->width == SIDE && picture->height == SIDE) { /* those of CIFAR-10, which are many */
        for (int i = 0; i < CIFAR10_PIXELS; i++)
            pixels[i] = picture->pixels[i % (SIDE * SIDE) * CHANNELS + i / (SIDE * SIDE)];
        return;
    }
    set_axes(axes, picture, crop);
    for (int y = 0; y < SIDE; y++)
        down[y] = window_of(&axes[1], y);
    const int end = down[SIDE - 1].first + down[SIDE - 1].count;
    const size_t widest = (size_t)(2 * ((double)axes[0].size / (double)axes[0].resized + 1)) + 2;
    int *weights = memory_take(widest * sizeof *weights);
    uint8_t *rows = memory_take(STRIPE * ROW);
    for (int first = down[0].first; first < end; first += STRIPE) {
        const int count = end - first < STRIPE ? end - first : STRIPE;
        resize_rows(rows, picture->pixels + (size_t)first * CHANNELS * (size_t)picture->width,
                    count, &axes[0], weights);
        for (int y = 0; y < SIDE; y++) {
            const int begin = down[y].first - first, stop = begin + down[y].count;
            for (int i = begin > 0 ? begin : 0; i < stop && i < count; i++) {
                const int part = weight(&down[y], i - begin);
                for (int k = 0; k < ROW; k++)
                    sums[y][k] += rows[i * ROW + k] * part;
            }
        }
    }
    for (int i = 0; i < CIFAR10_PIXELS; i++)
        pixels[i] = to_byte(sums[i / SIDE % SIDE][i % SIDE * CHANNELS + i / (SIDE * SIDE)]);
    free(weights);
    free(rows);
}
