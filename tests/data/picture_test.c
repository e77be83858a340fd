/* Pictures that libpng, libturbojpeg or the bytes below make. (pictures_test.py has Pillow's.) */
#include "data/picture.h"

#include "scratch.h"

#include <fcntl.h>
#include <png.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <turbojpeg.h>
#include <zlib.h>

/* ---- files in memory ---- */

struct bytes {
    uint8_t *at;
    size_t size;
};

static void append(struct bytes *bytes, const void *more, size_t size) {
    bytes->at = realloc(bytes->at, bytes->size + size + 1);
    assert_non_null(bytes->at);
    if (size > 0)
        memcpy(bytes->at + bytes->size, more, size);
    bytes->size += size;
}

static void append_number(struct bytes *bytes, unsigned value, int size) {
    while (size-- > 0)
        append(bytes, &(uint8_t){(uint8_t)(value >> 8 * size)}, 1);
}

static void free_bytes(struct bytes *bytes) {
    free(bytes->at);
    *bytes = (struct bytes){0};
}

static struct picture decoded(const struct bytes *file) {
    struct picture picture;
    struct error error;
    /* a copy of that size, where reading on is noticed */
    uint8_t *copy = malloc(file->size);
    assert_non_null(copy);
    memcpy(copy, file->at, file->size);
    assert_good(picture_decode(&picture, copy, file->size, "p", &error), &error);
    free(copy);
    return picture;
}

/* The file, or the first bytes of it, are refused in these words. */
#define assert_refused(file, length, ...)                                                          \
    do {                                                                                           \
        struct error refusal = refused(file, length);                                              \
        assert_says(&refusal, STATUS_DATA, "p: ", __VA_ARGS__);                                    \
    } while (0)

static struct error refused(const struct bytes *file, size_t length) {
    struct picture picture;
    struct error error;
    uint8_t *copy = malloc(length + (length == 0));
    assert_non_null(copy);
    memcpy(copy, file->at, length);
    if (picture_decode(&picture, copy, length, "p", &error))
        fail_msg("accepted at %zu of %zu bytes", length, file->size);
    assert_null(picture.pixels);
    free(copy);
    return error;
}

/* ---- PNG ---- */

struct kind {
    int colour, bits;
    bool interlaced, transparent; /* by tRNS */
};

static int channels_of(int colour) {
    return (colour & PNG_COLOR_MASK_COLOR && colour != PNG_COLOR_TYPE_PALETTE ? 3 : 1) +
           (colour & PNG_COLOR_MASK_ALPHA ? 1 : 0);
}

/* Some values are 0, some the most, some the one that tRNS makes transparent. */
enum { CLEAR = 1 };

static unsigned sample(const struct kind *kind, int x, int y, int channel) {
    const unsigned most = (1u << kind->bits) - 1, n = (unsigned)(x * 3 + y * 5 + channel);
    switch (n % 5) {
    case 0:
        return 0;
    case 1:
        return most;
    case 2:
        return CLEAR;
    default:
        return (n * 2654435761u >> 8) & most;
    }
}

static struct png_color_struct colour_of(unsigned index) {
    return (struct png_color_struct){(png_byte)(index * 7 + 3), (png_byte)(255 - index),
                                     (png_byte)(index * 91)};
}

static unsigned alpha_of(unsigned index) {
    return index * 37 % 256;
}

/* `value` of `most` in 255ths, to the nearest. */
static unsigned scaled(unsigned value, unsigned most) {
    return (value * 2 * 255 + most) / (2 * most);
}

/* What the pixel must become. */
static void expect_pixel(uint8_t rgb[3], const struct kind *kind, int x, int y) {
    const unsigned most = (1u << kind->bits) - 1;
    const bool coloured = kind->colour & PNG_COLOR_MASK_COLOR;
    unsigned colour[3], alpha = 255;
    bool clear = kind->transparent;
    for (int c = 0; c < 3; c++) {
        const unsigned value = sample(kind, x, y, coloured ? c : 0);
        colour[c] = scaled(value, most);
        clear = clear && value == CLEAR;
    }
    if (clear)
        alpha = 0;
    if (kind->colour & PNG_COLOR_MASK_ALPHA)
        alpha = scaled(sample(kind, x, y, coloured ? 3 : 1), most);
    if (kind->colour == PNG_COLOR_TYPE_PALETTE) {
        const unsigned index = sample(kind, x, y, 0);
        const struct png_color_struct entry = colour_of(index);
        colour[0] = entry.red, colour[1] = entry.green, colour[2] = entry.blue;
        alpha = kind->transparent ? alpha_of(index) : 255;
    }
    for (int c = 0; c < 3; c++)
        rgb[c] = (uint8_t)scaled(colour[c] * alpha + 255 * (255 - alpha), 255 * 255);
}

