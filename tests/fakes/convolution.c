/* Tensors are first copied into rows of doubles in the order of their dimensions, so that the loops
 * need not know of strides and are vectorised. */
#include "convolution.h"

#include "fake.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t volume(const struct tensor4 *t) {
    return t->sizes[0] * t->sizes[1] * t->sizes[2] * t->sizes[3];
}

/* Where element number i of the tensor is in memory. */
static int64_t place(const struct tensor4 *t, int64_t i) {
    int64_t at = 0;
    for (int d = TENSOR_DIMENSIONS - 1; d >= 0; d--) {
        at += i % t->sizes[d] * t->strides[d];
        i /= t->sizes[d];
    }
    return at;
}

static double *unpack(const struct tensor4 *t, const float *from, enum arithmetic arithmetic) {
    const int64_t count = volume(t);
    double *values = fake_new((size_t)count * sizeof *values);
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        const float value = from[place(t, i)];
        values[i] = (double)(arithmetic == TF32 ? fake_tf32(value) : value);
    }
    return values;
}

static void pack(const struct convolution *conv, const struct tensor4 *t, float *to,
                 const double *values, enum arithmetic arithmetic) {
    static uint32_t noise = 1;
    const int64_t count = volume(t);
    for (int64_t i = 0; i < count; i++) {
        float *element = to + place(t, i);
        double value = conv->alpha * values[i];
        if (conv->beta != 0)
            value += conv->beta * (double)*element;
        if (arithmetic == NOISY) {
            noise = noise * 1664525 + 1013904223;
            value *= 1 + 0.01 * ((double)noise / 4294967296.0 - 0.5);
        }
        *element = (float)value;
    }
}

/* The input row or column that output `out` meets at the filter's `tap`; direction 0: row. */
static int64_t input_of(const struct convolution *conv, int direction, int64_t out, int64_t tap) {
    if (conv->mirrored)
        tap = conv->w.sizes[2 + direction] - 1 - tap;
    return out * conv->stride[direction] + tap * conv->dilation[direction] - conv->pad[direction];
}

/* The outputs [first, end) whose columns of the input exist at this tap. */
static void valid_columns(const struct convolution *conv, int64_t tap, int64_t *first,
                          int64_t *end) {
    const int64_t outs = conv->y.sizes[3], ins = conv->x.sizes[3];
    *first = 0;
    while (*first < outs && input_of(conv, 1, *first, tap) < 0)
        ++*first;
    *end = *first;
    while (*end < outs && input_of(conv, 1, *end, tap) < ins)
        ++*end;
}

/* Goes over one plane of x and one of y at one tap of the filter, in one of two ways. */
static void plane_product(const struct convolution *conv, int64_t r, int64_t s, double *x,
                          double *y, double weight) {
    const int64_t step = conv->stride[1];
    int64_t first, end;
    valid_columns(conv, s, &first, &end);
    for (int64_t row = 0; row < conv->y.sizes[2]; row++) {
        const int64_t in_row = input_of(conv, 0, row, r);
        if (in_row < 0 || in_row >= conv->x.sizes[2] || first == end)
            continue;
        double *in = x + in_row * conv->x.sizes[3] + input_of(conv, 1, first, s);
        double *out = y + row * conv->y.sizes[3] + first;
        const int64_t count = end - first;
        if (conv->kind == FORWARD) {
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                out[i] += weight * in[i * step];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                in[i * step] += weight * out[i];
        }
    }
}

/* All products of channel c of x with channel k of y in image n; w is at the filter of (k, c). */
static void filter_product(const struct convolution *conv, double *x, const double *w, double *y,
                           int64_t n, int64_t k, int64_t c) {
    const int64_t *sizes = conv->w.sizes;
    double *from = x + (n * sizes[1] + c) * conv->x.sizes[2] * conv->x.sizes[3];
    double *to = y + (n * sizes[0] + k) * conv->y.sizes[2] * conv->y.sizes[3];
    const double *taps = w + (k * sizes[1] + c) * sizes[2] * sizes[3];
    for (int64_t r = 0; r < sizes[2]; r++)
        for (int64_t s = 0; s < sizes[3]; s++)
            plane_product(conv, r, s, from, to, taps[r * sizes[3] + s]);
}

void convolution_run(const struct convolution *conv, enum arithmetic arithmetic, float *x,
                     const float *w, float *y) {
    const int64_t images = conv->x.sizes[0], outs = conv->w.sizes[0], ins = conv->w.sizes[1];
    const struct tensor4 *result = conv->kind == FORWARD ? &conv->y : &conv->x;
    double *xs = unpack(&conv->x, x, arithmetic), *ws = unpack(&conv->w, w, arithmetic);
    double *ys = unpack(&conv->y, y, arithmetic);
    double *results = conv->kind == FORWARD ? ys : xs;
    memset(results, 0, (size_t)volume(result) * sizeof *results);
    /* each loop shares out what is written */
    if (conv->kind == FORWARD) {
#pragma omp parallel for collapse(2)
        for (int64_t n = 0; n < images; n++)
            for (int64_t k = 0; k < outs; k++)
                for (int64_t c = 0; c < ins; c++)
                    filter_product(conv, xs, ws, ys, n, k, c);
    } else {
#pragma omp parallel for collapse(2)
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < ins; c++)
                for (int64_t k = 0; k < outs; k++)
                    filter_product(conv, xs, ws, ys, n, k, c);
    }
    pack(conv, result, conv->kind == FORWARD ? y : x, results, arithmetic);
    free(xs);
    free(ws);
    free(ys);
}
