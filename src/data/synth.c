#include "data/synth.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* The bytes must be the same on every machine. So there is no function here whose last bit is a
 * library's choice (sin, pow), and no two random draws stand in one expression, whose order would
 * be the compiler's choice. */

enum { SIDE = CIFAR10_SIDE, AREA = SIDE * SIDE };

enum kind { DISC, RING, SQUARE, TRIANGLE, CROSS, STAR, CRESCENT, HEART, ARROW, DROP };

/* In the order of enum kind. */
const struct cifar10_names synth_names = {
    {"disc", "ring", "square", "triangle", "cross", "star", "crescent", "heart", "arrow", "drop"}};

bool synth_has_names(const struct cifar10_names *names) {
    return cifar10_compare_names(names, &synth_names) == CIFAR10_CLASSES;
}

bool synth_has_labels(const struct cifar10 *images) {
    bool varied = false;
    unsigned seen = 0; /* of the labels in these ten, a bit each */
    for (int64_t i = 0; i < images->count; i++) {
        const uint8_t *record = images->records + i * CIFAR10_RECORD;
        seen = i % CIFAR10_CLASSES == 0 ? 0 : seen;
        if (seen >> record[0] & 1)
            return false;
        seen |= 1U << record[0];
        varied = varied || (i >= CIFAR10_CLASSES &&
                            record[0] != *(record - CIFAR10_CLASSES * CIFAR10_RECORD));
    }
    return varied && images->count >= 2 * CIFAR10_CLASSES;
}

/* Random numbers: SplitMix64 (Steele, Lea and Flood, 2014), which starts anywhere at no cost, so
 * that every image can have a stream of its own. */

static uint64_t scramble(uint64_t bits) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9U;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebU;
    return bits ^ (bits >> 31);
}

static uint64_t draw(uint64_t *stream) {
    *stream += 0x9e3779b97f4a7c15U;
    return scramble(*stream);
}

static int below(uint64_t *stream, int limit) {
    return (int)(draw(stream) % (uint64_t)limit);
}

static double between(uint64_t *stream, double low, double high) {
    return low + (high - low) * ((double)(draw(stream) >> 11) * 0x1p-53);
}

enum purpose { FOR_LABELS, FOR_PIXELS };

/* For one seed, no two streams begin at the same state: scramble() is a bijection. */
static uint64_t stream_of(uint64_t seed, enum cifar10_part part, enum purpose purpose,
                          int64_t index) {
    return scramble(scramble(seed) + 4 * (uint64_t)index + 2 * (uint64_t)part + (uint64_t)purpose);
}

/* The label of image `index`: every ten images are the ten kinds, shuffled. */
static int label_of(uint64_t seed, enum cifar10_part part, int64_t index) {
    uint64_t stream = stream_of(seed, part, FOR_LABELS, index / CIFAR10_CLASSES);
    int labels[CIFAR10_CLASSES] = {0};
    for (int i = 0; i < CIFAR10_CLASSES; i++) {
        int j = below(&stream, i + 1);
        labels[i] = labels[j];
        labels[j] = i;
    }
    return labels[index % CIFAR10_CLASSES];
}

/* A pentagram: of the five lines along its edges, a point of the star is beyond one at most. */
static bool in_star(double x, double y) {
    static const double normal[5][2] = {{0, -1},
                                        {0.9510565162951535, -0.3090169943749475},
                                        {0.5877852522924731, 0.8090169943749475},
                                        {-0.5877852522924731, 0.8090169943749475},
                                        {-0.9510565162951535, -0.3090169943749475}};
    int beyond = 0;
    for (int i = 0; i < 5; i++)
        beyond += x * normal[i][0] + y * normal[i][1] > 0.34;
    return beyond <= 1;
}

/* Whether a point lies in a shape, which is about as large as the unit disc, with y upwards; a
 * `build` of 0..1 goes from its slimmest to its stoutest form. */
static bool inside(enum kind kind, double x, double y, double build) {
    const double wide = fabs(x), square = x * x + y * y;
    switch (kind) {
    case DISC:
        return square < 0.8;
    case RING:
        return square < 0.9 && square > 0.5 - 0.35 * build;
    case SQUARE:
        return fmax(wide, fabs(y)) < 0.78;
    case TRIANGLE:
        return y > -0.7 && wide < (0.5 + 0.15 * build) * (1 - y);
    case CROSS:
        return fmax(wide, fabs(y)) < 0.95 && fmin(wide, fabs(y)) < 0.2 + 0.15 * build;
    case STAR:
        return in_star(x, y);
    case CRESCENT: {
        double shift = 0.4 + 0.25 * build;
        return square < 1 && square - 2 * shift * x + shift * shift > 0.72;
    }
    case HEART: {
        double lobe = 1.45 * square - 1;
        return lobe * lobe * lobe < 2.5 * x * x * y * y * y;
    }
    case ARROW: /* the head or the shaft */
        return y > 0 ? wide < 0.8 * (1 - y) : y > -0.95 && wide < 0.16 + 0.14 * build;
    case DROP:
        return x * x < (0.22 + 0.06 * build) * (1 - y) * (1 - y) * (1 - y) * (1 + y);
    }
    return false;
}