static void write_bytes(png_structp png, png_bytep bytes, size_t size) {
    append(png_get_io_ptr(png), bytes, size);
}

static void write_row(png_structp png, const struct kind *kind, int width, int y) {
    const int channels = channels_of(kind->colour);
    uint8_t row[8 * 64] = {0};
    for (int i = 0; i < width * channels; i++) {
        const unsigned value = sample(kind, i / channels, y, i % channels);
        const int bit = i * kind->bits;
        if (kind->bits == 16)
            row[bit / 8] = (uint8_t)(value >> 8), row[bit / 8 + 1] = (uint8_t)value;
        else
            row[bit / 8] |= (uint8_t)(value << (8 - kind->bits - bit % 8));
    }
    png_write_row(png, row);
}

static struct bytes make_png(const struct kind *kind, int width, int height, struct bytes exif) {
    struct bytes file = {0};
    struct png_color_struct palette[256];
    png_byte alphas[256];
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &file, write_bytes, NULL);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, kind->bits, kind->colour,
                 kind->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
    for (unsigned i = 0; i < 256; i++) {
        palette[i] = colour_of(i);
        alphas[i] = (png_byte)alpha_of(i);
    }
    if (kind->colour == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 1 << kind->bits);
    if (kind->transparent)
        png_set_tRNS(png, info, alphas, 1 << (kind->bits & 15),
                     &(png_color_16){.red = CLEAR, .green = CLEAR, .blue = CLEAR, .gray = CLEAR});
    if (exif.size > 0)
        png_set_eXIf_1(png, info, (png_uint_32)exif.size, exif.at);
    png_set_gAMA(png, info, 1.0); /* which is not looked at */
    png_write_info(png, info);
    const int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++)
            write_row(png, kind, width, y);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return file;
}

static const struct bytes NO_EXIF = {0};

static void check_png(const struct kind *kind, int width, int height) {
    struct bytes file = make_png(kind, width, height, NO_EXIF);
    struct picture picture = decoded(&file);
    assert_int_equal(picture.width, width);
    assert_int_equal(picture.height, height);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t expected[3];
            expect_pixel(expected, kind, x, y);
            if (memcmp(picture.pixels + (y * width + x) * 3, expected, 3) != 0)
                fail_msg("colour type %d of %d bits%s%s, %d x %d: pixel %d,%d", kind->colour,
                         kind->bits, kind->interlaced ? ", interlaced" : "",
                         kind->transparent ? ", tRNS" : "", width, height, x, y);
        }
    picture_free(&picture);
    assert_null(picture.pixels);
    picture_free(&picture); /* twice does no harm */
    /* What trails does not matter; that anything is missing does. */
    append(&file, "trailing", 8);
    picture = decoded(&file);
    picture_free(&picture);
    file.size -= 8;
    if (width < 10)
        for (size_t size = 8; size < file.size; size++)
            assert_refused(&file, size, "cut short: it ends at byte");
    free_bytes(&file);
}

static void every_kind_of_png_is_read(void **state) {
    static const int sizes[][2] = {{1, 1}, {5, 3}, {9, 11}, {64, 33}};
    enum { KINDS = 7 * 5 * 2 * 2 };
    int kinds = 0;
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        const struct kind kind = {i % 7, 1 << i / 7 % 5, i / 35 % 2, i / 70};
        const bool palette = kind.colour == PNG_COLOR_TYPE_PALETTE;
        const bool alpha = kind.colour & PNG_COLOR_MASK_ALPHA;
        if (kind.colour == 1 || kind.colour == 5 || (palette && kind.bits == 16) ||
            (kind.colour != 0 && !palette && kind.bits < 8) || (alpha && kind.transparent))
            continue;
        kinds++;
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            check_png(&kind, sizes[j][0], sizes[j][1]);
    }
    assert_int_equal(kinds, (5 + 4 + 2) * 4 + (2 + 2) * 2);
}

static void append_chunk(struct bytes *file, const char *name, const void *data, size_t size) {
    append_number(file, (unsigned)size, 4);
    append(file, name, 4);
    append(file, data, size);
    const uint8_t *begin = file->at + file->size - size - 4;
    append_number(file, (unsigned)crc32(0, begin, (uInt)size + 4), 4);
}

