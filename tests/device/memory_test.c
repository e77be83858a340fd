/* Tensors and blocks: what they hold at first, copying to and from the host, and how much memory
 * the device takes. */
#include "layer.h"

#include <string.h>

static void new_memory_is_zeroed_and_counted(void **state) {
    struct device *d = *state;
    const struct shape shape = {3, 5, 7};
    size_t before = d->ops->memory(d);
    const struct tensor *tensor = d->ops->tensor_new(d, 100, shape.c, shape.h, shape.w);
    size_t between = d->ops->memory(d);
    assert_true(between >= before + 100 * volume(shape) * sizeof(float));
    struct block *block = d->ops->block_new(d, 1001);
    assert_true(d->ops->memory(d) >= between + 1001 * sizeof(float));

    const double *nothing = zeros(100 * volume(shape));
    check("tensor", "new", tensor_values(d, tensor, 100, shape), nothing, 100 * volume(shape), 0);
    check("block", "new", download(d, (struct slice){block, 0}, 1001), nothing, 1001, 0);
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

/* A step that ran once has all the memory that it takes. */
static void steps_take_no_memory(void **state) {
    struct device *d = *state;
    const struct conv_case conv = {3, 4, 3, 1, 9, 8, 10};
    const struct norm_case norm = {4, 9, 8, 2, 10, PLAIN, 1e-5F, 0.1F};
    const struct layer layers[] = {conv_layer(&conv), norm_layer(&norm)};
    size_t taken[3], before = d->ops->memory(d);
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < COUNT(layers); j++)
            on_device(d, &layers[j], true);
        taken[i] = d->ops->memory(d) - before;
        before += taken[i];
    }
    assert_true(taken[0] >= taken[1]);
    assert_int_equal(taken[1], taken[2]); /* the tensors and blocks of on_device() */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(new_memory_is_zeroed_and_counted),
        TEST(parts_are_uploaded_and_downloaded),
        TEST(steps_take_no_memory),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
