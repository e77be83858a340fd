/* The data and the script of a pass over them: which images a step sees and how, and the results,
 * losses and logits. */
#include "images.h"
#include "reference.h"

#include <math.h>
#include <stdio.h>

/* The next n images of the pass are these views. */
static void check_load(struct device *d, struct pass *pass, const struct images *images,
                       const struct view *views, int n, int capacity) {
    const struct shape shape = {images->c, images->h, images->w};
    struct tensor *x = tensor_of(d, NULL, capacity, capacity, shape);
    run_ops(d, &(struct op){OP_LOAD, .images = x}, 1, false, pass, n);
    check("load", "x", tensor_values(d, x, n, shape), pixels_of(images, views, n),
          (size_t)n * volume(shape), 0);
}

/* Two data sets, and two passes over one, in turns. */
static void steps_read_in_order(void **state) {
    struct device *d = *state;
    const struct images images = images_new(23, (struct shape){3, 5, 4}, 10);
    const struct images others = images_new(9, (struct shape){1, 2, 3}, 10);
    struct dataset *data = d->ops->dataset_new(d, &images);
    struct pass *pass = d->ops->pass_new(d, data, 23, 5);
    struct pass *longer = d->ops->pass_new(d, data, 40, 9);
    struct pass *other = pass_of(d, &others, 9, 9);
    const struct view *views = views_new(&images, 23, false),
                      *again = views_new(&images, 23, false);
    const struct view *twice = views_new(&images, 40, false), *few = views_new(&others, 9, false);

    begin_pass(d, pass, views, 23, NULL, 5, 0);
    begin_pass(d, other, few, 9, NULL, 9, 0);
    begin_pass(d, longer, twice, 40, NULL, 9, 0);
    for (int i = 0; i < 23; i += 5) { /* the last batch is smaller */
        check_load(d, pass, &images, views + i, i + 5 <= 23 ? 5 : 3, 5);
        check_load(d, other, &others, few + i / 5, 1, 4);
        check_load(d, longer, &images, twice + i / 5 * 7, 7, 7);
    }
    begin_pass(d, pass, again, 7, NULL, 2, 0); /* a part of the data set, not read to its end */
    check_load(d, pass, &images, again, 5, 5);
    begin_pass(d, pass, views, 7, NULL, 2, 0);
    check_load(d, pass, &images, views, 6, 6);
    check_load(d, pass, &images, views + 6, 1, 1);
    begin_pass(d, pass, again, 23, NULL, 1, 0);
    check_load(d, pass, &images, again, 23, 23);
    check_load(d, other, &others, few + 5, 4, 4); /* goes on from where it was */
    check_load(d, longer, &images, twice + 35, 5, 7);
}

/* What is queued reads the script that it was queued with, though nobody waits in between. */
static void scripts_follow_each_other(void **state) {
    struct device *d = *state;
    enum { PASSES = 3, N = 4, ALL = 9 };
    const struct shape shape = {1, 2, 3};
    const struct images images = images_new(ALL, shape, 10);
    struct pass *pass = pass_of(d, &images, ALL, 1);
    struct tensor *x[PASSES];
    const struct view *views[PASSES];
    for (int i = 0; i < PASSES; i++) {
        views[i] = views_new(&images, ALL, true);
        x[i] = tensor_of(d, NULL, N, N, shape);
    }
    for (int i = 0; i < PASSES; i++) {
        begin_pass(d, pass, views[i], ALL, NULL, 1, 0);
        run_ops(d, &(struct op){OP_LOAD, .images = x[i]}, 1, false, pass, N);
    }
    for (int i = 0; i < PASSES; i++)
        check("scripts", "x", tensor_values(d, x[i], N, shape), pixels_of(&images, views[i], N),
              N * volume(shape), 0);
}

/* Views of these distances down and right, not mirrored, then mirrored. */
static struct view *moved_views(const struct images *images, const int8_t *shifts, size_t count,
                                bool reflected) {
    struct view *views = views_new(images, images->count, false);
    for (size_t i = 0; i < 2 * count * count; i++) {
        views[i].mirrored = i % 2;
        views[i].reflected = reflected;
        views[i].right = shifts[i / 2 % count];
        views[i].down = shifts[i / 2 / count];
    }
    return views;
}