static struct bytes begin_png(unsigned width, unsigned height, int bits, int colour) {
    struct bytes file = {0}, header = {0};
    append(&file, "\x89PNG\r\n\x1a\n", 8);
    append_number(&header, width, 4);
    append_number(&header, height, 4);
    append(&header, (uint8_t[]){(uint8_t)bits, (uint8_t)colour, 0, 0, 0}, 5);
    append_chunk(&file, "IHDR", header.at, header.size);
    free_bytes(&header);
    return file;
}

static void append_zeros(struct bytes *file, const char *chunk, const void *before, size_t size,
                         size_t zeros) {
    struct bytes packed = {0};
    uint8_t *plain = calloc(zeros, 1), *small = malloc(compressBound(zeros));
    uLongf length = compressBound(zeros);
    assert_int_equal(compress2(small, &length, plain, zeros, 9), Z_OK);
    append(&packed, before, size);
    append(&packed, small, length);
    append_chunk(file, chunk, packed.at, packed.size);
    free(plain);
    free(small);
    free_bytes(&packed);
}

static void every_byte_of_a_png_counts(void **state) {
    struct bytes file = begin_png(3, 2, 8, 2);
    (void)state;
    append_zeros(&file, "IDAT", "", 0, 2 * (1 + 3 * 3));
    append_chunk(&file, "IEND", NULL, 0);
    struct picture picture = decoded(&file);
    picture_free(&picture);
    for (size_t at = 8; at < file.size; at++)
        for (int bit = 0; bit < 8; bit++) {
            file.at[at] ^= (uint8_t)(1 << bit);
            assert_refused(&file, file.size, "is a", "PNG picture");
            file.at[at] ^= (uint8_t)(1 << bit);
        }
    free_bytes(&file);
}

static void a_png_with_too_few_pixels_is_refused(void **state) {
    struct bytes file = begin_png(3, 2, 8, 2);
    (void)state;
    append_zeros(&file, "IDAT", "", 0, 2 * (1 + 3 * 3) - 1);
    append_chunk(&file, "IEND", NULL, 0);
    assert_refused(&file, file.size, "is a damaged PNG picture: ", "Not enough image data");
    free_bytes(&file);
}

/* ---- JPEG ---- */

static struct bytes make_jpeg(int width, int height, int sampling, int flags) {
    struct bytes file = {0};
    unsigned long size = 0;
    unsigned char *jpeg = NULL, *pixels = malloc((size_t)width * (size_t)height * 3);
    for (int i = 0; i < width * height; i++)
        for (int c = 0; c < 3; c++)
            pixels[3 * i + c] = (uint8_t)(i % width * 2 + i / width * 2 + c * 50);
    tjhandle handle = tjInitCompress();
    assert_int_equal(
        tjCompress2(handle, pixels, width, 0, height, TJPF_RGB, &jpeg, &size, sampling, 100, flags),
        0);
    append(&file, jpeg, size);
    tjFree(jpeg);
    tjDestroy(handle);
    free(pixels);
    return file;
}

static void check_jpeg(int width, int height, int sampling, int flags) {
    struct bytes file = make_jpeg(width, height, sampling, flags);
    struct picture picture = decoded(&file);
    assert_int_equal(picture.width, width);
    assert_int_equal(picture.height, height);
    for (int i = 0; i < width * height && sampling == TJSAMP_444; i++)
        for (int c = 0; c < 3; c++)
            assert_in_range(
                picture.pixels[3 * i + c] + 4 - (i % width * 2 + i / width * 2 + c * 50), 0, 8);
    picture_free(&picture);
    append(&file, "trailing", 8);
    picture = decoded(&file);
    picture_free(&picture);
    file.size -= 8;
    for (size_t size = 3; size < file.size; size += width < 20 ? 1 : 50)
        assert_refused(&file, size, "is a JPEG picture that cannot be decoded: ");
    assert_refused(&file, file.size - 1, "cannot be decoded");
    assert_refused(&file, file.size - 2, "cannot be decoded");
    free_bytes(&file);
}

static void jpegs_are_read_whole_or_not_at_all(void **state) {
    (void)state;
    for (int sampling = 0; sampling < TJ_NUMSAMP; sampling++)
        for (int flags = 0; flags <= TJFLAG_PROGRESSIVE; flags += TJFLAG_PROGRESSIVE) {
            check_jpeg(1, 1, sampling, flags);
            check_jpeg(17, 9, sampling, flags);
            check_jpeg(40, 30, sampling, flags);
        }
}

/* A JPEG of one grey, each of whose blocks takes two bits: 0 for the difference to the one before,
 * 0 for no more coefficients. With Adobe's marker, whose last byte is `transform`, if that is not
 * negative. */
