#include "images.h"

#include <string.h>

struct images images_new(int64_t count, struct shape shape, int classes) {
    const size_t record = 1 + volume(shape);
    struct images images = {row_new((size_t)count, record), count, shape};
    for (size_t i = 0; i < (size_t)count * record; i++)
        images.records[i] = i % record == 0 ? (uint8_t)(random_draw(&dice) % (uint32_t)classes)
                                            : (uint8_t)(i * 167);
    return images;
}

const uint8_t *record_of(const struct images *images, uint32_t index) {
    return images->records + index * (1 + volume(images->shape));
}

uint32_t *shuffled(int64_t count) {
    uint32_t *order = row_new((size_t)count, sizeof *order);
    random_permutation(&dice, order, (uint32_t)count);
    return order;
}

struct loader *loader_of(struct device *d, const struct images *images) {
    return d->ops->loader_new(d, images->records, images->count, images->shape.c, images->shape.h,
                              images->shape.w);
}

void rewind_to(struct device *d, struct loader *loader, const uint32_t *order, int64_t length) {
    uint32_t *lent = row_new((size_t)length, sizeof *lent);
    memcpy(lent, order, (size_t)length * sizeof *lent);
    d->ops->loader_rewind(d, loader, lent, length);
    memset(lent, 0xff, (size_t)length * sizeof *lent); /* the device must have copied it */
}

double *pixels_of(const struct images *images, const uint32_t *order, int n) {
    const size_t size = volume(images->shape);
    double *x = zeros((size_t)n * size);
    for (size_t i = 0; i < (size_t)n * size; i++) {
        const uint8_t pixel = record_of(images, order[i / size])[1 + i % size];
        x[i] = (double)(((float)pixel / 255.0F - 0.5F) / 0.5F);
    }
    return x;
}

double *losses(struct device *d, const struct loader *loader, int64_t first, int64_t count) {
    struct error error;
    float *to = floats(NULL, (size_t)count);
    if (!d->ops->losses(d, loader, to, first, count, &error))
        fail_msg("%s", error.text);
    return doubles(to, (size_t)count);
}

void check_predictions(struct device *d, const struct loader *loader, const char *label,
                       const uint8_t *want, int64_t count) {
    struct error error;
    uint8_t *got = row_new((size_t)count, 1);
    memset(got, 0xff, (size_t)count);
    if (!d->ops->predictions(d, loader, got, count, &error))
        fail_msg("%s", error.text);
    for (int64_t i = 0; i < count; i++)
        if (got[i] != want[i])
            fail_msg("%s: image %d is predicted as %d, not %d", label, (int)i, got[i], want[i]);
}
