/* The backend `cpu`: kernels of our own for this network, from one source for several instruction
 * sets. conv2d.c, batchnorm.c, linear.c and ops.c are compiled once for each (build.cmake), and
 * each time define a table of ops whose name ends in that of the set; backend.c is compiled once,
 * and its open() takes the best table that the processor can run.
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

/* Ops that need no vectors: backend.c. */
bool cpu_open(struct device **device, const struct device_options *options, struct error *error);
void cpu_describe(const struct device *device, char *text, size_t size);
struct tensor *cpu_tensor_new(struct device *device, int n, int c, int h, int w);
void cpu_tensor_upload(struct device *device, struct tensor *to, const float *from, int n);
bool cpu_tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                         struct error *error);
void cpu_load_batch(struct device *device, struct tensor *x, struct loader *loader, int n);
void cpu_cross_entropy(struct device *device, struct tensor *dlogits, const struct tensor *logits,
                       struct loader *loader, int n);

#ifdef CPU_INSTRUCTION_SET
/* Ops that exist once for each instruction set. */
void CPU_SET(cpu_conv2d_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                                 const struct conv2d *conv, int n);
void CPU_SET(cpu_conv2d_backward)(struct device *device, struct tensor *dx, const struct tensor *dy,
                                  const struct tensor *x, const struct conv2d *conv, int n);
void CPU_SET(cpu_batchnorm_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                                    const struct batchnorm *norm, bool training, int n);
void CPU_SET(cpu_batchnorm_backward)(struct device *device, struct tensor *dx,
                                     const struct tensor *dy, const struct tensor *x,
                                     const struct batchnorm *norm, int n);
void CPU_SET(cpu_linear_forward)(struct device *device, struct tensor *y, const struct tensor *x,
                                 const struct linear *linear, int n);
void CPU_SET(cpu_linear_backward)(struct device *device, struct tensor *dx, const struct tensor *dy,
                                  const struct tensor *x, const struct linear *linear, int n);
#endif