static struct bytes make_grey(int width, int height, int components, const uint8_t *sampling,
                              int blocks, int transform) {
    static const uint8_t CODE[] = {1};
    struct bytes file = {0};
    append(&file, "\xff\xd8", 2);
    if (transform >= 0) {
        append(&file,
               "\xff\xee\0\x0e"
               "Adobe\0\x64\0\0\0\0",
               15);
        append_number(&file, (unsigned)transform, 1);
    }
    append(&file, "\xff\xdb\0\x43\0", 5);
    for (int i = 0; i < 64; i++)
        append(&file, CODE, 1);
    for (unsigned table = 0; table <= 0x10; table += 0x10) { /* one code: 0 means 0 */
        append(&file, "\xff\xc4\0\x14", 4);
        append_number(&file, table, 1);
        append(&file, CODE, 1);
        for (int i = 0; i < 16; i++)
            append(&file, "", 1);
    }
    append(&file, "\xff\xc0", 2);
    append_number(&file, (unsigned)(8 + 3 * components), 2);
    append_number(&file, 8, 1);
    append_number(&file, (unsigned)height, 2);
    append_number(&file, (unsigned)width, 2);
    append_number(&file, (unsigned)components, 1);
    for (int i = 0; i < components; i++)
        append(&file, (uint8_t[]){(uint8_t)(i + 1), sampling[i], 0}, 3);
    append(&file, "\xff\xda", 2);
    append_number(&file, (unsigned)(6 + 2 * components), 2);
    append_number(&file, (unsigned)components, 1);
    for (int i = 0; i < components; i++)
        append(&file, (uint8_t[]){(uint8_t)(i + 1), 0}, 2);
    append(&file, "\0\x3f\0", 3);
    for (int i = 0; i < (2 * blocks + 7) / 8; i++)
        append(&file, "", 1);
    append(&file, "\xff\xd9", 2);
    return file;
}

static void jpegs_of_unusual_sampling_are_read(void **state) {
    (void)state;
    /* 4:1:0, for which libturbojpeg has no name, and grey */
    struct bytes files[] = {make_grey(64, 32, 3, (const uint8_t[]){0x42, 0x11, 0x11}, 40, -1),
                            make_grey(64, 32, 1, (const uint8_t[]){0x11}, 32, -1)};
    for (int i = 0; i < 2; i++) {
        struct picture picture = decoded(&files[i]);
        assert_int_equal(picture.width, 64);
        for (int j = 0; j < 64 * 32 * 3; j++)
            assert_int_equal(picture.pixels[j], 128);
        picture_free(&picture);
        free_bytes(&files[i]);
    }
}

static void cmyk_is_refused(void **state) {
    (void)state;
    for (int transform = -1; transform <= 2; transform += transform < 0 ? 1 : 2) {
        struct bytes file =
            make_grey(8, 8, 4, (const uint8_t[]){0x11, 0x11, 0x11, 0x11}, 4, transform);
        assert_refused(&file, file.size, "is a CMYK picture", "save it as RGB");
        free_bytes(&file);
    }
}

/* ---- EXIF ---- */

/* A TIFF directory of two entries; the second is the orientation. */
static struct bytes make_exif(bool little, int orientation, int type) {
    static const uint8_t BIG[] = {'M', 'M', 0, 42, 0, 0,   0, 8, 0, 2, 1,    0x0f, 0,
                                  2,   0,   0, 0,  2, 'x', 0, 0, 0, 1, 0x12, 0,    3,
                                  0,   0,   0, 1,  0, 0,   0, 0, 0, 0, 0,    0};
    /* where numbers are, and how long */
    static const int NUMBERS[][2] = {{2, 2},  {4, 4},  {8, 2},  {10, 2}, {12, 2},
                                     {14, 4}, {22, 2}, {24, 2}, {26, 4}, {30, 2}};
    struct bytes exif = {0};
    append(&exif, BIG, sizeof BIG);
    exif.at[25] = (uint8_t)type;
    exif.at[31] = (uint8_t)orientation;
    if (little) {
        exif.at[0] = exif.at[1] = 'I';
        for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
            for (int a = NUMBERS[i][0], b = a + NUMBERS[i][1] - 1; a < b; a++, b--) {
                const uint8_t first = exif.at[a];
                exif.at[a] = exif.at[b];
                exif.at[b] = first;
            }
    }
    return exif;
}

static const struct kind RGB = {PNG_COLOR_TYPE_RGB, 8, false, false};
enum { WIDTH = 7, HEIGHT = 5, JFIF = 20 /* bytes up to the end of that segment */ };