/* Moved by every distance that can be said, nearly all of them out of sight. */
static void images_are_moved_and_mirrored(void **state) {
    struct device *d = *state;
    static const int8_t shifts[] = {-128, -33, -6, -5, -4, -1, 0, 1, 2, 4, 5, 6, 31, 127};
    enum { VIEWS = 2 * COUNT(shifts) * COUNT(shifts) };
    const struct images images = images_new(VIEWS, (struct shape){2, 5, 4}, 10);
    const struct view *views = moved_views(&images, shifts, COUNT(shifts), false);
    struct pass *pass = pass_of(d, &images, VIEWS, 1);
    begin_pass(d, pass, views, VIEWS, NULL, 1, 0);
    check_load(d, pass, &images, views, VIEWS, VIEWS);

    /* by hand: one down and one to the right, then mirrored */
    const uint8_t record[] = {0, 51, 102, 153, 204, 255, 0};
    const struct images one = {record, 1, 1, 1, 2, 3};
    const double want[] = {-1, -1, -1, -0.2, -0.6, -1};
    const struct view view = {.image = 0, .down = 1, .right = 1, .mirrored = 1};
    check("by hand", "x", pixels_of(&one, &view, 1), want, 6, 1e-6);
    pass = pass_of(d, &one, 1, 1);
    begin_pass(d, pass, &view, 1, NULL, 1, 0);
    check_load(d, pass, &one, &view, 1, 1);
}

/* Moved by less than a side, up to all but one pixel of it. */
static void borders_are_reflected(void **state) {
    struct device *d = *state;
    static const int8_t shifts[] = {-4, -3, -2, -1, 0, 1, 2, 3, 4};
    enum { VIEWS = 2 * COUNT(shifts) * COUNT(shifts) };
    const struct images images = images_new(VIEWS, (struct shape){2, 5, 5}, 10);
    const struct view *views = moved_views(&images, shifts, COUNT(shifts), true);
    struct pass *pass = pass_of(d, &images, VIEWS, 1);
    begin_pass(d, pass, views, VIEWS, NULL, 1, 0);
    check_load(d, pass, &images, views, VIEWS, VIEWS);

    /* by hand: 0.2 -0.6 -1 / 1 0.6 0.2 one up and two to the right, and mirrored then; and the only
     * pixel of a side, which is not moved at all */
    const uint8_t record[] = {0, 153, 51, 0, 255, 204, 153}, column[] = {0, 0, 51};
    const struct images one = {record, 1, 1, 1, 2, 3}, thin = {column, 1, 1, 1, 2, 1};
    const double want[] = {1, 0.6, 0.2, 0.2, -0.6, -1}, thin_want[] = {-0.6, -1};
    const struct view view = {.image = 0, .down = -1, .right = 2, .mirrored = 1, .reflected = 1};
    const struct view thin_view = {.image = 0, .down = 1, .mirrored = 1, .reflected = 1};
    check("by hand", "x", pixels_of(&one, &view, 1), want, 6, 1e-6);
    check("by hand", "thin x", pixels_of(&thin, &thin_view, 1), thin_want, 2, 1e-6);
    pass = pass_of(d, &one, 1, 1);
    begin_pass(d, pass, &view, 1, NULL, 1, 0);
    check_load(d, pass, &one, &view, 1, 1);
    pass = pass_of(d, &thin, 1, 1);
    begin_pass(d, pass, &thin_view, 1, NULL, 1, 0);
    check_load(d, pass, &thin, &thin_view, 1, 1);
}

/* A pass over `images` images in batches of `batch`, with logits low, low + spacing, ... (values of
 * them): few, so that several are the largest. */
static const struct loss_case {
    int classes, images, batch;
    double low, spacing;
    uint32_t values;
    bool training;
    double label_smoothing;
} LOSSES[] = {
    {10, 1, 1, -3, 1.0 / 1024, 6144, true, 0},
    {10, 43, 10, -3, 1.0 / 1024, 6144, true, 0},
    {10, 66, 33, -3, 1.0 / 1024, 6144, true, 0},
    {10, 43, 10, -3, 1.0 / 1024, 6144, false, 0},
    {10, 43, 10, -1, 1, 3, true, 0},
    {10, 43, 10, 5, 1, 1, true, 0},
    {10, 43, 10, -1e4, 1e4, 3, true, 0},
    {10, 43, 10, -1e4, 1e4, 3, false, 0},
    {10, 43, 10, 1e4, 0.5, 8, true, 0},
    {2, 9, 4, -1, 0.125, 16, true, 0},
    {1, 3, 2, -1, 0.125, 16, true, 0},
    {37, 20, 7, -3, 0.125, 48, true, 0},
    {3, 300, 300, -3, 0.125, 48, true, 0},
    {10, 43, 10, -3, 1.0 / 1024, 6144, true, 0.1},
    {10, 43, 10, -3, 1.0 / 1024, 6144, false, 0.1},
    {10, 43, 10, -1e4, 1e4, 3, true, 0.2},
    {2, 9, 4, -1, 0.125, 16, true, 0.5},
    {37, 20, 7, -3, 0.125, 48, true, 1},
    {3, 300, 300, -3, 0.125, 48, true, 1e-3},
};

