/* The picture of a batch: size, pixels, frames. */
#include "app/grid.h"
#include "base/memory.h"
#include "data/cifar10.h"

#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];

/* The picture that grid_save() makes of `count` images, all of one colour each: red = index. */
static uint8_t *picture(int count, const bool *right, png_image *image) {
    struct error error;
    uint8_t *records = memory_new((size_t)count, CIFAR10_RECORD);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < CIFAR10_PIXELS / 3; j++) {
            records[i * CIFAR10_RECORD + 1 + j] = (uint8_t)i;
            records[i * CIFAR10_RECORD + 1 + 1024 + j] = (uint8_t)(j / 32); /* green: the row */
            records[i * CIFAR10_RECORD + 1 + 2048 + j] = (uint8_t)(j % 32); /* blue: the column */
        }
    if (!grid_save(path, records, right, count, &error))
        fail_msg("%s", error.text);
    free(records);
    *image = (png_image){.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(image, path));
    image->format = PNG_FORMAT_RGB;
    uint8_t *pixels = memory_new(PNG_IMAGE_SIZE(*image), 1);
    assert_true(png_image_finish_read(image, NULL, pixels, 0, NULL));
    return pixels;
}

static const uint8_t *at(const uint8_t *pixels, const png_image *image, int x, int y) {
    return pixels + ((size_t)y * image->width + (size_t)x) * 3;
}

static void assert_colour(const uint8_t *pixel, int red, int green, int blue) {
    const uint8_t expected[3] = {(uint8_t)red, (uint8_t)green, (uint8_t)blue};
    assert_memory_equal(pixel, expected, 3);
}

static void ten_images(void **unused) {
    (void)unused;
    enum { SCALE = 4, FRAME = 8, GAP = 8, STEP = 32 * SCALE + 2 * FRAME + GAP };
    bool right[10] = {true, false, true, true, true, true, true, true, false, true};
    png_image image;
    uint8_t *pixels = picture(10, right, &image);
    assert_int_equal(image.width, 8 * STEP + GAP); /* eight in a row, as torchvision's make_grid */
    assert_int_equal(image.height, 2 * STEP + GAP);
    for (int i = 0; i < 10; i++) {
        const int x = GAP + i % 8 * STEP, y = GAP + i / 8 * STEP; /* the cell's corner */
        const uint8_t *outer = at(pixels, &image, x + 1, y + STEP / 2);
        const uint8_t *inner = at(pixels, &image, x + FRAME - 1, y + STEP / 2);
        if (right[i]) { /* thin and green */
            assert_colour(outer, 255, 255, 255);
            assert_true(inner[1] > inner[0] + 50);
        } else { /* thick and red */
            assert_true(outer[0] > outer[1] + 50);
            assert_memory_equal(outer, inner, 3);
        }
        assert_colour(at(pixels, &image, x + FRAME, y + FRAME), i, 0, 0);
        assert_colour(at(pixels, &image, x + FRAME + 7 * SCALE + 3, y + FRAME + 30 * SCALE), i, 30,
                      7);
    }
    assert_colour(at(pixels, &image, GAP + 5 * STEP, GAP + STEP), 255, 255, 255); /* no cell */
    free(pixels);
}

static void sizes_at_the_edges(void **unused) {
    (void)unused;
    static const struct {
        int count;
        unsigned width, height;
    } CASES[] = {
        /* times 4: cells of 144 and gaps of 8 */
        {1, 160, 160},
        {8, 8 * 152 + 8, 160},
        {9, 8 * 152 + 8, 2 * 152 + 8},
        {100, 10 * 152 + 8, 10 * 152 + 8},
        /* times 2 */
        {101, 11 * 76 + 4, 10 * 76 + 4},
        {1000, 32 * 76 + 4, 32 * 76 + 4},
        /* as they are */
        {1001, 32 * 38 + 2, 32 * 38 + 2},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        bool *right = memory_new((size_t)CASES[i].count, sizeof *right);
        png_image image;
        free(picture(CASES[i].count, right, &image));
        assert_int_equal(image.width, CASES[i].width);
        assert_int_equal(image.height, CASES[i].height);
        free(right);
    }
}

static void unwritable(void **unused) {
    (void)unused;
    struct error error;
    const uint8_t record[CIFAR10_RECORD] = {0};
    const bool right = true;
    assert_false(grid_save("/nonexistent/grid.png", record, &right, 1, &error));
    assert_int_equal(error.status, STATUS_FAILURE);
    assert_non_null(strstr(error.text, "/nonexistent/grid.png"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_images),
        cmocka_unit_test(sizes_at_the_edges),
        cmocka_unit_test(unwritable),
    };
    snprintf(path, sizeof path, "/tmp/grid_test.%ld.png", (long)getpid());
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
