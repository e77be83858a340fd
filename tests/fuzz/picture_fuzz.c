/* The reader of pictures, and what resizes them.
 *
 * Input: the bytes of a file. Checksums are not looked at, and pictures are smaller (picture.c).
 *
 * Asserted: what is refused has an error of the right kind, and leaves no memory behind; what is
 * accepted has a size within the limits, and each of its bytes can be read; resized, no byte is
 * beyond the darkest and the lightest of the picture by more than rounding; read again, and
 * resized, it is the same. */
#include "fuzz.h"

#include "data/picture.h"

static void range_of(const uint8_t *bytes, size_t count, int range[2]) {
    range[0] = 255, range[1] = 0;
    for (size_t i = 0; i < count; i++) {
        range[0] = bytes[i] < range[0] ? bytes[i] : range[0];
        range[1] = bytes[i] > range[1] ? bytes[i] : range[1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t fitted[2][2][CIFAR10_PIXELS];
    struct error error;
    for (int i = 0; i < 2; i++) {
        struct picture picture;
        int all[2], few[2];
        if (!picture_decode(&picture, data, size, "picture\033", &error)) {
            fuzz_check_error(&error, STATUS_DATA);
            require(strncmp(error.text, "picture?: ", 10) == 0 && picture.pixels == NULL && i == 0);
            return 0;
        }
        require(picture.width >= 1 && picture.height >= 1);
        require((int64_t)picture.width * picture.height <= PICTURE_MOST);
        range_of(picture.pixels, 3 * (size_t)picture.width * (size_t)picture.height, all);
        for (enum picture_crop crop = PICTURE_CENTER; crop <= PICTURE_SQUASH; crop++) {
            picture_fit(&picture, crop, fitted[i][crop]);
            range_of(fitted[i][crop], CIFAR10_PIXELS, few);
            require(few[0] >= all[0] - 1 && few[1] <= all[1] + 1);
        }
        picture_free(&picture);
        require(picture.pixels == NULL);
    }
    require(memcmp(fitted[0], fitted[1], sizeof fitted[0]) == 0);
    return 0;
}
