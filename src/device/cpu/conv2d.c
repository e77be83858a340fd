/* The convolutions, by Toom and Cook's method along the rows, which needs 2.5 times fewer
 * multiplications than the definition.
 *
 * For one column of a kernel, four rows of y depend on eight rows of x (kernel 5):
 *
 *     y[r] = sum over k of w[k] x[r + k],    r = 0..3, k = 0..4
 *
 * That is a product of polynomials, turned round, and such a product is known from its values at
 * eight points: 0, infinity, 1, -1, 2, -2, 1/2, -1/2. So, with eight numbers for each column:
 *
 *     V[p] = weighted sum of the eight x      (`values_of_input`: the inverse of "take the values")
 *     U[p] = value of w at p, times a factor  (`values_at`)
 *     y[r] = sum over p of p^r U[p] V[p]      (`sums_of_powers`)
 *
 * which takes 8 products instead of 20. In the other direction the same numbers give the gradient
 * of the weights: with D[p] = value of dy at p, dU[p] = sum of D[p] V[p] over everything, and dw[k]
 * = sum over p of p^k factor[p] dU[p]. Lavin and Gray ("Fast Algorithms for Convolutional Neural
 * Networks", 2015) do this in rows and columns at once. In rows alone the rounding stays within
 * about twice that of the plain sum (tests/device/layers_test.c holds it), and each step is an
 * operation on whole rows, so vectors run along them: over columns and images alike. Both at once
 * was tried: a tenth faster, but with three times the rounding, which ten steps of training carry
 * to 1e-3 of the loss.
 *
 * Eight values serve any kernel from 1 to 8: y then has 9 - kernel rows in a group.
 *
 *        eight rows of x            values V[p], p = 0..7            M[p] = sum over channels
 *      +------------------+       +------------------+ -+           and columns of U[p] V[p]
 *      |                  |       |        [tile]....|  | in
 *      |  in channels     |  -->  |        same tile,|  | channels     +------+
 *      |                  |       |        shifted by|  |        -->   | tile | x out channels
 *      +------------------+       |        a column  | -+              +------+  x 8 values
 *                                 +------------------+ x 8                 |
 *                                                                          v
 *                                                              up to 9 - kernel rows of y
 *
 * A tile is TILE_OUT channels x TILE_VECTORS vectors of sums, which stay in registers while the
 * input channels and the kernel's columns pass by: for each of these TILE_VECTORS loads, TILE_OUT
 * weights that are spread over the lanes, and as many multiply-adds as there are sums.
 *
 * The gradient of the images is a convolution of dy with the turned kernels. */
#include "cpu.h"
#include "vector.h"

#include <omp.h>
#include <stdint.h>

enum {
    PAIRS = 4, /* of points: 0 and infinity, 1 and -1, 2 and -2, 1/2 and -1/2 */
    POINTS = 2 * PAIRS,
#if LANES == 16
    TILE_OUT = 12, /* with TILE_VECTORS 24 sums, of 32 registers */
#else
    TILE_OUT = 6, /* 12 sums, of 16 registers */
#endif
    TILE_VECTORS = 2,
    TILE = TILE_VECTORS * LANES,
    CHUNK = 4 * TILE, /* floats of a row of M that are kept for all points at once */
    AHEAD = 3,        /* so many channels of y before it is written, its lines are fetched */
    GRADIENT_OUT = 4, /* the tile of the weight gradient: 12 sums */
    GRADIENT_TAPS = 3,
    GRADIENT_FLOATS = 3 << 14, /* of V and D together, which should fit in a second-level cache */
    RANGES = 8, /* a batch's share of a weight gradient is added up in at most so many ranges */
};

/* ---- polynomials ---- */