/* A picture of WIDTH x HEIGHT with that EXIF, in JPEG behind the JFIF segment and a filler. */
static struct bytes with_exif(bool jpeg, struct bytes exif) {
    if (!jpeg)
        return make_png(&RGB, WIDTH, HEIGHT, exif);
    struct bytes plain = make_jpeg(WIDTH, HEIGHT, TJSAMP_444, 0), file = {0};
    append(&file, plain.at, JFIF);
    append(&file, "\xff\xff\xff\xe1", 4);
    append_number(&file, (unsigned)exif.size + 8, 2);
    append(&file, "Exif\0", 6);
    append(&file, exif.at, exif.size);
    append(&file, plain.at + JFIF, plain.size - JFIF);
    free_bytes(&plain);
    return file;
}

/* Where in the stored picture a pixel of the upright one is: EXIF 2.3, "Orientation", tells on
 * which side of the scene the first row and the first column are. */
static void check_turned(bool jpeg, struct bytes exif, int orientation) {
    struct bytes file = with_exif(jpeg, exif), plain = with_exif(jpeg, NO_EXIF);
    struct picture stored = decoded(&plain), upright = decoded(&file);
    const bool across = orientation < 5;
    assert_int_equal(upright.width, across ? WIDTH : HEIGHT);
    assert_int_equal(upright.height, across ? HEIGHT : WIDTH);
    for (int row = 0; row < HEIGHT; row++)
        for (int column = 0; column < WIDTH; column++) {
            int x = 0, y = 0;
            switch (orientation) {
            case 1:
                y = row, x = column;
                break; /* top, left */
            case 2:
                y = row, x = WIDTH - 1 - column;
                break; /* top, right */
            case 3:
                y = HEIGHT - 1 - row, x = WIDTH - 1 - column;
                break; /* bottom, right */
            case 4:
                y = HEIGHT - 1 - row, x = column;
                break; /* bottom, left */
            case 5:
                x = row, y = column;
                break; /* left, top */
            case 6:
                x = HEIGHT - 1 - row, y = column;
                break; /* right, top */
            case 7:
                x = HEIGHT - 1 - row, y = WIDTH - 1 - column;
                break; /* right, bottom */
            case 8:
                x = row, y = WIDTH - 1 - column;
                break; /* left, bottom */
            }
            assert_memory_equal(upright.pixels + (y * upright.width + x) * 3,
                                stored.pixels + (row * WIDTH + column) * 3, 3);
        }
    picture_free(&stored);
    picture_free(&upright);
    free_bytes(&file);
    free_bytes(&plain);
}

static void pictures_are_turned_as_exif_says(void **state) {
    (void)state;
    for (int orientation = 0; orientation <= 9; orientation++)
        for (int i = 0; i < 4; i++) {
            struct bytes exif = make_exif(i % 2, orientation, 3);
            check_turned(i / 2, exif, orientation < 1 || orientation > 8 ? 1 : orientation);
            free_bytes(&exif);
        }
}

/* Whatever EXIF holds, the picture is read. */
static void damaged_exif_is_not_looked_at(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct bytes exif = make_exif(i % 2, 6, 3);
        for (size_t size = 1; size < 34; size++)
            check_turned(i / 2, (struct bytes){exif.at, size}, 1);
        check_turned(i / 2, (struct bytes){exif.at, 34},
                     6);                  /* without the next directory's place */
        for (int at = 2; at < 10; at++) { /* TIFF's number, the directory's place, entries */
            exif.at[at] ^= 0xff;
            struct bytes file = with_exif(i / 2, exif);
            struct picture picture = decoded(&file);
            if (at < 8)
                assert_int_equal(picture.width, WIDTH);
            picture_free(&picture);
            free_bytes(&file);
            exif.at[at] ^= 0xff;
        }
        struct bytes file = with_exif(i / 2, exif);
        for (size_t size = 8; size < file.size; size++) /* also within it */
            assert_refused(&file, size, i < 2 ? "cut short" : "cannot be decoded");
        free_bytes(&file);
        free_bytes(&exif);
        exif = make_exif(i % 2, 6, 2); /* no SHORT */
        check_turned(i / 2, exif, 1);
        free_bytes(&exif);
    }
}

/* Behind a marker without a length, libjpeg and the search for EXIF are out of step: that takes the
 * next marker for a length, and goes on within a comment, where EXIF is longer than the file. */
