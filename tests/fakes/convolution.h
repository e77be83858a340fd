/* The arithmetic behind the fake cuDNN: one convolution of 4-dimensional float tensors. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { TENSOR_DIMENSIONS = 4 };

/* x and y are [n][channels][h][w], w is [out][in][h][w], wherever their strides put that. */
struct tensor4 {
    int64_t id, alignment;
    int64_t sizes[TENSOR_DIMENSIONS], strides[TENSOR_DIMENSIONS];
};

/* One of two products; the tensor that it computes becomes alpha * product + beta * tensor.
 * Pairs are of (h, w). */
struct convolution {
    enum { FORWARD, BACKWARD_DATA } kind;
    bool mirrored; /* a convolution in the mathematical sense, not a cross-correlation */
    int64_t pad[2], pad_after[2], stride[2], dilation[2];
    struct tensor4 x, w, y;
    double alpha, beta;
};

enum arithmetic {
    EXACT, /* sums in double */
    TF32,  /* of inputs that are rounded to 10 bits behind the point */
    NOISY, /* other bits at each call */
};

void convolution_run(const struct convolution *conv, enum arithmetic arithmetic, float *x,
                     const float *w, float *y);
