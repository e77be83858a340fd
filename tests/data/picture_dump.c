/* Not a test: shows other programs what picture.h makes of a picture.
 *
 *     picture_dump PICTURE...     on standard output, of each: width and height as 32-bit numbers
 * and the pixels, then the 3,072 bytes of PICTURE_CENTER and of PICTURE_SQUASH */
#include "data/picture.h"

#include <stdio.h>

int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        struct picture picture;
        struct error error;
        if (!picture_load(&picture, words[i], &error)) {
            fprintf(stderr, "%s\n", error.text);
            return error.status;
        }
        const int32_t size[2] = {picture.width, picture.height};
        fwrite(size, sizeof size, 1, stdout);
        fwrite(picture.pixels, 3 * (size_t)picture.width, (size_t)picture.height, stdout);
        for (enum picture_crop crop = PICTURE_CENTER; crop <= PICTURE_SQUASH; crop++) {
            uint8_t pixels[CIFAR10_PIXELS];
            picture_fit(&picture, crop, pixels);
            fwrite(pixels, sizeof pixels, 1, stdout);
        }
        picture_free(&picture);
    }
    return ferror(stdout) || fflush(stdout) != 0;
}
