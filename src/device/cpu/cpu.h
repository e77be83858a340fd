/* The backend `cpu`: kernels of our own for this network, from one source for several instruction
 * sets. stage.c, conv2d.c, batchnorm.c, head.c and kernels.c are compiled once for each
 * (build.cmake), and each time define a table of kernels whose name ends in that of the set;
 * backend.c is compiled once, and its open() takes the best table that the processor can run.
 *
 * How an activation looks: images stand side by side, so that a vector holds the same pixel of
 * several images and no kernel has edges in its direction. A batch is cut into blocks of 16 images,
 * the last one of what is left; in a block of b images a row of w pixels is
 *
 *     | pixel 0: b floats | pixel 1: b floats | ... | pixel w - 1: b floats | zeros |
 *
 * and a block is [c][h] of such rows. One pixel to the right is b floats further, whatever b is, so
 * what treats all pixels alike runs along rows and wastes no lane on a batch of 10. Rows start at
 * multiples of 64 bytes, and 16 floats can be read and written at every pixel, for what goes pixel
 * by pixel; behind the last row there is room for 16 more. Who writes a row writes its zeros, too.
 */
#pragma once

#include "../host.h"

#include "base/error.h"

enum {
    BLOCK = 16, /* images; no vector is longer */
};

struct tensor {
    float *data;
    int c, h, w;
    int capacity; /* images */
    int n;        /* of the batch that was written last, which its layout depends on */
};

/* The name of a thing that exists once for each instruction set. */
#define CPU_JOIN(name, set) name##_##set
#define CPU_NAME(name, set) CPU_JOIN(name, set)
#define CPU_SET(name)       CPU_NAME(name, CPU_INSTRUCTION_SET)

static inline int least(int a, int b) {
    return a < b ? a : b;
}

static inline size_t round_up(size_t count, size_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

static inline int block_count(int n) {
    return (n + BLOCK - 1) / BLOCK;
}

/* How many of a batch of n images block number `block` holds. */
static inline int block_images(int n, int block) {
    return least(BLOCK, n - block * BLOCK);
}

/* Floats from one row to the next. */
static inline size_t row_pitch(int w, int images) {
    return round_up((size_t)(w - 1) * (size_t)images + BLOCK, BLOCK);
}

/* Floats from one channel of a block to the next. */
static inline size_t plane_size(const struct tensor *t, int images) {
    return (size_t)t->h * row_pitch(t->w, images);
}

/* Row y of channel c in a block that holds `images` images. */
static inline float *tensor_row(const struct tensor *t, int block, int images, int c, int y) {
    return t->data + (size_t)block * (size_t)(t->c * t->h) * row_pitch(t->w, BLOCK) +
           (size_t)c * plane_size(t, images) + (size_t)y * row_pitch(t->w, images);
}

/* Of each op, for what it writes and what it reads: a batch of n images. */
static inline void tensor_write(struct tensor *t, int n) {
    require(n <= t->capacity);
    t->n = n;
}

static inline void tensor_read(const struct tensor *t, int n) {
    require(n == t->n);
}

/* Makes the rest of a row zero, behind the first `used` floats. */
static inline void clear_rest(float *row, size_t used, size_t pitch) {
    for (size_t i = used; i < pitch; i++)
        row[i] = 0;
}

/* Some rows of all channels of a block of z, while they are in the cache: the convolution makes
 * them in groups, of 9 - kernel rows but for the last one. */
struct rows {
    float *data;       /* row number `first` of channel 0 */
    size_t plane;      /* floats from one channel to the next */
    int block, images; /* the block, and how many images are in it */
    int first, count;
    int group; /* its number among those of the batch */
};

static inline int group_rows(int kernel) {
    return 9 - kernel;
}

/* Groups of a block. */
static inline int group_count(const struct tensor *z, int kernel) {
    return (z->h + group_rows(kernel) - 1) / group_rows(kernel);
}

/* Group number `group` of a batch of n images, in z itself. */
static inline struct rows rows_of(const struct tensor *z, int kernel, int group, int n) {
    const int groups = group_count(z, kernel), first = group % groups * group_rows(kernel);
    struct rows rows = {.block = group / groups, .first = first, .group = group};
    rows.images = block_images(n, rows.block);
    rows.count = least(group_rows(kernel), z->h - first);
    rows.plane = plane_size(z, rows.images);
    rows.data = tensor_row(z, rows.block, rows.images, 0, first);
    return rows;
}

void cpu_load(struct host *host, struct tensor *images, const struct pass *pass, int n);

#ifdef CPU_INSTRUCTION_SET
/* What exists once for each instruction set. */
extern const struct host_kernels CPU_SET(cpu_kernels);

/* z = the convolution of x. `take`, unless it is NULL, gets each group of rows when it is made, if
 * groups are made whole: where there are few, several threads share one. Answers whether that was
 * so. With `keep` false z need not be written then. */
typedef void take_rows(void *context, const struct rows *rows);
bool CPU_SET(cpu_conv2d_forward)(struct host *host, struct tensor *z, const struct tensor *x,
                                 const struct conv2d *conv, int n, bool keep, take_rows *take,
                                 void *context);
void CPU_SET(cpu_conv2d_backward)(struct host *host, struct tensor *dx, const struct tensor *dz,
                                  const struct tensor *x, const struct conv2d *conv, int n);

/* How a channel is normalised: (z - mean) * scale + bias. */
struct channel {
    float mean, scale, bias;
};

/* The sum of up to eight rows of a channel. */
double CPU_SET(cpu_sum)(const float *row, size_t pitch, size_t length, int count);

/* The sum of the squares of what channel c is off its mean. */
double CPU_SET(cpu_squares)(const struct tensor *z, int n, int c, float mean);

/* Channel c of y, as far as its windows lie in these rows. */
void CPU_SET(cpu_normalise)(struct tensor *y, const struct rows *rows, const struct tensor *z,
                            int c, int pool, struct channel s);

void CPU_SET(cpu_batchnorm_backward)(struct host *host, struct tensor *dz, const struct tensor *dy,
                                     const struct tensor *z, const struct batchnorm *norm, int n);

/* Kernels; see struct host_kernels. */
void CPU_SET(cpu_stage)(struct host *host, const struct stage *stage, bool training, int n);
void CPU_SET(cpu_stage_backward)(struct host *host, const struct stage *stage, int n);
double CPU_SET(cpu_head)(struct host *host, const struct head *head, bool training,
                         struct pass *pass, int n);
void CPU_SET(cpu_head_backward)(struct host *host, const struct head *head, int n);
#endif