/* Angles, as cosine and sine. */

struct turn {
    double cosine, sine;
};

/* A turn clockwise by twice the angle whose tangent is in -limit..limit: with limit 1 a quarter
 * turn at most either way, which is all that a figure that looks the same upside down needs. */
static struct turn random_turn(uint64_t *stream, double limit) {
    double tangent = between(stream, -limit, limit);
    double square = tangent * tangent;
    return (struct turn){(1 - square) / (1 + square), 2 * tangent / (1 + square)};
}

/* Paint: two colours, mixed at every pixel as a pattern says. */

struct colour {
    double channel[CIFAR10_CHANNELS]; /* 0..1; a gradient may leave these limits a little */
};

enum pattern { GRADIENT, CLOUDS, STRIPES, CHECKS, PATTERNS };

struct paint {
    struct colour from, to;
    enum pattern pattern;
    struct turn turn;
    double period; /* pixels */
    uint64_t key;  /* of the clouds */
};

static struct colour random_colour(uint64_t *stream) {
    struct colour colour;
    for (int c = 0; c < CIFAR10_CHANNELS; c++)
        colour.channel[c] = between(stream, 0, 1);
    return colour;
}

static struct colour mixed(struct colour from, struct colour to, double share) {
    for (int c = 0; c < CIFAR10_CHANNELS; c++)
        from.channel[c] += (to.channel[c] - from.channel[c]) * share;
    return from;
}

/* Whether two colours are farther apart than `limit`. */
static bool distinct(struct colour one, struct colour other, double limit) {
    double sum = 0;
    for (int c = 0; c < CIFAR10_CHANNELS; c++) {
        double difference = one.channel[c] - other.channel[c];
        sum += difference * difference;
    }
    return sum > limit * limit;
}

static struct paint random_paint(uint64_t *stream, struct colour colour, double variety) {
    struct paint paint = {.from = colour};
    paint.to = mixed(colour, random_colour(stream), variety);
    paint.pattern = (enum pattern)below(stream, PATTERNS);
    paint.turn = random_turn(stream, 1);
    paint.period = between(stream, 4, 12);
    paint.key = draw(stream);
    return paint;
}

/* Smooth noise: random values at the corners of a grid, blended in between. */
static double clouds_at(uint64_t key, double x, double y) {
    double column = floor(x), row = floor(y);
    double corner[4];
    for (int i = 0; i < 4; i++) {
        int64_t at = ((int64_t)row + i / 2) * SIDE + (int64_t)column + i % 2;
        uint64_t stream = key + (uint64_t)at;
        corner[i] = between(&stream, 0, 1);
    }
    double u = x - column, v = y - row;
    u *= u * (3 - 2 * u);
    v *= v * (3 - 2 * v);
    double upper = corner[0] + (corner[1] - corner[0]) * u;
    double lower = corner[2] + (corner[3] - corner[2]) * u;
    return upper + (lower - upper) * v;
}

/* A triangle wave of period 1, from 0 to 1 and back. */
static double wave(double x) {
    return fabs(2 * (x - floor(x)) - 1);
}

static struct colour paint_at(const struct paint *paint, double x, double y) {
    double along = x * paint->turn.cosine + y * paint->turn.sine;
    double across = (y * paint->turn.cosine - x * paint->turn.sine) / paint->period;
    double share = 0.5 + along / SIDE;
    along /= paint->period;
    if (paint->pattern == CLOUDS)
        share = clouds_at(paint->key, along, across);
    else if (paint->pattern == STRIPES)
        share = wave(along);
    else if (paint->pattern == CHECKS)
        share = (wave(along) > 0.5) == (wave(across) > 0.5);
    return mixed(paint->from, paint->to, share);
}

/* Images */

struct pose {
    double x, y; /* the shape's centre, in pixels from the image's centre */
    struct turn turn;
    double width, height; /* what a length of 1 along the shape's axes is in pixels */
    double build;
};