/* In the tables an index is a pair; the first is 0 and infinity and treated apart. */
static const float POWER[PAIRS][POINTS] = {
    {0},
    {1, 1, 1, 1, 1, 1, 1, 1},
    {1, 2, 4, 8, 16, 32, 64, 128},
    {1, 0.5F, 0.25F, 0.125F, 0.0625F, 0.03125F, 0.015625F, 0.0078125F},
};
static const float FACTOR[PAIRS] = {1, -2 / 9.0F, 1 / 90.0F, 32 / 45.0F};
static const float EVEN[PAIRS][3] = {{0}, {1, -4.25F, 1}, {0.25F, -1.25F, 1}, {4, -5, 1}};
static const float ODD[PAIRS][3] = {{0}, {1, -4.25F, 1}, {0.5F, -2.5F, 2}, {2, -2.5F, 0.5F}};

/* The values of the polynomial with the coefficients c at both points of a pair; at infinity that
 * is the last coefficient. */
static inline void values_at(vector value[2], const vector *c, int terms, int pair) {
    if (pair == 0) {
        value[0] = c[0];
        value[1] = c[terms - 1];
        return;
    }
    vector even = c[0], odd = {0};
    for (int k = 1; k < terms; k++)
        *(k % 2 == 0 ? &even : &odd) += POWER[pair][k] * c[k];
    value[0] = even + odd;
    value[1] = even - odd;
}

/* sum[k] = the sum over all points of value * point^k, the transpose of values_at(). */
static inline void sums_of_powers(vector *sum, const vector value[POINTS], int terms) {
    for (int k = 0; k < terms; k++)
        sum[k] = k == 0 ? value[0] : (vector){0};
    sum[terms - 1] += value[1];
    for (int pair = 1; pair < PAIRS; pair++) {
        const vector even = value[2 * pair] + value[2 * pair + 1];
        const vector odd = value[2 * pair] - value[2 * pair + 1];
        for (int k = 0; k < terms; k++)
            sum[k] += POWER[pair][k] * (k % 2 == 0 ? even : odd);
    }
}

static inline void values_of_input(vector value[2], const vector x[POINTS], int pair) {
    if (pair == 0) {
        value[0] = x[0] - x[6] + 5.25F * (x[4] - x[2]);
        value[1] = x[7] - x[1] + 5.25F * (x[3] - x[5]);
        return;
    }
    const vector even = EVEN[pair][0] * x[2] + EVEN[pair][1] * x[4] + EVEN[pair][2] * x[6];
    const vector odd = ODD[pair][0] * x[1] + ODD[pair][1] * x[3] + ODD[pair][2] * x[5];
    value[0] = even + odd;
    value[1] = even - odd;
}

/* ---- shapes ---- */

struct window {
    int in, out, kernel;
    int pad; /* less than 0: that much of x is left out */
    int h, w, rows, columns;
    int group, groups; /* rows of y that are computed together, and how often that is */
};

static struct window window_of(int in, int out, int kernel, int pad, int h, int w) {
    struct window s = {.in = in, .out = out, .kernel = kernel, .pad = pad, .h = h, .w = w};
    s.rows = h + 2 * pad - kernel + 1;
    s.columns = w + 2 * pad - kernel + 1;
    require(kernel >= 1 && kernel <= POINTS && s.rows > 0 && s.columns > 0);
    s.group = group_rows(kernel);
    s.groups = (s.rows + s.group - 1) / s.group;
    return s;
}

/* Floats of a row of V that serves `length` floats of y, rounded up to whole tiles: a kernel's
 * width more, and a vector that the last one may reach behind them. */
static size_t value_pitch(const struct window *s, size_t length, int images) {
    return round_up(round_up(length, TILE) + (size_t)(s->kernel * images) + LANES, BLOCK);
}

/* Eight rows of a channel of x from row `first` on; those of the border are `zeros`. */
static void input_rows(const float *row[POINTS], const struct tensor *x, int block, int images,
                       int channel, int first, const float *zeros) {
    for (int i = 0; i < POINTS; i++) {
        const int y = first + i;
        row[i] = y < 0 || y >= x->h ? zeros : tensor_row(x, block, images, channel, y);
    }
}

/* Where the floats of V that serve y[from...] lie in a row of x: V[at + i] comes from x[start + i],
 * i < count, and the rest of V is the border's zeros. */