static void exif_ends_with_the_file(void **state) {
    static const uint8_t EXIF[] = "\xff\xe1\xff\0Exif\0\0MM\0*\0\0\xf0\0";
    enum { AFTER = 2 + 2 + 0xffe0, COMMENT = 14 };
    struct bytes plain = make_jpeg(WIDTH, HEIGHT, TJSAMP_444, 0), file = {0};
    uint8_t *comment = calloc(0xffff, 1);
    (void)state;
    memcpy(comment + AFTER - COMMENT - 4, EXIF, sizeof EXIF - 1);
    append(&file, "\xff\xd8\xff\x01\xff\xe0\0\x08......\xff\xfe\xff\xff", COMMENT + 4);
    append(&file, comment, 0xfffd);
    append(&file, plain.at + 2, plain.size - 2);
    struct picture picture = decoded(&file);
    assert_int_equal(picture.width, WIDTH);
    picture_free(&picture);
    free_bytes(&file);
    free_bytes(&plain);
    free(comment);
}

/* ---- what is too large ---- */

static long most_memory(void) {
    struct rusage used;
    assert_int_equal(getrusage(RUSAGE_SELF, &used), 0);
    return used.ru_maxrss; /* KiB */
}

static void bombs_do_not_go_off(void **state) {
    struct bytes bombs[] = {begin_png(60000, 60000, 8, 6), begin_png(60000, 60000, 1, 0),
                            begin_png(0x7fffffff, 0x7fffffff, 16, 6),
                            begin_png(PICTURE_MOST + 1, 1, 8, 2)};
    const long before = most_memory();
    (void)state;
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        append_zeros(&bombs[i], "IDAT", "", 0, 1 << 20);
        assert_refused(&bombs[i], bombs[i].size, "x ",
                       " pixels; at most 178956970 in all are read");
        free_bytes(&bombs[i]);
    }
    struct bytes jpeg = make_grey(65500, 65500, 1, (const uint8_t[]){0x11}, 1000, -1);
    assert_refused(&jpeg, jpeg.size, "has 65500 x 65500 pixels; at most 178956970 in all are read");
    free_bytes(&jpeg);
    assert_in_range(most_memory() - before, 0, 20000);
}

/* A profile and texts that would unpack to 7 MB each. */
static void what_stands_beside_the_picture_stays_packed(void **state) {
    enum { ZEROS = 7 << 20 };
    struct bytes file = begin_png(3, 2, 8, 2);
    (void)state;
    append_zeros(&file, "iCCP", "p\0", 3, ZEROS);
    for (int i = 0; i < 6; i++)
        append_zeros(&file, "zTXt", "t\0", 3, ZEROS);
    append_zeros(&file, "IDAT", "", 0, 2 * (1 + 3 * 3));
    append_zeros(&file, "iTXt", "t\0\1\0\0", 6, ZEROS);
    append_chunk(&file, "IEND", NULL, 0);
    /* in a process of its own, where making them has not taken more than reading them may */
    make_file("p", file.at, file.size);
    free_bytes(&file);
    const pid_t reader = fork();
    if (reader == 0) {
        struct picture picture;
        struct error error;
        const long before = most_memory();
        _exit(!picture_load(&picture, "p", &error) || most_memory() - before > 4000);
    }
    int status;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
}

static struct bytes with(const struct bytes *file, size_t at, const char *more, size_t size) {
    struct bytes longer = {0};
    append(&longer, file->at, at);
    append(&longer, more, size);
    append(&longer, file->at + at, file->size - at);
    return longer;
}

/* libjpeg warns of them, and no pixel depends on them. */
static void bytes_astray_are_no_harm(void **state) {
    (void)state;
    struct bytes file = make_jpeg(40, 30, TJSAMP_420, 0);
    struct picture picture = decoded(&file);
    const struct bytes longer[] = {with(&file, 20, "\1\2\3", 3), /* behind the JFIF segment */
                                   with(&file, file.size - 2, "\0\0\0", 3)};
    for (int i = 0; i < 2; i++) {
        struct picture same = decoded(&longer[i]);
        assert_memory_equal(same.pixels, picture.pixels, 40 * 30 * 3);
        for (size_t size = 3; size < longer[i].size; size++)
            refused(&longer[i], size);
        picture_free(&same);
        free(longer[i].at);
    }
    file.at[11] = 3; /* a version of JFIF that is still to come */
    struct picture same = decoded(&file);
    assert_memory_equal(same.pixels, picture.pixels, 40 * 30 * 3);
    picture_free(&same);
    for (size_t size = 3; size < file.size; size++)
        refused(&file, size);
    picture_free(&picture);
    free_bytes(&file);
}

