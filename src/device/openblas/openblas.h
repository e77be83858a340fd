/* The backend `openblas`: OpenBLAS does the arithmetic of the convolutions and of the Linear layer,
 * plain loops the rest. It is also the reference for the other backends, so it prefers what is
 * plainly right to what is fast.
 *
 * Activations are [n][c][h][w]. Threads share out images or channels, and OpenBLAS runs in the
 * calling thread. */
#pragma once

#include "../host.h"

struct tensor {
    float *data;
    size_t image; /* floats an image */
    int capacity; /* images */
};

extern const struct device_ops openblas_ops;

void openblas_conv2d_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct conv2d *conv, int n);
void openblas_conv2d_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct conv2d *conv, int n);
void openblas_batchnorm_forward(struct device *device, struct tensor *y, const struct tensor *x,
                                const struct batchnorm *norm, bool training, int n);
void openblas_batchnorm_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                                 const struct tensor *x, const struct batchnorm *norm, int n);
void openblas_linear_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct linear *linear, int n);
void openblas_linear_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct linear *linear, int n);
void openblas_cross_entropy(struct device *device, struct tensor *dlogits,
                            const struct tensor *logits, struct loader *loader, int n);
void openblas_adam_step(struct device *device, const struct adam *adam);
