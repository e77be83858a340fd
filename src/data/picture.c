#include "data/picture.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <png.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <turbojpeg.h>
#include <unistd.h>

/* The fuzzer would find nothing but large pictures. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { MOST = 1 << 14 };
#else
enum { MOST = PICTURE_MOST };
#endif

/* A picture's file, in memory. */
struct source {
    const char *name;
    const uint8_t *bytes;
    size_t size, at; /* `at`: as far as it has been read */
    struct error *error;
};

/* The error of a source. */
#define refuse(source, ...)                                                                        \
    error_set_file((source)->error, STATUS_DATA, (source)->name, __VA_ARGS__)

/* ---- formats ---- */

enum format { NONE, PNG, JPEG, OTHER };

#define BYTES(text) sizeof text - 1, text

/* Which bytes tell a format, and where. */
static const struct {
    enum format format;
    size_t at, size;
    const char *bytes, *name;
} FORMATS[] = {
    {PNG, 0, BYTES("\x89PNG\r\n\x1a\n"), "a PNG"},
    {JPEG, 0, BYTES("\xff\xd8\xff"), "a JPEG"},
    {OTHER, 0, BYTES("GIF8"), "a GIF"},
    {OTHER, 8, BYTES("WEBP"), "a WebP"},
    {OTHER, 14, BYTES("(\0\0\0"), "a BMP"},
    {OTHER, 0, BYTES("II*\0"), "a TIFF"},
    {OTHER, 0, BYTES("MM\0*"), "a TIFF"},
    {OTHER, 4, BYTES("ftypavi"), "an AVIF"},
    {OTHER, 4, BYTES("ftyphei"), "an HEIC"},
    {OTHER, 4, BYTES("ftyphev"), "an HEIC"},
    {OTHER, 4, BYTES("ftypmif1"), "an HEIC"},
    {OTHER, 4, BYTES("JXL "), "a JPEG XL"},
    {OTHER, 0, BYTES("\xff\x0a"), "a JPEG XL"},
    {OTHER, 4, BYTES("jP  "), "a JPEG 2000"},
    {OTHER, 0, BYTES("8BPS"), "a Photoshop"},
    {OTHER, 0, BYTES("<svg"), "an SVG"},
};
enum { BEGINNING = 18 }; /* bytes that tell all of them */

bool picture_has_name(const char *name) {
    static const char *const ENDINGS[] = {"png",  "jpg", "jpeg", "jpe",  "jfif", "gif",
                                          "webp", "bmp", "tif",  "tiff", "heic", "heif",
                                          "avif", "jxl", "jp2",  "psd",  "svg"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof ENDINGS / sizeof *ENDINGS; i++)
        if (strcasecmp(dot + 1, ENDINGS[i]) == 0)
            return true;
    return false;
}

#define READ "pictures that are read are PNG and JPEG"

/* What does not begin as a picture: its first bytes, as text if they are. */
static bool refuse_beginning(const struct source *s) {
    char text[32] = "";
    bool printable = true;
    const size_t shown = s->size < 8 ? s->size : 8;
    if (s->size == 0)
        return refuse(s, "is empty; " READ);
    for (size_t i = 0; i < shown; i++)
        printable = printable && s->bytes[i] >= ' ' && s->bytes[i] <= '~';
    for (size_t i = 0; i < shown; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), printable ? "%c" : " %02x",
                 s->bytes[i]);
    return refuse(s, "begins with %s%s%s and is no picture; " READ, printable ? "'" : "the bytes",
                  text, printable ? "'" : "");
}

/* PNG or JPEG; else NONE, and the error says what it is instead. */
static enum format format_of(const struct source *s) {
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++) {
        const size_t at = FORMATS[i].at, size = FORMATS[i].size;
        if (s->size < at + size || memcmp(s->bytes + at, FORMATS[i].bytes, size) != 0)
            continue;
        if (FORMATS[i].format != OTHER)
            return FORMATS[i].format;
        refuse(s, "is %s picture; " READ, FORMATS[i].name);
        return NONE;
    }
    refuse_beginning(s);
    return NONE;
}

/* Held by whoever has a large picture: many threads would need more memory than there is. */
static pthread_mutex_t large = PTHREAD_MUTEX_INITIALIZER;

/* Before there is memory for its pixels. */
static bool set_size(struct picture *picture, int width, int height, const struct source *s) {
    const uint64_t pixels = (uint64_t)width * (uint64_t)height;
    picture->width = width;
    picture->height = height;
    if (pixels > MOST)
        return refuse(s, "has %d x %d pixels; at most %d in all are read", width, height, MOST);
    picture->alone = pixels > PICTURE_ALONE;
    if (picture->alone)
        pthread_mutex_lock(&large);
    return true;
}

