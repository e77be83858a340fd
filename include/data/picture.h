/* Pictures as people have them, PNG and JPEG of any size, and as the network takes them. All of it
 * may be called on several threads at once. */
#pragma once

#include "data/cifar10.h"

#include <stddef.h>

enum {
    PICTURE_MOST = 178956970,    /* pixels: at so many Pillow, too, takes one for a bomb */
    PICTURE_LARGEST = 512 << 20, /* bytes of the largest file that is read */
    PICTURE_ALONE = 1 << 24,     /* pixels: of pictures with more one thread at a time has one */
};

struct picture {
    int width, height;
    bool alone;      /* the next one of more than PICTURE_ALONE waits until this is freed */
    uint8_t *pixels; /* [height][width][3]: red, green, blue, sRGB; owned */
};

/* Whether a file with this name would be a picture, by its ending, in any case: of the formats that
 * are read, and of others that people would miss if they were left out in silence. */
bool picture_has_name(const char *name);

/* Reads a picture from a file, or, if the path is "-", from standard input to its end. What it is
 * shows in what it holds, not in its name. It is turned as its EXIF orientation says, laid on white
 * where it is transparent; palettes, grey and 16 bits become 8 bits of red, green and blue; colour
 * profiles and gamma are not looked at, as torchvision does not. Its size is checked before there
 * is memory for its pixels. Errors (STATUS_DATA) name what is wrong: no file, no picture or one of
 * another format, cut short at whatever byte, damaged, more than PICTURE_MOST pixels or
 * PICTURE_LARGEST bytes, CMYK; `pixels` is NULL then. picture_free() it afterwards. */
bool picture_load(struct picture *picture, const char *path, struct error *error);

/* The same from memory; `name` is for messages. */
bool picture_decode(struct picture *picture, const uint8_t *bytes, size_t size, const char *name,
                    struct error *error);

void picture_free(struct picture *picture);

/* What of a picture becomes the square: with PICTURE_CENTER its middle (transforms.Resize(32), then
 * CenterCrop(32)), with PICTURE_SQUASH all of it (Resize((32, 32))). */
enum picture_crop { PICTURE_CENTER, PICTURE_SQUASH };

/* Makes of it the pixels of a record of cifar10.h: the very bytes that torchvision's transforms
 * make of a PIL image (Pillow 12; 13 may round some otherwise, by 1). A picture of 32 x 32 stays as
 * it is. */
void picture_fit(const struct picture *picture, enum picture_crop crop,
                 uint8_t pixels[CIFAR10_PIXELS]);