/* A head whose weight is the identity: its x are its logits, exactly. */
static struct head head_of(struct device *d, int classes, int batch, int spare,
                           double label_smoothing) {
    const struct shape row = {classes, 1, 1};
    const size_t count = (size_t)classes;
    double *identity = zeros(count * count);
    for (size_t i = 0; i < count; i++)
        identity[i * count + i] = 1;
    return (struct head){.in = classes,
                         .out = classes,
                         .label_smoothing = label_smoothing,
                         .weight = slice_of(d, identity, count * count),
                         .bias = slice_of(d, zeros(count), count),
                         .x = tensor_of(d, NULL, batch, batch + spare, row),
                         .y = tensor_of(d, NULL, batch, batch + spare, row),
                         .dy = tensor_of(d, NULL, batch, batch + spare, row)};
}

static void cross_entropy_is_the_reference(void **state) {
    struct device *d = *state;
    for (size_t i = 0; i < COUNT(LOSSES); i++) {
        const struct loss_case *t = &LOSSES[i];
        const struct shape row = {t->classes, 1, 1}, pixels = {1, 1, 2};
        const int spare = i % 2 == 0 ? 0 : 3, steps = (t->images + t->batch - 1) / t->batch;
        const struct images images = images_new(t->images + 5, pixels, t->classes);
        struct pass *pass = pass_of(d, &images, t->images, steps);
        const struct head head = head_of(d, t->classes, t->batch, spare, t->label_smoothing);
        const struct op ops[] = {
            {OP_LOAD, .images = tensor_of(d, NULL, t->batch, t->batch + spare, pixels)},
            {OP_HEAD, .head = &head}};
        double *loss = zeros((size_t)steps);
        char label[200];
        snprintf(label, sizeof label,
                 "cross entropy, %d classes, %d of %d images, from %g by %g, smoothed by %g",
                 t->classes, t->batch, t->images, t->low, t->spacing, t->label_smoothing);
        for (int again = 0; again < 2; again++) { /* the second pass forgets the first */
            const struct view *views = views_new(&images, t->images, false);
            const double *all =
                grid((size_t)(t->images * t->classes), t->low, t->spacing, t->values);
            begin_pass(d, pass, views, t->images, NULL, steps, 0);
            for (int step = 0; step < steps; step++) {
                const int first = step * t->batch;
                const int n = first + t->batch <= t->images ? t->batch : t->images - first;
                const size_t count = (size_t)(n * t->classes);
                const double *z = all + first * t->classes;
                double *dlogits = zeros(count);
                loss[step] =
                    reference_cross_entropy(dlogits, z, labels_of(&images, views + first, n),
                                            t->classes, t->training ? t->label_smoothing : 0, n);
                d->ops->tensor_upload(d, head.x, floats(z, count), n);
                run_ops(d, ops, 2, t->training, pass, n);
                check(label, "y", tensor_values(d, head.y, n, row), z, count, 0);
                if (t->training)
                    check(label, "dy", tensor_values(d, head.dy, n, row), dlogits, count, 1e-6);
                check(label, "loss so far", losses(d, pass, step, 1), loss + step, 1, 1e-6);
                for (int read = 1; read <= first + n; read += t->batch)
                    check(label, "logits so far", logits(d, pass, read, t->classes), all,
                          (size_t)(read * t->classes), 0);
            }
            check(label, "logits", logits(d, pass, t->images, t->classes), all,
                  (size_t)(t->images * t->classes), 0);
            for (int first = 0; first < steps; first++)
                for (int step = first; step < steps; step++)
                    check(label, "loss", losses(d, pass, first, steps - first) + step - first,
                          loss + step, 1, 1e-6);
        }
    }
}

/* The trainer tells from the loss that training has diverged. */
static void the_loss_of_nan_is_nan(void **state) {
    struct device *d = *state;
    enum { N = 3, CLASSES = 10 };
    const struct images images = images_new(N, (struct shape){1, 1, 1}, CLASSES);
    struct pass *pass = pass_of(d, &images, N, 1);
    const struct head head = head_of(d, CLASSES, N, 0, 0);
    const struct op ops[] = {{OP_LOAD, .images = d->ops->tensor_new(d, N, 1, 1, 1)},
                             {OP_HEAD, .head = &head}};
    for (int at = 0; at < N * CLASSES; at++) {
        double *z = uniform(N * CLASSES, -1, 1);
        z[at] = NAN;
        begin_pass(d, pass, views_new(&images, N, false), N, NULL, 1, 0);
        d->ops->tensor_upload(d, head.x, floats(z, N * CLASSES), N);
        run_ops(d, ops, 2, false, pass, N);
        assert_true(isnan(losses(d, pass, 0, 1)[0]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(steps_read_in_order),
        TEST(scripts_follow_each_other),
        TEST(images_are_moved_and_mirrored),
        TEST(borders_are_reflected),
        TEST(cross_entropy_is_the_reference),
        TEST(the_loss_of_nan_is_nan),
    };
    return test_backends(tests, COUNT(tests));
}