/* ---- EXIF: which way up the camera was held, in a TIFF's first directory ---- */

static unsigned number(const uint8_t *at, int size, bool little) {
    unsigned value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | at[little ? size - 1 - i : i];
    return value;
}

/* 1 to 8, as EXIF counts; 1, the usual, where it says nothing that makes sense. */
static int orientation_of(const uint8_t *tiff, size_t size) {
    enum { ENTRY = 12, ORIENTATION = 0x0112, SHORT = 3 };
    if (size < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0))
        return 1;
    const bool little = tiff[0] == 'I';
    const size_t directory = number(tiff + 4, 4, little);
    if (directory > size - 2)
        return 1;
    const unsigned entries = number(tiff + directory, 2, little);
    for (size_t i = 0; i < entries; i++) {
        const size_t at = directory + 2 + i * ENTRY;
        if (at + ENTRY > size)
            return 1;
        if (number(tiff + at, 2, little) != ORIENTATION)
            continue;
        const unsigned value = number(tiff + at + 8, 2, little);
        return number(tiff + at + 2, 2, little) == SHORT && value >= 1 && value <= 8 ? (int)value
                                                                                     : 1;
    }
    return 1;
}

/* Turns the picture upright. */
static void turn(struct picture *picture, int orientation) {
    const bool swapped = orientation >= 5; /* across becomes down */
    const bool from_right = orientation == 2 || orientation == 3 || orientation >= 7;
    const bool from_below =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const int width = picture->width, height = picture->height;
    struct picture turned = {swapped ? height : width, swapped ? width : height, picture->alone,
                             NULL};
    if (orientation == 1)
        return;
    turned.pixels = memory_take((size_t)width * (size_t)height * 3);
    uint8_t *to = turned.pixels;
    for (int i = 0; i < turned.height; i++)
        for (int j = 0; j < turned.width; j++, to += 3) {
            const int x = swapped ? i : j, y = swapped ? j : i;
            const size_t column = (size_t)(from_right ? width - 1 - x : x);
            const size_t row = (size_t)(from_below ? height - 1 - y : y);
            memcpy(to, picture->pixels + (row * (size_t)width + column) * 3, 3);
        }
    free(picture->pixels);
    *picture = turned;
}

/* ---- PNG ---- */

struct png_reading {
    struct source *source;
    png_structp png;
    png_infop info;
    uint8_t *row; /* one that is still transparent */
};