struct span {
    size_t at, start, count;
};

static struct span span_of(const struct window *s, size_t from, size_t pitch, int images) {
    const int64_t begin = (int64_t)from - (int64_t)s->pad * images; /* in x, of V[0] */
    const int64_t end = (int64_t)s->w * images;
    const size_t border = begin < 0 ? (size_t)-begin : 0; /* which may be wider than V */
    struct span span = {.at = border < pitch ? border : pitch,
                        .start = begin < 0 ? 0 : (size_t)begin};
    const int64_t left = end - (int64_t)span.start;
    const int64_t room = (int64_t)pitch - LANES - (int64_t)span.at; /* for whole vectors */
    const int64_t count = left < room ? left : room;
    span.count = count < 0 ? 0 : (size_t)count;
    return span;
}

/* Has the processor fetch a line of cache that will be read or written, which it does not foresee
 * itself where rows are short. Nothing need be there: behind the last channel it fetches in vain.
 */
static inline void fetch(const float *from, size_t ahead) {
    __builtin_prefetch((const void *)((uintptr_t)from + ahead * sizeof *from));
}

/* Rows of V for the pairs [first, first + count), V[pair - first][2] at distance `apart`, of one
 * channel and group; the next channel is `plane` floats further. The last vector may reach behind
 * the row of x; what it makes of that gives way to the border's zeros. */
static inline void transform_input(float *v, size_t apart, size_t pitch, const float *row[POINTS],
                                   size_t plane, struct span span, int first, int count) {
    const float *from[POINTS];
    for (int i = 0; i < POINTS; i++)
        from[i] = row[i] + span.start;
    for (size_t j = 0; j < span.count; j += LANES) {
        vector x[POINTS], value[2];
        for (int i = 0; i < POINTS; i++)
            x[i] = load(from[i] + j);
        for (int i = POINTS / 2; i < POINTS; i++) /* kernel 5: the group above has read the rest */
            fetch(from[i], plane + j);
        for (int i = 0; i < count; i++) {
            float *to = v + (size_t)(2 * i) * apart + span.at + j;
            values_of_input(value, x, first + i);
            store(to, value[0]);
            store(to + apart, value[1]);
        }
    }
    for (int i = 0; i < 2 * count; i++, v += apart) {
        memset(v, 0, span.at * sizeof *v);
        memset(v + span.at + span.count, 0, (pitch - span.at - span.count) * sizeof *v);
    }
}

/* ---- y ---- */

/* U [POINTS][out / TILE_OUT][in][kernel][TILE_OUT], the last tile filled up with zeros, of weight
 * [out][in][kernel][kernel], or if `turned` of weight [in][out][..] with each kernel turned by 180
 * degrees. */
static size_t packed_size(const struct window *s) {
    return POINTS * round_up((size_t)s->out, TILE_OUT) * (size_t)(s->in * s->kernel);
}

static void pack_weights(float *u, const float *weight, const struct window *s, bool turned,
                         int threads) {
    const int tiles = (s->out + TILE_OUT - 1) / TILE_OUT, k = s->kernel, area = k * k;
    const size_t size = (size_t)(s->in * k) * TILE_OUT; /* of a tile */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int o = 0; o < tiles * TILE_OUT; o++)
        for (int i = 0; i < s->in; i++) {
            vector row[2][POINTS] = {{{0}}};    /* a kernel's rows, a lane a column */
            float *cell = (float *)(void *)row; /* LANES may be less than the kernel */
            for (int j = 0; j < area && o < s->out; j++) {
                const int at =
                    turned ? (i * s->out + o) * area + area - 1 - j : (o * s->in + i) * area + j;
                const int x = j % k;
                cell[(x / LANES * POINTS + j / k) * LANES + x % LANES] = weight[at];
            }
            for (int pair = 0; pair < PAIRS; pair++)
                for (int x = 0; x < k; x += LANES) {
                    vector value[2];
                    values_at(value, row[x / LANES], k, pair);
                    for (int p = 0; p < 2; p++) {
                        float *to = u + (size_t)((2 * pair + p) * tiles + o / TILE_OUT) * size +
                                    (size_t)(i * k + x) * TILE_OUT + o % TILE_OUT;
                        for (int lane = 0; lane < least(LANES, k - x); lane++)
                            to[lane * TILE_OUT] = FACTOR[pair] * value[p][lane];
                    }
                }
        }
}

