/* What the ops of the device interface compute, said once more as plainly as possible: loops in
 * double over dense rows of numbers, straight from PyTorch's definitions. The backends are measured
 * against this, and its own gradients against finite differences (see reference_test.c).
 *
 * Activations are [n][c][h][w]. Parameters, gradients and running statistics are in rows w, g and
 * `running`, at the offsets of the slices of device.h, whose blocks are not read; a gradient is
 * where its parameter is. Every output is overwritten; running statistics are moved. */
#pragma once

#include "device/device.h"

void reference_conv2d_forward(double *y, const double *x, const double *w,
                              const struct conv2d *conv, int n);
/* dx may be NULL. */
void reference_conv2d_backward(double *dx, double *g, const double *dy, const double *x,
                               const double *w, const struct conv2d *conv, int n);

void reference_batchnorm_forward(double *y, double *running, const double *x, const double *w,
                                 const struct batchnorm *norm, bool training, int n);
void reference_batchnorm_backward(double *dx, double *g, const double *dy, const double *x,
                                  const double *w, const struct batchnorm *norm, int n);

/* Sets dy to 0 where the rounding of float could tell otherwise which pixel of a window is the
 * largest, or whether it is above 0. Exact equals stay: they are no matter of rounding. */
void reference_batchnorm_decide(double *dy, const double *x, const double *w,
                                const struct batchnorm *norm, int n);

void reference_linear_forward(double *y, const double *x, const double *w, const struct head *head,
                              int n);
void reference_linear_backward(double *dx, double *g, const double *dy, const double *x,
                               const double *w, const struct head *head, int n);

/* Returns the mean loss of the n images. */
double reference_cross_entropy(double *dlogits, const double *logits, const uint8_t *labels,
                               int classes, double label_smoothing, int n);

/* Step number `step`, from 1, with a learning rate of `schedule` times the optimiser's. */
void reference_adam(double *parameters, double *exp_avg, double *exp_avg_sq,
                    const double *gradients, const struct adam *adam, double schedule,
                    int64_t step);
void reference_sgd(double *parameters, double *momentum_buffer, const double *gradients,
                   const struct sgd *sgd, double schedule);
void reference_muon(double *parameters, double *momentum_buffer, const double *gradients,
                    const struct muon *muon, double schedule);
void reference_average(double *average, const double *of, const struct average *op, int64_t step);
