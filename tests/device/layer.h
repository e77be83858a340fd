/* A layer under test: what convolution, batch normalisation and Linear have in common. */
#pragma once

#include "harness.h"

/* ---- rows of the tables, and the layers they stand for, with data at random ---- */

struct conv_case {
    int in, out, kernel, pad, h, w, n;
};

struct norm_case {
    int c, h, w, pool, n;
    enum { PLAIN, FAR, DEAD, CONSTANT, FLAT } data;
    float eps, momentum;
};

struct linear_case {
    struct shape in;
    int out, n;
};

struct layer {
    char label[100];
    enum kind { CONV, NORM, LINEAR } kind;
    struct conv2d conv; /* one of the three is in use */
    struct batchnorm norm;
    struct linear linear;
    int n, spare; /* images in the batch, and how many more the tensors have room for */
    struct shape in, out;
    size_t weights, biases;
    double *x, *weight, *bias, *dy;
    double *running_mean, *running_var;
};

struct layer conv_layer(const struct conv_case *t);
struct layer norm_layer(const struct norm_case *t);
struct layer linear_layer(const struct linear_case *t);

/* How many numbers a batch has. */
size_t inputs(const struct layer *l);
size_t outputs(const struct layer *l);

/* ---- a layer by the reference and on a device ---- */

struct results {
    double *y, *dx, *dweight, *dbias, *running_mean, *running_var;
};

/* y and the running statistics alone, into rows that are there. */
void forward_by_reference(const struct layer *l, bool training, struct results *r);

struct results by_reference(const struct layer *l, bool training);

/* Fails if an input is not as before. */
struct results on_device(struct device *d, const struct layer *l, bool training);

/* Fails if the device's results are not those of the reference. */
void compare_layer(struct device *d, const struct layer *l, bool training);