/* m [TILE_OUT] rows of a chunk = the sum over input channels and kernel columns of u times v;
 * `vectors` is a constant where this is called. */
static inline void multiply_tile(float *m, const float *u, const float *v, size_t pitch, int in,
                                 int kernel, int images, int vectors) {
    vector sum[TILE_OUT][TILE_VECTORS];
#pragma GCC unroll 16
    for (int o = 0; o < TILE_OUT; o++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++)
            sum[o][t] = (vector){0};
    for (int i = 0; i < in; i++, v += pitch) {
        const float *x = v;
        for (int k = 0; k < kernel; k++, x += images, u += TILE_OUT) {
            vector at[TILE_VECTORS];
#pragma GCC unroll 4
            for (int t = 0; t < vectors; t++)
                at[t] = load(x + t * LANES);
#pragma GCC unroll 16
            for (int o = 0; o < TILE_OUT; o++)
#pragma GCC unroll 4
                for (int t = 0; t < vectors; t++)
                    sum[o][t] += u[o] * at[t];
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < TILE_OUT; o++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++)
            store(m + o * CHUNK + t * LANES, sum[o][t]);
}

/* `rows` rows of one vector of y[.], each a row of its plane further. */
static inline void finish_rows(float *y, size_t pitch, const float *m, size_t apart, float bias,
                               int group, int rows) {
    vector value[POINTS], sum[POINTS] = {{0}};
    for (int p = 0; p < POINTS; p++)
        value[p] = load(m + (size_t)p * apart);
    sums_of_powers(sum, value, group);
    for (int r = 0; r < rows; r++)
        store(y + (size_t)r * pitch, sum[r] + bias);
}

/* The floats [from, to) of some rows of y, which are a group. */
static void convolve(const struct rows *y, const struct tensor *x, const float *u,
                     const float *bias, const struct window *s, size_t from, size_t to,
                     float *scratch, const float *zeros) {
    const int images = y->images;
    const size_t v_pitch = value_pitch(s, to - from, images),
                 y_pitch = row_pitch(s->columns, images);
    const size_t v_size = (size_t)s->in * v_pitch;
    const int tiles = (s->out + TILE_OUT - 1) / TILE_OUT;
    const size_t u_size = (size_t)(s->in * s->kernel) * TILE_OUT;
    float *v = scratch, *m = v + POINTS * v_size; /* m [POINTS][tiles][TILE_OUT][CHUNK] */
    const size_t apart = (size_t)tiles * TILE_OUT * CHUNK;
    const struct span span = span_of(s, from, v_pitch, images);
    for (int i = 0; i < s->in; i++) {
        const float *row[POINTS];
        input_rows(row, x, y->block, images, i, y->first - s->pad, zeros);
        transform_input(v + (size_t)i * v_pitch, v_size, v_pitch, row, plane_size(x, images), span,
                        0, PAIRS);
    }
    for (size_t chunk = from; chunk < to; chunk += CHUNK) {
        const size_t end = to - chunk < CHUNK ? to : chunk + CHUNK;
        for (int p = 0; p < POINTS; p++)
            for (int tile = 0; tile < tiles; tile++) {
                float *sums = m + (size_t)(p * tiles + tile) * TILE_OUT * CHUNK;
                const float *weights = u + (size_t)(p * tiles + tile) * u_size;
                const float *values = v + (size_t)p * v_size + (chunk - from);
                size_t j = 0;
                for (; j + LANES < end - chunk; j += TILE)
                    multiply_tile(sums + j, weights, values + j, v_pitch, s->in, s->kernel, images,
                                  2);
                if (j < end - chunk)
                    multiply_tile(sums + j, weights, values + j, v_pitch, s->in, s->kernel, images,
                                  1);
            }
        for (int o = 0; o < s->out; o++) {
            float *first = y->data + (size_t)o * y->plane;
            for (int r = 0; r < y->count; r++)
                for (size_t j = chunk; j < end; j += BLOCK)
                    fetch(first + (size_t)r * y_pitch + j, AHEAD * y->plane);
            for (size_t j = chunk; j < end; j += LANES) {
                const float *sums = m + (size_t)o * CHUNK + (j - chunk);
                const float b = bias == NULL ? 0 : bias[o];
                if (s->group == 4) /* the network's; a constant, so that loops are unrolled */
                    finish_rows(first + j, y_pitch, sums, apart, b, 4, y->count);
                else
                    finish_rows(first + j, y_pitch, sums, apart, b, s->group, y->count);
            }
        }
    }
    const size_t length = (size_t)(s->columns * images);
    for (int o = 0; o < s->out && to == length; o++)
        for (int r = 0; r < y->count; r++)
            clear_rest(y->data + (size_t)o * y->plane + (size_t)r * y_pitch, length, y_pitch);
}

/* y [out][rows][columns] = x convolved with weight, plus bias unless it is NULL. A task is a group
 * of rows of a block, or a part of its width where there are few. See cpu_conv2d_forward(). */
static bool convolution(struct host *d, struct tensor *y, const struct tensor *x,
                        const float *weight, bool turned, const float *bias, const struct window *s,
                        int n, bool keep, take_rows *take, void *context) {
    const int groups = block_count(n) * s->groups;
    const size_t longest = (size_t)(s->columns * least(n, BLOCK));
    const int tiles = (int)((longest + TILE - 1) / TILE);
    const int wanted = (3 * d->base.threads + groups - 1) / groups;
    const int parts = d->base.threads == 1 ? 1 : least(wanted, tiles);
    const size_t u_size = packed_size(s), zero_size = row_pitch(s->w, BLOCK) + BLOCK;
    const size_t pitch = row_pitch(s->columns, BLOCK); /* of rows that are not kept */
    const size_t rows_size = keep || parts > 1 ? 0 : (size_t)(s->out * s->group) * pitch + BLOCK;
    const size_t own =
        rows_size + POINTS * ((size_t)s->in * value_pitch(s, longest, least(n, BLOCK)) +
                              round_up((size_t)s->out, TILE_OUT) * CHUNK);
    float *u = host_scratch(d, HOST_PART,
                            round_up(u_size, BLOCK) + zero_size + (size_t)d->base.threads * own);
    float *zeros = u + round_up(u_size, BLOCK), *scratch = zeros + zero_size;
    memset(zeros, 0, zero_size * sizeof *zeros);
    pack_weights(u, weight, s, turned, d->base.threads);
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int task = 0; task < groups * parts; task++) {
        const int part = task % parts;
        struct rows rows = rows_of(y, s->kernel, task / parts, n);
        const size_t length = (size_t)(s->columns * rows.images);
        const size_t from = (size_t)(tiles * part / parts) * TILE;
        const size_t end = (size_t)(tiles * (part + 1) / parts) * TILE;
        float *mine = scratch + (size_t)omp_get_thread_num() * own;
        if (rows_size > 0) {
            rows.data = mine;
            rows.plane = (size_t)s->group * row_pitch(s->columns, rows.images);
        }
        if (from < length)
            convolve(&rows, x, u, bias, s, from, end < length ? end : length, mine + rows_size,
                     zeros);
        if (take != NULL && parts == 1)
            take(context, &rows);
    }
    return take != NULL && parts == 1;
}

