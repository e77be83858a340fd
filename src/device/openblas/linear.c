/* The Linear layer: one matrix product for each of y, dx and dweight. They are so small beside the
 * convolutions (0.4 % of the arithmetic) that one thread does them. */
#include "library.h"
#include "openblas.h"

void openblas_linear_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct linear *linear, int n) {
    (void)device;
    const int in = linear->in, out = linear->out;
    const float *bias = slice_data(linear->bias);
    for (int i = 0; i < n; i++)
        for (int o = 0; o < out; o++)
            y->data[(size_t)i * y->image + (size_t)o] = bias[o];
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, 1, x->data, in,
                         slice_data(linear->weight), in, 1, y->data, out);
}

void openblas_linear_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct linear *linear, int n) {
    (void)device;
    const int in = linear->in, out = linear->out;
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, in, out, 1, dy->data, out,
                         slice_data(linear->weight), in, 0, dx->data, in);
    openblas.cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, n, 1, dy->data, out,
                         x->data, in, 0, slice_data(linear->dweight), in);
    for (int o = 0; o < out; o++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)dy->data[(size_t)i * dy->image + (size_t)o];
        slice_data(linear->dbias)[o] = (float)sum;
    }
}
