/* Tensors and blocks: what they hold at first, copying to and from the host, how much memory the
 * device takes, and that it gives it back. */
#include "model.h"

#include <string.h>

static void new_memory_is_zeroed_and_counted(void **state) {
    struct device *d = *state;
    const struct shape shape = {3, 5, 7};
    for (int again = 0; again < 2; again++) { /* the second time in what was given back */
        const size_t before = d->ops->memory(d);
        void *mark = d->ops->mark(d);
        struct tensor *tensor = d->ops->tensor_new(d, 100, shape.c, shape.h, shape.w);
        const size_t between = d->ops->memory(d);
        assert_true(between >= before + 100 * volume(shape) * sizeof(float));
        struct block *block = d->ops->block_new(d, 1001);
        assert_true(d->ops->memory(d) >= between + 1001 * sizeof(float));

        const double *nothing = zeros(100 * volume(shape));
        check("tensor", "new", tensor_values(d, tensor, 100, shape), nothing, 100 * volume(shape),
              0);
        check("block", "new", download(d, (struct slice){block, 0}, 1001), nothing, 1001, 0);
        d->ops->tensor_upload(d, tensor, floats(NULL, 100 * volume(shape)), 100);
        d->ops->upload(d, (struct slice){block, 0}, floats(NULL, 1001), 1001);
        d->ops->release(d, mark);
        assert_int_equal(d->ops->memory(d), before);
    }
}

static void parts_are_uploaded_and_downloaded(void **state) {
    struct device *d = *state;
    enum { COUNT_ALL = 50, OFFSET = 7, PART = 11 };
    double *all = uniform(COUNT_ALL, -1, 1), *part = uniform(PART, -1, 1);
    struct block *block = block_of(d, all, COUNT_ALL);
    d->ops->upload(d, (struct slice){block, OFFSET}, floats(part, PART), PART);
    memcpy(all + OFFSET, part, PART * sizeof *part);
    check("block", "all", download(d, (struct slice){block, 0}, COUNT_ALL), all, COUNT_ALL, 0);
    check("block", "part", download(d, (struct slice){block, 3}, PART), all + 3, PART, 0);

    const struct shape shape = {3, 2, 5};
    const size_t image = volume(shape);
    double *five = uniform(5 * image, -1, 1), *two = uniform(2 * image, -1, 1);
    struct tensor *tensor = tensor_of(d, five, 5, 5, shape);
    d->ops->tensor_upload(d, tensor, floats(two, 2 * image), 2);
    check("tensor", "part", tensor_values(d, tensor, 1, shape), two, image, 0);
    check("tensor", "all of it", tensor_values(d, tensor, 2, shape), two, 2 * image, 0);
    d->ops->tensor_upload(d, tensor, floats(five, 5 * image), 5);
    check("tensor", "more again", tensor_values(d, tensor, 5, shape), five, 5 * image, 0);
}

/* What was made before a mark stays as it is; marks lie within marks. */
static void release_gives_back_what_is_newer(void **state) {
    struct device *d = *state;
    enum { MARKS = 4, SIZE = 100 };
    const double *values = uniform(SIZE, -1, 1);
    struct block *blocks[MARKS];
    void *marks[MARKS];
    size_t memory[MARKS];
    for (int i = 0; i < MARKS; i++) {
        blocks[i] = block_of(d, values, SIZE);
        memory[i] = d->ops->memory(d);
        marks[i] = d->ops->mark(d);
        if (i > 0)
            assert_true(memory[i] > memory[i - 1]);
    }
    for (int i = MARKS - 1; i >= 0; i--) {
        if (i == 1) /* two at a time */
            continue;
        block_of(d, NULL, SIZE + 1);
        d->ops->release(d, marks[i]);
        assert_int_equal(d->ops->memory(d), memory[i]);
        check("block", "older than the mark", download(d, (struct slice){blocks[i], 0}, SIZE),
              values, SIZE, 0);
    }
}

enum { BATCH = 10, IMAGES = 25 };

/* Makes a model that trains and is evaluated in turns, so many passes each. Returns the memory that
 * is taken then; a step that ran once has all that it takes. */
static size_t train_model(struct device *d, struct dataset *data, const struct images *images,
                          int passes) {
    struct model model = model_small(BATCH);
    model_put(&model, d);
    struct pass *pass = d->ops->pass_new(d, data, IMAGES, 3);
    struct step *steps[2][2]; /* training or not, of a whole batch or not */
    size_t taken = 0;
    for (int i = 0; i < 4; i++)
        steps[i / 2][i % 2] =
            model_step(&model, pass, i / 2 == 0, i % 2 == 0 ? BATCH : IMAGES % BATCH);
    for (int run = 0; run < 2 * passes; run++) {
        struct step **step = steps[run % 2];
        begin_pass(d, pass, views_new(images, IMAGES, true), IMAGES, uniform(3, 0, 1e-3F), 3,
                   3 * run);
        d->ops->step_run(d, step[0], 2);
        d->ops->step_run(d, step[1], 1);
        losses(d, pass, 0, 3);
        logits(d, pass, IMAGES, MODEL_CLASSES);
        if (run == 1)
            taken = d->ops->memory(d);
        if (run > 1)
            assert_int_equal(d->ops->memory(d), taken);
    }
    return taken;
}

static void steps_take_no_memory_twice(void **state) {
    const struct images images = images_new(IMAGES, MODEL_IMAGE, MODEL_CLASSES);
    struct device *d = *state;
    train_model(d, d->ops->dataset_new(d, &images), &images, 3);
}

/* A process does one training after the other, over a data set that stays. */
static void trainings_take_no_more_than_one(void **state) {
    struct device *d = *state;
    const struct images images = images_new(IMAGES, MODEL_IMAGE, MODEL_CLASSES);
    struct dataset *data = d->ops->dataset_new(d, &images);
    size_t before = 0, during = 0;
    for (int round = 0; round < 50; round++) {
        void *mark = d->ops->mark(d);
        const size_t taken = train_model(d, data, &images, 1);
        d->ops->release(d, mark);
        if (round == 0) { /* which has taken working memory, for those that come next */
            before = d->ops->memory(d);
            during = taken;
        }
        assert_int_equal(d->ops->memory(d), before);
        assert_int_equal(taken, during);
    }
    assert_true(before < during);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(new_memory_is_zeroed_and_counted), TEST(parts_are_uploaded_and_downloaded),
        TEST(release_gives_back_what_is_newer), TEST(steps_take_no_memory_twice),
        TEST(trainings_take_no_more_than_one),
    };
    return test_backends(tests, COUNT(tests));
}