/* ---- dweight and dbias ---- */

/* The work on a weight gradient: a unit is some groups of rows of a block, as many as their V and D
 * fit the cache; units are dealt out in at most RANGES ranges, a pair of points at a time, and if
 * that is too little for all threads, also a part of the output channels at a time. */
struct gradient {
    int groups;       /* of a unit */
    int units;        /* of a block */
    int ranges, taps; /* taps: in x kernel */
    size_t own;       /* floats that a thread needs */
};

static struct gradient gradient_of(const struct window *s, int n) {
    const int images = least(n, BLOCK);
    const size_t length = (size_t)(s->columns * images);
    struct gradient g = {.taps = s->in * s->kernel};
    const size_t v_pitch = value_pitch(s, length, images), d_pitch = round_up(length, BLOCK);
    const size_t group = 2 * ((size_t)s->in * v_pitch + GRADIENT_OUT * d_pitch);
    g.groups = group > GRADIENT_FLOATS ? 1 : least(s->groups, (int)(GRADIENT_FLOATS / group));
    g.units = (s->groups + g.groups - 1) / g.groups;
    g.groups = (s->groups + g.units - 1) / g.units; /* evenly */
    g.ranges = least(RANGES, g.units * block_count(n));
    g.own = (size_t)g.groups * group;
    return g;
}