/* It, too, is found out by libjpeg as bytes that are left over before the end. */
static void damage_is_refused(void **state) {
    (void)state;
    struct bytes file = make_jpeg(200, 150, TJSAMP_420, 0);
    for (size_t at = file.size / 2; at < file.size - 2; at += 97) {
        char junk[600];
        for (size_t i = 0; i < sizeof junk; i++)
            junk[i] = (char)((i * 7919 + at) % 251 + 1);
        struct bytes damaged = with(&file, at, junk, sizeof junk);
        refused(&damaged, damaged.size);
        free_bytes(&damaged);
    }
    free_bytes(&file);
}

/* ---- what is no picture ---- */

static void other_formats_are_named(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *found;
    } cases[] = {
        {"GIF89a\1\0\1\0", 10, "is a GIF picture; pictures that are read are PNG and JPEG"},
        {"RIFF\x24\0\0\0WEBPVP8 ", 16, "is a WebP picture"},
        {"BM\x46\0\0\0\0\0\0\0\x36\0\0\0(\0\0\0", 18, "is a BMP picture"},
        {"BMW is a car", 12, "begins with 'BMW is a' and is no picture"},
        {"II*\0\x08\0\0\0", 8, "is a TIFF picture"},
        {"MM\0*\0\0\0\x08", 8, "is a TIFF picture"},
        {"\0\0\0\x1c"
         "ftypavif\0\0\0\0",
         16, "is an AVIF picture"},
        {"\0\0\0\x18"
         "ftypheic\0\0\0\0",
         16, "is an HEIC picture"},
        {"\0\0\0\x18"
         "ftypmif1\0\0\0\0",
         16, "is an HEIC picture"},
        {"\xff\x0a\xfa\x1f", 4, "is a JPEG XL picture"},
        {"\0\0\0\x0c"
         "JXL \r\n\x87\n",
         12, "is a JPEG XL picture"},
        {"\0\0\0\x0c"
         "jP  \r\n\x87\n",
         12, "is a JPEG 2000 picture"},
        {"8BPS\0\1", 6, "is a Photoshop picture"},
        {"<svg xmlns=", 11, "is an SVG picture"},
        {"<?xml version=", 14, "begins with '<?xml ve' and is no picture"},
        {"", 0, "is empty; pictures that are read are PNG and JPEG"},
        {"hello\n", 6, "begins with the bytes 68 65 6c 6c 6f 0a and is no picture"},
        {"hello, world", 12, "begins with 'hello, w' and is no picture; pictures that are read"},
        {"\x89PNG\n\x1a\n", 7, "begins with the bytes 89 50 4e 47 0a 1a 0a and"}, /* as text */
        {"\xff\xd8", 2, "begins with the bytes ff d8 and is no picture"},
        {"RIFF\x24\0\0\0WEB", 11, "begins with the bytes 52 49 46 46 24 00 00 00 and"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes file = {0};
        append(&file, cases[i].bytes, cases[i].size);
        assert_refused(&file, file.size, cases[i].found);
        free_bytes(&file);
    }
}