/* libpng's errors leave read_png() by longjmp(), so what is to be freed lies outside of it. */
static void take_png_error(png_structp png, png_const_charp message) {
    const struct png_reading *r = png_get_error_ptr(png);
    refuse(r->source, "is a damaged PNG picture: %s", message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

/* Where there is no memory, it is not the picture that is wrong. */
static png_voidp take_memory(png_structp png, png_alloc_size_t size) {
    (void)png;
    return memory_take(size);
}

static void free_memory(png_structp png, png_voidp memory) {
    (void)png;
    free(memory);
}

static void read_source(png_structp png, png_bytep bytes, size_t size) {
    struct source *s = ((const struct png_reading *)png_get_io_ptr(png))->source;
    if (size > s->size - s->at) {
        refuse(s, "is a PNG picture that is cut short: it ends at byte %zu", s->size);
        png_longjmp(png, 1);
    }
    memcpy(bytes, s->bytes + s->at, size);
    s->at += size;
}

/* `to` may be `from`. */
static void lay_on_white(uint8_t *to, const uint8_t *from, int width) {
    for (int x = 0; x < width; x++, from += 4)
        for (int c = 0, alpha = from[3]; c < 3; c++)
            *to++ = (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
}

/* A row is there at once, or, in an interlaced picture, after seven passes: such a one must be kept
 * whole with its transparency. */
static void read_rows(struct png_reading *r, struct picture *picture, int passes) {
    const size_t width = (size_t)picture->width, height = (size_t)picture->height;
    const size_t channels = png_get_channels(r->png, r->info);
    const bool whole = passes > 1 || channels == 3;
    picture->pixels = memory_take(width * height * (whole ? channels : 3));
    if (!whole)
        r->row = memory_take(width * channels);
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < height; y++) {
            uint8_t *row = whole ? picture->pixels + y * width * channels : r->row;
            png_read_row(r->png, row, NULL);
            if (channels == 4 && pass == passes - 1)
                lay_on_white(picture->pixels + y * width * 3, row, picture->width);
        }
}

static bool read_png(struct png_reading *r, struct picture *picture) {
    if (setjmp(png_jmpbuf(r->png)) != 0)
        return false;
    png_set_read_fn(r->png, r, read_source);
    png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* set_size() has its own */
    /* No profile, no text that stands beside the picture is unpacked, or takes memory. */
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    png_set_crc_action(r->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
#endif
    png_read_info(r->png, r->info);
    if (!set_size(picture, (int)png_get_image_width(r->png, r->info),
                  (int)png_get_image_height(r->png, r->info), r->source))
        return false;
    png_set_expand(r->png);
    png_set_scale_16(r->png);
    png_set_gray_to_rgb(r->png);
    const int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    read_rows(r, picture, passes);
    png_read_end(r->png, r->info);
    return true;
}

/* The orientation in the eXIf chunk. (libpng's reader would take as much memory as it says.) */
static int png_orientation(const struct source *s) {
    enum { AROUND = 12 }; /* bytes of a chunk's length, name and checksum */
    for (size_t at = 8; s->size - at >= AROUND;) {
        const uint8_t *chunk = s->bytes + at;
        const size_t length = number(chunk, 4, false);
        if (length > s->size - at - AROUND || memcmp(chunk + 4, "IEND", 4) == 0)
            break;
        if (memcmp(chunk + 4, "eXIf", 4) == 0)
            return orientation_of(chunk + 8, length);
        at += AROUND + length;
    }
    return 1;
}

static bool decode_png(struct picture *picture, struct source *source) {
    struct png_reading r = {.source = source};
    r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r, take_png_error, ignore_warning,
                                     NULL, take_memory, free_memory);
    r.info = r.png != NULL ? png_create_info_struct(r.png) : NULL;
    const bool good =
        r.info != NULL ? read_png(&r, picture) : refuse(source, "libpng does not start");
    png_destroy_read_struct(&r.png, &r.info, NULL);
    free(r.row);
    return good;
}

/* ---- JPEG ---- */

/* The next segment's marker before the first scan, from `at` on; what is none is passed over. Its
 * bytes are `size`, with the marker's two. 0: there is none. */
static int next_segment(const struct source *s, size_t *at, size_t *size) {
    enum { SCAN = 0xda, LAST = 0xfe };
    for (; *at + 4 <= s->size; ++*at) {
        const uint8_t *segment = s->bytes + *at;
        if (segment[0] != 0xff || segment[1] < 0xc0 || segment[1] > LAST)
            continue;
        *size = 2 + number(segment + 2, 2, false);
        return segment[1] == SCAN || *size > s->size - *at ? 0 : segment[1];
    }
    return 0;
}

/* The orientation in the first segment that is EXIF's. */
static int jpeg_orientation(const struct source *s) {
    enum { APP1 = 0xe1 };
    size_t size;
    int marker;
    for (size_t at = 2; (marker = next_segment(s, &at, &size)) != 0; at += size)
        if (marker == APP1 && size >= 10 && memcmp(s->bytes + at + 4, "Exif\0", 6) == 0)
            return orientation_of(s->bytes + at + 10, size - 10);
    return 1;
}

/* Copies a file without what libjpeg warns of though no pixel depends on it: bytes astray between
 * the segments, zeros before the end, a version of JFIF that it does not know. Answers the size. */
static size_t mend_jpeg(uint8_t *to, const struct source *s) {
    enum { APP0 = 0xe0, VERSION = 9 };
    size_t used = 2, at = 2, end = s->size, size;
    int marker;
    memcpy(to, s->bytes, 2);
    for (; (marker = next_segment(s, &at, &size)) != 0; at += size, used += size) {
        memcpy(to + used, s->bytes + at, size);
        if (marker == APP0 && size > VERSION && memcmp(s->bytes + at + 4, "JFIF", 5) == 0)
            to[used + VERSION] = 1;
    }
    while (end >= at + 2 && memcmp(s->bytes + end - 2, "\xff\xd9", 2) != 0)
        end--;
    for (end -= end >= at + 2 ? 2 : 0; end > at && s->bytes[end - 1] == 0; end--)
        ;
    memcpy(to + used, s->bytes + at, end - at);
    memcpy(to + used + end - at, "\xff\xd9", 2);
    return used + end - at + 2;
}

/* libjpeg's warnings are errors here: as a rule they are of what it invents for what is missing. */
static bool decode_strictly(tjhandle jpeg, struct picture *picture, const uint8_t *bytes,
                            size_t size) {
    const int flags = TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS; /* no bomb of endless scans */
    return tjDecompress2(jpeg, bytes, size, picture->pixels, 0, 0, 0, TJPF_RGB, flags) == 0;
}

static bool read_jpeg(tjhandle jpeg, struct picture *picture, const struct source *s) {
    int width = 0, height = 0, sampling, colours = -1;
    const int failed =
        tjDecompressHeader3(jpeg, s->bytes, s->size, &width, &height, &sampling, &colours);
    /* It complains, too, of a sampling for which it has no name, but can be read. */
    if (failed && (width < 1 || height < 1 || colours < 0))
        return refuse(s, "is a JPEG picture that cannot be decoded: %s", tjGetErrorStr2(jpeg));
    if (colours == TJCS_CMYK || colours == TJCS_YCCK)
        return refuse(s, "is a CMYK picture, as printers use; save it as RGB");
    if (!set_size(picture, width, height, s))
        return false;
    picture->pixels = memory_take((size_t)width * (size_t)height * 3);
    bool good = decode_strictly(jpeg, picture, s->bytes, s->size);
    if (!good && (strstr(tjGetErrorStr2(jpeg), "extraneous bytes") != NULL ||
                  strstr(tjGetErrorStr2(jpeg), "unknown JFIF revision") != NULL)) {
        uint8_t *mended = memory_take(s->size + 2);
        good = decode_strictly(jpeg, picture, mended, mend_jpeg(mended, s));
        free(mended);
    }
    return good || refuse(s, "is a JPEG picture that cannot be decoded: %s", tjGetErrorStr2(jpeg));
}

static bool decode_jpeg(struct picture *picture, struct source *source) {
    tjhandle jpeg = tjInitDecompress();
    if (jpeg == NULL)
        return refuse(source, "libturbojpeg does not start: %s", tjGetErrorStr2(NULL));
    const bool good = read_jpeg(jpeg, picture, source);
    tjDestroy(jpeg);
    return good;
}

/* ---- both ---- */

bool picture_decode(struct picture *picture, const uint8_t *bytes, size_t size, const char *name,
                    struct error *error) {
    struct source source = {name, bytes, size, 0, error};
    *picture = (struct picture){0};
    const enum format format = format_of(&source);
    if (format == PNG && decode_png(picture, &source))
        turn(picture, png_orientation(&source));
    else if (format == JPEG && decode_jpeg(picture, &source))
        turn(picture, jpeg_orientation(&source));
    else
        picture_free(picture);
    return picture->pixels != NULL;
}

/* Reads a file into memory, if it begins as a picture does. */
static bool read_file(uint8_t **bytes, size_t *size, const char *path, struct error *error) {
    struct file file;
    struct source s = {.name = path, .error = error};
    if (!file_open(&file, path, STATUS_DATA, error))
        return false;
    *size = file.size;
    s.size = file.size < BEGINNING ? file.size : BEGINNING;
    bool good =
        file.size <= PICTURE_LARGEST ||
        refuse(&s, "has %zu bytes; pictures of at most %d are read", file.size, PICTURE_LARGEST);
    if (good) {
        s.bytes = *bytes = memory_take(file.size + 1); /* touched as far as it is read */
        good = file_read(&file, *bytes, s.size, error) && format_of(&s) != NONE &&
               file_read(&file, *bytes + s.size, file.size - s.size, error);
    }
    file_close(&file);
    return good;
}

static bool read_input(uint8_t **bytes, size_t *size, const char *name, struct error *error) {
    size_t room = 1 << 16;
    struct source s = {.name = name, .error = error};
    *bytes = memory_take(room);
    for (ssize_t got;
         (got = TEMP_FAILURE_RETRY(read(STDIN_FILENO, *bytes + *size, room - *size))) != 0;) {
        if (got < 0)
            return refuse(&s, "reading failed at byte %zu: %s", *size, strerror(errno));
        s.bytes = *bytes;
        s.size = *size += (size_t)got;
        if (s.size >= BEGINNING && format_of(&s) == NONE)
            return false;
        if (*size > PICTURE_LARGEST)
            return refuse(&s, "has more than %d bytes, the most that are read", PICTURE_LARGEST);
        if (*size == room)
            *bytes = memory_resize(*bytes, room *= 2);
    }
    return true;
}

bool picture_load(struct picture *picture, const char *path, struct error *error) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    const bool input = strcmp(path, "-") == 0;
    const char *name = input ? "standard input" : path;
    *picture = (struct picture){0};
    const bool good = (input ? read_input : read_file)(&bytes, &size, name, error) &&
                      picture_decode(picture, bytes, size, name, error);
    free(bytes);
    return good;
}

void picture_free(struct picture *picture) {
    free(picture->pixels);
    if (picture->alone)
        pthread_mutex_unlock(&large);
    *picture = (struct picture){0};
}