/* A row of D for both points of a pair, `apart` apart: the values of `terms` rows of dy, whose next
 * channel is `plane` floats further. With the first pair also returns the sum of dy, else 0. */
static inline double transform_gradient(float *d, size_t apart, const float *row[POINTS],
                                        size_t plane, size_t length, int terms, int pair) {
    vector total = {0};
    for (size_t j = 0; j < length; j += LANES) {
        vector dy[POINTS] = {{0}}, value[2];
        for (int r = 0; r < terms; r++) {
            dy[r] = load(row[r] + j);
            fetch(row[r], plane + j);
        }
        if (pair == 0) {
            vector rows = dy[0];
            for (int r = 1; r < terms; r++)
                rows += dy[r];
            total += rows;
        }
        values_at(value, dy, terms, pair);
        store(d + j, value[0]);
        store(d + apart + j, value[1]);
    }
    struct sum sum = {{0}, {0}};
    add_to(&sum, total);
    return sum_of_lanes(sum);
}

/* sum [GRADIENT_TAPS][GRADIENT_OUT] += the products of d and v over `groups` rows of `length`. */
static inline void correlate_tile(vector4 sum[GRADIENT_TAPS], const float *d[GRADIENT_OUT],
                                  const float *v[GRADIENT_TAPS], size_t d_pitch, size_t v_pitch,
                                  int groups, size_t length) {
    vector at[GRADIENT_OUT][GRADIENT_TAPS];
#pragma GCC unroll 4
    for (int o = 0; o < GRADIENT_OUT; o++)
#pragma GCC unroll 4
        for (int k = 0; k < GRADIENT_TAPS; k++)
            at[o][k] = (vector){0};
    for (int g = 0; g < groups; g++)
        for (size_t j = 0; j < length; j += LANES) {
            vector x[GRADIENT_TAPS];
#pragma GCC unroll 4
            for (int k = 0; k < GRADIENT_TAPS; k++)
                x[k] = load(v[k] + (size_t)g * v_pitch + j);
#pragma GCC unroll 4
            for (int o = 0; o < GRADIENT_OUT; o++) {
                const vector y = load(d[o] + (size_t)g * d_pitch + j);
#pragma GCC unroll 4
                for (int k = 0; k < GRADIENT_TAPS; k++)
                    at[o][k] += y * x[k];
            }
        }
#pragma GCC unroll 4
    for (int k = 0; k < GRADIENT_TAPS; k++)
        sum[k] += sums_of_lanes(at[0][k], at[1][k], at[2][k], at[3][k]);
}

/* Adds one unit to du [2][out][taps] of a pair and, with the first pair, to dbias [out], of the
 * output channels [from, to). V is made for all input channels, D for those of a tile. */
