/* What the ops of the device interface compute, said once more as plainly as possible: loops in
 * double over dense rows of numbers, straight from PyTorch's definitions. The backends are measured
 * against this, and its own gradients against finite differences (see reference_test.c).
 *
 * Activations are [n][c][h][w]. Of the structs of device.h only the numbers are read, no slice.
 * Every output is overwritten; running statistics are moved. */
#pragma once

#include "device/device.h"

void reference_conv2d_forward(double *y, const double *x, const double *weight, const double *bias,
                              const struct conv2d *conv, int n);
void reference_conv2d_backward(double *dx, double *dweight, double *dbias, const double *dy,
                               const double *x, const double *weight, const struct conv2d *conv,
                               int n);

void reference_batchnorm_forward(double *y, double *running_mean, double *running_var,
                                 const double *x, const double *weight, const double *bias,
                                 const struct batchnorm *norm, bool training, int n);
void reference_batchnorm_backward(double *dx, double *dweight, double *dbias, const double *dy,
                                  const double *x, const double *weight, const double *bias,
                                  const struct batchnorm *norm, int n);

void reference_linear_forward(double *y, const double *x, const double *weight, const double *bias,
                              const struct linear *linear, int n);
void reference_linear_backward(double *dx, double *dweight, double *dbias, const double *dy,
                               const double *x, const double *weight, const struct linear *linear,
                               int n);

/* Returns the mean loss of the n images. */
double reference_cross_entropy(double *dlogits, uint8_t *predicted, const double *logits,
                               const uint8_t *labels, int classes, int n);

/* Step number `step`, from 1. */
void reference_adam(double *parameters, double *exp_avg, double *exp_avg_sq,
                    const double *gradients, const struct adam *adam, int64_t step);
