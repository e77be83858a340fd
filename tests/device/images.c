#include "images.h"

#include <string.h>

static struct shape shape_of(const struct images *images) {
    return (struct shape){images->c, images->h, images->w};
}

static const uint8_t *record_of(const struct images *images, uint32_t image) {
    return images->records + image * (1 + volume(shape_of(images)));
}

struct images images_new(int64_t count, struct shape shape, int classes) {
    const size_t record = 1 + volume(shape);
    uint8_t *records = row_new((size_t)count, record);
    for (size_t i = 0; i < (size_t)count * record; i++)
        records[i] = i % record == 0 ? (uint8_t)(random_draw(&dice) % (uint32_t)classes)
                                     : (uint8_t)(i * 167);
    return (struct images){records, count, classes, shape.c, shape.h, shape.w};
}

/* From -most to most. */
static int8_t random_shift(int most) {
    return (int8_t)((int)(random_draw(&dice) % (uint32_t)(2 * most + 1)) - most);
}

struct view *views_new(const struct images *images, int64_t count, bool moved) {
    struct view *views = row_new((size_t)count, sizeof *views);
    uint32_t *order = row_new((size_t)images->count, sizeof *order);
    for (int64_t i = 0; i < count; i++) {
        if (i % images->count == 0)
            random_permutation(&dice, order, (uint32_t)images->count);
        views[i] = (struct view){.image = order[i % images->count]};
        if (moved) {
            views[i].mirrored = random_draw(&dice) % 2;
            views[i].reflected = random_draw(&dice) % 2;
            views[i].down = random_shift(images->h + (views[i].reflected ? -1 : 1));
            views[i].right = random_shift(images->w + (views[i].reflected ? -1 : 1));
        }
    }
    return views;
}

uint8_t *labels_of(const struct images *images, const struct view *views, int n) {
    uint8_t *labels = row_new((size_t)n, 1);
    for (int i = 0; i < n; i++)
        labels[i] = record_of(images, views[i].image)[0];
    return labels;
}

/* The pixel that is seen at `at` of a line that goes on as in a mirror at its outermost pixels. */
static int reflected(int at, int count) {
    const int last = count - 1;
    return at < 0 ? -at : at > last ? last - (at - last) : at;
}

double *pixels_of(const struct images *images, const struct view *views, int n) {
    const int h = images->h, w = images->w;
    double *x = zeros((size_t)n * volume(shape_of(images))), *next = x;
    for (const struct view *view = views; view < views + n; view++)
        for (int c = 0; c < images->c; c++)
            for (int r = 0; r < h; r++)
                for (int j = 0; j < w; j++) {
                    int row = r - view->down;
                    int column = (view->mirrored ? w - 1 - j : j) - view->right;
                    if (view->reflected) {
                        row = reflected(row, h);
                        column = reflected(column, w);
                    }
                    const bool inside = row >= 0 && row < h && column >= 0 && column < w;
                    const uint8_t pixel =
                        inside ? record_of(images, view->image)[1 + (c * h + row) * w + column] : 0;
                    *next++ = (double)(((float)pixel / 255.0F - 0.5F) / 0.5F);
                }
    return x;
}

struct pass *pass_of(struct device *d, const struct images *images, int64_t count, int64_t steps) {
    return d->ops->pass_new(d, d->ops->dataset_new(d, images), count, steps);
}

void begin_pass(struct device *d, struct pass *pass, const struct view *views, int64_t images,
                const double *schedule, int64_t steps, int64_t steps_before) {
    struct view *lent_views = row_new((size_t)images, sizeof *lent_views);
    double *lent_schedule = zeros((size_t)steps);
    memcpy(lent_views, views, (size_t)images * sizeof *lent_views);
    if (schedule != NULL)
        memcpy(lent_schedule, schedule, (size_t)steps * sizeof *lent_schedule);
    const struct script script = {lent_views, images, schedule == NULL ? NULL : lent_schedule,
                                  steps, steps_before};
    d->ops->pass_begin(d, pass, &script);
    memset(lent_views, 0xff, (size_t)images * sizeof *lent_views); /* the device has its copy */
    memset(lent_schedule, 0xff, (size_t)steps * sizeof *lent_schedule);
}

double *losses(struct device *d, const struct pass *pass, int64_t first, int64_t count) {
    struct error error;
    float *to = floats(NULL, (size_t)count);
    must(d->ops->losses(d, pass, to, first, count, &error), &error);
    return doubles(to, (size_t)count);
}

double *logits(struct device *d, const struct pass *pass, int64_t count, int classes) {
    const size_t numbers = (size_t)count * (size_t)classes;
    struct error error;
    float *to = floats(NULL, numbers);
    must(d->ops->logits(d, pass, to, count, &error), &error);
    return doubles(to, numbers);
}