/* How much of the unit pixel around a point the shape covers, by a grid of nine points. */
static double coverage(enum kind kind, struct pose pose, double x, double y) {
    const double cosine = pose.turn.cosine, sine = pose.turn.sine;
    const double across = 1 / pose.width, up = 1 / pose.height;
    const double centre_x = (x * cosine + y * sine) * across;
    const double centre_y = (x * sine - y * cosine) * up;
    /* No shape reaches beyond 1.2, and no point of a pixel is farther from its centre than 1. */
    if (fabs(centre_x) > 1.2 + across || fabs(centre_y) > 1.2 + up)
        return 0;
    int hits = 0;
    for (int row = -1; row <= 1; row++)
        for (int column = -1; column <= 1; column++) {
            double shape_x = centre_x + (column * cosine + row * sine) * (across / 3);
            double shape_y = centre_y + (column * sine - row * cosine) * (up / 3);
            hits += inside(kind, shape_x, shape_y, pose.build);
        }
    return hits / 9.0;
}

static void stamp(struct colour image[AREA], enum kind kind, struct pose pose, struct paint paint) {
    for (int i = 0; i < AREA; i++) {
        double x = i % SIDE + 0.5 - SIDE / 2 - pose.x;
        double y = i / SIDE + 0.5 - SIDE / 2 - pose.y;
        double share = coverage(kind, pose, x, y);
        if (share > 0)
            image[i] = mixed(image[i], paint_at(&paint, x, y), share);
    }
}

static struct pose random_pose(uint64_t *stream) {
    struct pose pose;
    pose.turn = random_turn(stream, 0.4);
    double size = between(stream, 7, 12);
    double aspect = between(stream, 0.8, 1.25);
    double margin = SIDE / 2 - size;
    pose.width = size * aspect;
    pose.height = size / aspect;
    pose.x = between(stream, -margin, margin);
    pose.y = between(stream, -margin, margin);
    pose.build = between(stream, 0, 1);
    return pose;
}

/* Blobs and bars, too small to be what the image shows. */
static void stamp_clutter(struct colour image[AREA], uint64_t *stream, int count) {
    for (int i = 0; i < count; i++) {
        bool bar = below(stream, 2) == 1;
        struct pose pose = {0};
        pose.turn = random_turn(stream, 1);
        pose.x = between(stream, -SIDE / 2, SIDE / 2);
        pose.y = between(stream, -SIDE / 2, SIDE / 2);
        pose.width = bar ? between(stream, 4, 12) : between(stream, 1, 3);
        pose.height = bar ? between(stream, 0.5, 1.2) : pose.width;
        struct paint paint = random_paint(stream, random_colour(stream), 0.3);
        stamp(image, bar ? SQUARE : DISC, pose, paint);
    }
}

/* The three figures, and the sizes above, set how hard the data set is: with them the program's
 * network is right on about 89 % of the test images after five epochs. */
static void draw_image(uint8_t pixels[CIFAR10_PIXELS], enum kind kind, uint64_t stream) {
    const double variety = 0.5, least_contrast = 0.25, most_noise = 0.25;
    struct colour image[AREA];
    struct paint ground = random_paint(&stream, random_colour(&stream), variety);
    for (int i = 0; i < AREA; i++)
        image[i] = paint_at(&ground, i % SIDE - SIDE / 2, i / SIDE - SIDE / 2);
    stamp_clutter(image, &stream, below(&stream, 6));

    struct pose pose = random_pose(&stream);
    struct colour colour = random_colour(&stream);
    while (!distinct(colour, ground.from, least_contrast) ||
           !distinct(colour, ground.to, least_contrast))
        colour = random_colour(&stream);
    struct paint paint = random_paint(&stream, colour, variety);
    stamp(image, kind, pose, paint);
    stamp_clutter(image, &stream, below(&stream, 4));

    double noise = between(&stream, 0, most_noise);
    for (int i = 0; i < CIFAR10_PIXELS; i++) {
        double value = image[i % AREA].channel[i / AREA] + between(&stream, -noise, noise);
        value = value < 0 ? 0 : value > 1 ? 1 : value;
        pixels[i] = (uint8_t)(value * 255 + 0.5);
    }
}

void synth_draw(struct cifar10 *images, enum cifar10_part part, int64_t count, uint64_t seed) {
    images->records = memory_new((size_t)count, CIFAR10_RECORD);
    images->count = count;
    images->classes = CIFAR10_CLASSES;
    for (int64_t i = 0; i < count; i++) {
        uint8_t *record = images->records + i * CIFAR10_RECORD;
        record[0] = (uint8_t)label_of(seed, part, i);
        draw_image(record + 1, (enum kind)record[0], stream_of(seed, part, FOR_PIXELS, i));
    }
}
