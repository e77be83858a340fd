/* picture_fit() against torchvision's transforms: golden values written by
 * scripts/pytorch/make_golden.py. (pictures_test.py tries more sizes.) */
#include "data/picture.h"
#include "net/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct picture new_picture(int width, int height) {
    struct picture picture = {.width = width, .height = height};
    picture.pixels = calloc((size_t)width * (size_t)height, 3);
    assert_non_null(picture.pixels);
    return picture;
}

/* make_golden.py's */
static struct picture draw(int width, int height) {
    const struct picture picture = new_picture(width, height);
    uint8_t *at = picture.pixels;
    for (unsigned y = 0; y < (unsigned)height; y++)
        for (unsigned x = 0; x < (unsigned)width; x++)
            for (unsigned channel = 0; channel < 3; channel++)
                *at++ = (uint8_t)((x * 7 + y * 13 + channel * 29 + 1) * 2654435761u >> 24);
    return picture;
}

static void every_byte_is_torchvisions(void **state) {
    struct safetensors golden;
    struct error error;
    (void)state;
    if (!safetensors_load(&golden, GOLDEN "/resize.safetensors", &error))
        fail_msg("%s", error.text);
    assert_int_equal(golden.count, 18);
    for (int i = 0; i < golden.count; i++) {
        const struct safetensors_tensor *expected = &golden.tensors[i];
        uint8_t pixels[CIFAR10_PIXELS];
        int width, height;
        char crop[SAFETENSORS_NAME];
        assert_int_equal(sscanf(expected->name, "%dx%d.%63s", &width, &height, crop), 3);
        struct picture picture = draw(width, height);
        picture_fit(&picture, strcmp(crop, "squash") == 0 ? PICTURE_SQUASH : PICTURE_CENTER,
                    pixels);
        assert_int_equal(expected->size, sizeof pixels);
        for (size_t j = 0; j < sizeof pixels; j++)
            if (pixels[j] != ((const uint8_t *)expected->data)[j])
                fail_msg("%s: byte %zu is %d instead of %d", expected->name, j, pixels[j],
                         ((const uint8_t *)expected->data)[j]);
        picture_free(&picture);
    }
    safetensors_free(&golden);
}

static void a_picture_of_the_right_size_stays_as_it_is(void **state) {
    struct picture picture = draw(CIFAR10_SIDE, CIFAR10_SIDE);
    (void)state;
    for (enum picture_crop crop = PICTURE_CENTER; crop <= PICTURE_SQUASH; crop++) {
        uint8_t pixels[CIFAR10_PIXELS];
        picture_fit(&picture, crop, pixels);
        for (int i = 0; i < CIFAR10_PIXELS; i++)
            assert_int_equal(pixels[i], picture.pixels[i % 1024 * 3 + i / 1024]);
    }
    picture_free(&picture);
}

/* Sides of which 32 times as much is more than an int holds. One half is black, one white; where
 * they meet, the middle 32 rows or columns lie between the last black and the first white pixel. */
static void the_longest_pictures_are_resized(void **state) {
    enum { LONG = 100000000 };
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        uint8_t pixels[CIFAR10_PIXELS];
        struct picture picture = wide ? new_picture(LONG, 1) : new_picture(1, LONG);
        memset(picture.pixels + (size_t)3 * (LONG / 2), 255, (size_t)3 * (LONG - LONG / 2));
        picture_fit(&picture, PICTURE_CENTER, pixels);
        for (int i = 0; i < CIFAR10_PIXELS; i++) {
            const int along = wide ? i % 32 : i / 32 % 32;
            assert_in_range(abs(pixels[i] - (int)(255 * (along + 0.5) / 32)), 0, 1);
        }
        picture_free(&picture);
    }
}

static void millions_of_rows_or_columns_are_squashed(void **state) {
    enum { LONG = 2000000 };
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        uint8_t pixels[CIFAR10_PIXELS];
        struct picture picture = wide ? new_picture(LONG, 1) : new_picture(1, LONG);
        memset(picture.pixels, 200, (size_t)3 * LONG);
        picture_fit(&picture, PICTURE_SQUASH, pixels);
        for (int i = 0; i < CIFAR10_PIXELS; i++)
            assert_in_range(pixels[i], 198, 202); /* of 22 bits of a weight 5 are left */
        picture_free(&picture);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_torchvisions),
        cmocka_unit_test(a_picture_of_the_right_size_stays_as_it_is),
        cmocka_unit_test(the_longest_pictures_are_resized),
        cmocka_unit_test(millions_of_rows_or_columns_are_squashed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