static void names_of_pictures_are_known(void **state) {
    (void)state;
    static const char *const pictures[] = {"a.png", "a.PNG", "b.jpg", "c.JPEG", "d.x.webp", ".gif"};
    static const char *const others[] = {"png", "a.txt",     "a.png.txt", "a.",
                                         "",    "Thumbs.db", "a.jpgx"};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        assert_true(picture_has_name(pictures[i]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(picture_has_name(others[i]));
}

/* ---- files ---- */

static void refused_file(const char *path, const char *begin, const char *found) {
    struct picture picture;
    struct error error;
    assert_false(picture_load(&picture, path, &error));
    assert_says(&error, STATUS_DATA, begin, found);
    assert_null(picture.pixels);
}

static void load_7x5(const char *path) {
    struct picture picture;
    struct error error;
    assert_good(picture_load(&picture, path, &error), &error);
    assert_int_equal(picture.width * 10 + picture.height, 75);
    picture_free(&picture);
}

static void files_are_read_whatever_their_names(void **state) {
    struct bytes png = make_png(&RGB, WIDTH, HEIGHT, NO_EXIF);
    struct bytes jpeg = make_jpeg(WIDTH, HEIGHT, TJSAMP_420, 0);
    (void)state;
    make_file("a.jpg", png.at, png.size);
    make_file("b", jpeg.at, jpeg.size);
    load_7x5("a.jpg");
    load_7x5("b");
    make_file("c\033[31m.png", png.at, png.size - 1);
    refused_file("c\033[31m.png", "c?[31m.png: ", "cut short");
    make_file("d.png", "hello\033[31m", 10);
    refused_file("d.png", "d.png: begins with the bytes", "68 65 6c 6c 6f 1b 5b 33");
    make_file("e.png", "", 0);
    refused_file("e.png", "e.png: is empty", "PNG and JPEG");
    refused_file("none", "none: cannot be opened", "No such file");
    refused_file("", ": cannot be opened", "No such file");
    make_folder("folder");
    refused_file("folder", "folder: is a folder", "a regular file is expected");
    make_pipe("pipe");
    refused_file("pipe", "pipe: is a pipe", "a regular file is expected");
    cut_file("b", (off_t)PICTURE_LARGEST + 1); /* sparse */
    refused_file("b", "b: has 536870913 bytes", "at most 536870912 are read");
    cut_file("d.png", PICTURE_LARGEST);
    refused_file("d.png", "d.png: begins", "no picture");
    need_no_root();
    chmod("a.jpg", 0);
    refused_file("a.jpg", "a.jpg: cannot be opened", "Permission denied");
    free_bytes(&png);
    free_bytes(&jpeg);
}

static void standard_input_is_read_to_its_end(void **state) {
    struct bytes file = make_png(&RGB, WIDTH, HEIGHT, NO_EXIF);
    const int input = dup(STDIN_FILENO);
    (void)state;
    make_file("p", file.at, file.size);
    cut_file("p", 200000); /* zeros trail the picture */
    for (int i = 0; i < 4; i++) {
        static const char *const commands[] = {"cat p", "head -c 60 p", "true", "yes 2>&1"};
        static const char *const says[] = {NULL,
                                           "is a PNG picture that is cut short: it ends at byte 60",
                                           "is empty", "begins with the bytes 79 0a"};
        FILE *stream = popen(commands[i], "r");
        assert_non_null(stream);
        dup2(fileno(stream), STDIN_FILENO);
        if (says[i] == NULL)
            load_7x5("-");
        else
            refused_file("-", "standard input: ", says[i]);
        dup2(input, STDIN_FILENO);
        pclose(stream);
    }
    dup2(open(".", O_RDONLY), STDIN_FILENO);
    refused_file("-", "standard input: reading failed at byte 0", "Is a directory");
    dup2(input, STDIN_FILENO);
    free_bytes(&file);
}

/* ---- threads ---- */

static void *read_often(void *files) {
    for (int i = 0; i < 20; i++)
        for (int j = 0; j < 3; j++) {
            const struct bytes *file = (const struct bytes *)files + j;
            struct picture picture;
            struct error error;
            const bool good = picture_decode(&picture, file->at, file->size, "p", &error);
            uint8_t pixels[CIFAR10_PIXELS];
            if (good != (j < 2))
                return files;
            if (good)
                picture_fit(&picture, PICTURE_CENTER, pixels);
            picture_free(&picture);
        }
    return NULL;
}

static void threads_read_at_the_same_time(void **state) {
    enum { THREADS = 4 };
    struct bytes files[3] = {make_png(&RGB, WIDTH, HEIGHT, NO_EXIF),
                             make_jpeg(WIDTH, HEIGHT, TJSAMP_420, 0),
                             make_jpeg(WIDTH, HEIGHT, TJSAMP_420, 0)};
    pthread_t threads[THREADS];
    (void)state;
    files[2].size -= 2;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, files), 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    for (int i = 0; i < 3; i++)
        free_bytes(&files[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bombs_do_not_go_off), /* before anything takes as much memory */
        IN_SCRATCH(what_stands_beside_the_picture_stays_packed),
        cmocka_unit_test(every_kind_of_png_is_read),
        cmocka_unit_test(every_byte_of_a_png_counts),
        cmocka_unit_test(a_png_with_too_few_pixels_is_refused),
        cmocka_unit_test(jpegs_are_read_whole_or_not_at_all),
        cmocka_unit_test(bytes_astray_are_no_harm),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(jpegs_of_unusual_sampling_are_read),
        cmocka_unit_test(cmyk_is_refused),
        cmocka_unit_test(pictures_are_turned_as_exif_says),
        cmocka_unit_test(damaged_exif_is_not_looked_at),
        cmocka_unit_test(exif_ends_with_the_file),
        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(names_of_pictures_are_known),
        IN_SCRATCH(files_are_read_whatever_their_names),
        IN_SCRATCH(standard_input_is_read_to_its_end),
        cmocka_unit_test(threads_read_at_the_same_time),
    };
    leave_root();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
