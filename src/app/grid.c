#include "app/grid.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/cifar10.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct colour {
    uint8_t red, green, blue;
};

static const struct colour PAPER = {255, 255, 255}, RIGHT = {40, 160, 70}, WRONG = {214, 39, 40};

/* Sizes in pixels of the picture. */
struct layout {
    int scale;         /* of an image's pixel */
    int frame, gap;    /* of the thickest frame; between the cells */
    int cell, step;    /* a framed image; from one cell to the next */
    int columns, rows; /* cells */
    int width, height;
};

static struct layout layout_of(int count) {
    struct layout l = {.scale = count <= 100 ? 4 : count <= 1000 ? 2 : 1, .columns = 8};
    l.frame = 2 * l.scale;
    l.gap = 2 * l.scale;
    l.cell = CIFAR10_SIDE * l.scale + 2 * l.frame;
    l.step = l.cell + l.gap;
    while (l.columns * l.columns < count)
        l.columns++;
    if (l.columns > count)
        l.columns = count;
    l.rows = (count + l.columns - 1) / l.columns;
    l.width = l.columns * l.step + l.gap;
    l.height = l.rows * l.step + l.gap;
    return l;
}

/* The colour of one pixel of a cell, [y][x] counted from its corner. */
static struct colour cell_pixel(const struct layout *l, const uint8_t *record, const bool *right,
                                int y, int x) {
    const int size = CIFAR10_SIDE * l->scale;
    y -= l->frame;
    x -= l->frame;
    if (y >= 0 && y < size && x >= 0 && x < size) {
        const uint8_t *red = record + 1 + y / l->scale * CIFAR10_SIDE + x / l->scale;
        enum { PLANE = CIFAR10_SIDE * CIFAR10_SIDE };
        return (struct colour){red[0], red[PLANE], red[2 * PLANE]};
    }
    const int thickness = right == NULL ? 0 : *right ? l->frame / 2 : l->frame;
    const bool framed =
        y >= -thickness && y < size + thickness && x >= -thickness && x < size + thickness;
    return !framed ? PAPER : *right ? RIGHT : WRONG;
}

/* How a grid ends, by which it is known again: a chunk that says what drew it, and the end of a PNG
 * file. */
static const char END[] = "\0\0\0\x0e"
                          "tEXtSoftware\0cifar"
                          "\xbe\x59\x52\xf2"
                          "\0\0\0\0IEND\xae\x42\x60\x82";
enum { IEND = 12, END_SIZE = sizeof END - 1 };

bool grid_is_file(const char *path) {
    char end[END_SIZE];
    struct file file;
    struct error error;
    if (!file_open(&file, path, STATUS_FAILURE, &error))
        return false;
    const bool is =
        file.size >= END_SIZE &&
        pread(file.descriptor, end, END_SIZE, (off_t)(file.size - END_SIZE)) == END_SIZE &&
        memcmp(end, END, END_SIZE) == 0;
    file_close(&file);
    return is;
}

static bool save_png(const char *path, const struct colour *pixels, const struct layout *l,
                     struct error *error) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)l->width,
                       .height = (png_uint_32)l->height,
                       .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    char *file = memory_new(size + END_SIZE, 1);
    bool good = png_image_write_to_memory(&image, file, &size, 0, pixels, 0, NULL) != 0;
    if (good) {
        memcpy(file + size - IEND, END, END_SIZE);
        good = file_replace(path, file, size - IEND + END_SIZE, error);
    } else {
        error_set(error, STATUS_FAILURE, "%s: libpng cannot make the picture: %s", path,
                  image.message);
    }
    free(file);
    return good;
}

bool grid_save(const char *path, const uint8_t *records, const bool *right, int count,
               struct error *error) {
    const struct layout l = layout_of(count);
    _Static_assert(sizeof(struct colour) == 3, "pixels are given to libpng as packed bytes");
    struct colour *pixels = memory_new((size_t)l.width * (size_t)l.height, sizeof *pixels);
    for (size_t i = 0; i < (size_t)l.width * (size_t)l.height; i++)
        pixels[i] = PAPER;
    for (int i = 0; i < count; i++) {
        const int top = l.gap + i / l.columns * l.step, left = l.gap + i % l.columns * l.step;
        for (int y = 0; y < l.cell; y++)
            for (int x = 0; x < l.cell; x++)
                pixels[(size_t)(top + y) * (size_t)l.width + (size_t)(left + x)] =
                    cell_pixel(&l, records + (size_t)i * CIFAR10_RECORD,
                               right != NULL ? &right[i] : NULL, y, x);
    }
    bool good = save_png(path, pixels, &l, error);
    free(pixels);
    return good;
}