static void correlate(float *du, double *dbias, const struct tensor *dy, const struct tensor *x,
                      const struct window *s, const struct gradient *g, int block, int images,
                      int unit, int pair, int from, int to, float *scratch, const float *zeros) {
    const size_t length = (size_t)(s->columns * images);
    const size_t v_pitch = value_pitch(s, length, images), d_pitch = round_up(length, BLOCK);
    const int first = unit * g->groups, groups = least(g->groups, s->groups - first);
    const size_t v_channel = (size_t)groups * v_pitch, d_channel = (size_t)groups * d_pitch;
    const size_t v_apart = (size_t)s->in * v_channel, d_apart = GRADIENT_OUT * d_channel;
    float *v = scratch, *d = v + 2 * v_apart;
    const struct span span = span_of(s, 0, v_pitch, images);
    const float *row[POINTS];
    for (int i = 0; i < s->in; i++)
        for (int k = 0; k < groups; k++) {
            float *row_of_v = v + (size_t)i * v_channel + (size_t)k * v_pitch;
            input_rows(row, x, block, images, i, (first + k) * s->group - s->pad, zeros);
#pragma GCC unroll 4
            for (int constant = 0; constant < PAIRS; constant++) /* makes factors constants */
                if (constant == pair)
                    transform_input(row_of_v, v_apart, v_pitch, row, plane_size(x, images), span,
                                    constant, 1);
        }
    for (int o = from; o < to; o += GRADIENT_OUT) {
        const int count = least(GRADIENT_OUT, to - o);
        for (int i = 0; i < count; i++)
            for (int k = 0; k < groups; k++) {
                float *row_of_d = d + (size_t)i * d_channel + (size_t)k * d_pitch;
                const size_t plane = plane_size(dy, images);
                input_rows(row, dy, block, images, o + i, (first + k) * s->group, zeros);
                const double sum =
                    s->group == 4 /* the network's; a constant, so that loops are unrolled */
                        ? transform_gradient(row_of_d, d_apart, row, plane, length, 4, pair)
                        : transform_gradient(row_of_d, d_apart, row, plane, length, s->group, pair);
                if (pair == 0) /* the task of that pair alone writes there */
                    dbias[o + i] += sum;
            }
        for (int p = 0; p < 2; p++)
            for (int tap = 0; tap < g->taps; tap += GRADIENT_TAPS) {
                /* where a tile reaches beyond the last channel or tap it repeats it */
                const float *at_d[GRADIENT_OUT], *at_v[GRADIENT_TAPS];
                vector4 sum[GRADIENT_TAPS] = {{0}};
                for (int i = 0; i < GRADIENT_OUT; i++)
                    at_d[i] = d + (size_t)p * d_apart + (size_t)least(i, count - 1) * d_channel;
                for (int i = 0; i < GRADIENT_TAPS; i++) {
                    const int k = least(tap + i, g->taps - 1);
                    at_v[i] = v + (size_t)p * v_apart + (size_t)(k / s->kernel) * v_channel +
                              k % s->kernel * images;
                }
                correlate_tile(sum, at_d, at_v, d_pitch, v_pitch, groups, length);
                float *sums = du + (p * s->out + o) * g->taps + tap;
                for (int i = 0; i < count; i++)
                    for (int k = 0; k < least(GRADIENT_TAPS, g->taps - tap); k++)
                        sums[i * g->taps + k] += sum[k][i];
            }
    }
}

/* dweight [out][in][kernel][kernel] of the sums du [ranges][POINTS][out][taps]; one channel. */
static void finish_gradient(float *dweight, const float *du, const struct window *s,
                            const struct gradient *g, int o) {
    const size_t range = (size_t)(POINTS * s->out * g->taps);
    const int k = s->kernel;
    for (int tap = 0; tap < g->taps; tap += LANES) {
        const size_t lanes = (size_t)least(LANES, g->taps - tap);
        vector value[POINTS], sum[POINTS] = {{0}};
        for (int p = 0; p < POINTS; p++) {
            const float *from = du + (size_t)((p * s->out + o) * g->taps + tap);
            value[p] = (vector){0};
            for (int r = 0; r < g->ranges; r++, from += range)
                value[p] += load_part(from, lanes);
            value[p] *= FACTOR[p / 2];
        }
        sums_of_powers(sum, value, k);
        for (size_t lane = 0; lane < lanes; lane++) {
            const int i = (tap + (int)lane) / k, column = (tap + (int)lane) % k;
            for (int row = 0; row < k; row++)
                dweight[((o * s->in + i) * k + row) * k + column] = sum[row][lane];
        }
    }
}

static void weight_gradient(struct host *d, float *dweight, float *dbias, const struct tensor *dy,
                            const struct tensor *x, const struct window *s, int n) {
    const struct gradient g = gradient_of(s, n);
    const int blocks = block_count(n), units = blocks * g.units, shares = g.ranges * PAIRS;
    const int tiles = (s->out + GRADIENT_OUT - 1) / GRADIENT_OUT;
    const int parts = least((2 * d->base.threads + shares - 1) / shares, tiles);
    const size_t pair_size = (size_t)(2 * s->out * g.taps), range_size = PAIRS * pair_size;
    const size_t du_size = round_up((size_t)g.ranges * range_size, BLOCK);
    const size_t bias_size = round_up(2 * (size_t)(g.ranges * s->out), BLOCK); /* doubles */
    const int widest = s->w > s->columns ? s->w : s->columns;
    const size_t zero_size = row_pitch(widest, BLOCK) + BLOCK;
    float *du = host_scratch(d, HOST_PART,
                             du_size + bias_size + zero_size + (size_t)d->base.threads * g.own);
    double *bias_sums = (double *)(void *)(du + du_size); /* [ranges][out] */
    float *zeros = du + du_size + bias_size, *scratch = zeros + zero_size;
    memset(du, 0, (du_size + bias_size + zero_size) * sizeof *du);
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int task = 0; task < shares * parts; task++) {
        const int part = task % parts, pair = task / parts % PAIRS, range = task / parts / PAIRS;
        const int from = tiles * part / parts * GRADIENT_OUT;
        const int to = least(tiles * (part + 1) / parts * GRADIENT_OUT, s->out);
        const int end = (int)((int64_t)units * (range + 1) / g.ranges);
        for (int unit = (int)((int64_t)units * range / g.ranges); unit < end; unit++) {
            const int block = unit / g.units;
            correlate(du + (size_t)range * range_size + (size_t)pair * pair_size,
                      bias_sums + range * s->out, dy, x, s, &g, block, block_images(n, block),
                      unit % g.units, pair, from, to,
                      scratch + (size_t)omp_get_thread_num() * g.own, zeros);
        }
    }
#pragma omp parallel for num_threads(d->base.threads) schedule(static)
    for (int o = 0; o < s->out; o++) {
        double sum = 0;
        finish_gradient(dweight, du, s, &g, o);
        for (int r = 0; r < g.ranges; r++)
            sum += bias_sums[r * s->out + o];
        dbias[o] = (float)sum;
    }
}

/* ---- the ops ---- */

bool CPU_SET(cpu_conv2d_forward)(struct host *d, struct tensor *z, const struct tensor *x,
                                 const struct conv2d *conv, int n, bool keep, take_rows *take,
                                 void *context) {
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    return convolution(d, z, x, slice_data(conv->weight), false, slice_data(conv->bias), &s, n,
                       keep, take, context);
}

void CPU_SET(cpu_conv2d_backward)(struct host *d, struct tensor *dx, const struct tensor *dz,
                                  const struct tensor *x, const struct conv2d *conv, int n) {
    const struct window s =
        window_of(conv->in, conv->out, conv->kernel, conv->pad, conv->h, conv->w);
    weight_gradient(d, slice_data(conv->dweight), slice_data(conv->dbias), dz, x, &s, n);
    if (dx == NULL)
        return;
    const struct window back = window_of(conv->out, conv->in, conv->kernel,
                                         conv->kernel - 1 - conv->pad, s.rows, s.columns);
    convolution(d, dx, dz, slice_data(conv->weight), true, NULL, &back, n, true, NULL, NULL);
}
