#include "reference.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

static void clear(double *row, size_t count) {
    for (size_t i = 0; i < count; i++)
        row[i] = 0;
}

/* ---- torch.nn.Conv2d ---- */

/* Both directions visit the same products y += weight * x: all places of the kernel at all places
 * of the output. Where the kernel hangs over the edge x is 0. */

static int rows_of(const struct conv2d *conv) {
    return conv->h + 2 * conv->pad - conv->kernel + 1;
}

static int columns_of(const struct conv2d *conv) {
    return conv->w + 2 * conv->pad - conv->kernel + 1;
}

/* Index of [c][ky][kx] of the window of image i whose output is at [row][column], in x; -1 outside
 * the image. */
static int64_t source(const struct conv2d *conv, int i, int c, int row, int column, int ky,
                      int kx) {
    const int y = row + ky - conv->pad, x = column + kx - conv->pad;
    if (y < 0 || y >= conv->h || x < 0 || x >= conv->w)
        return -1;
    return (((int64_t)i * conv->in + c) * conv->h + y) * conv->w + x;
}

void reference_conv2d_forward(double *y, const double *x, const double *w,
                              const struct conv2d *conv, int n) {
    const double *weight = w + conv->weight.offset, *bias = w + conv->bias.offset;
    for (int i = 0; i < n; i++)
        for (int o = 0; o < conv->out; o++)
            for (int row = 0; row < rows_of(conv); row++)
                for (int column = 0; column < columns_of(conv); column++) {
                    const double *k = weight + o * conv->in * conv->kernel * conv->kernel;
                    double sum = bias[o];
                    for (int c = 0; c < conv->in; c++)
                        for (int ky = 0; ky < conv->kernel; ky++)
                            for (int kx = 0; kx < conv->kernel; kx++, k++) {
                                int64_t from = source(conv, i, c, row, column, ky, kx);
                                if (from >= 0)
                                    sum += *k * x[from];
                            }
                    *y++ = sum;
                }
}

void reference_conv2d_backward(double *dx, double *g, const double *dy, const double *x,
                               const double *w, const struct conv2d *conv, int n) {
    double *dweight = g + conv->weight.offset, *dbias = g + conv->bias.offset;
    const int window = conv->in * conv->kernel * conv->kernel;
    if (dx != NULL)
        clear(dx, (size_t)n * (size_t)(conv->in * conv->h * conv->w));
    clear(dweight, (size_t)(conv->out * window));
    clear(dbias, (size_t)conv->out);
    for (int i = 0; i < n; i++)
        for (int o = 0; o < conv->out; o++)
            for (int row = 0; row < rows_of(conv); row++)
                for (int column = 0; column < columns_of(conv); column++, dy++) {
                    const double *k = w + conv->weight.offset + o * window;
                    double *dk = dweight + o * window;
                    dbias[o] += *dy;
                    for (int c = 0; c < conv->in; c++)
                        for (int ky = 0; ky < conv->kernel; ky++)
                            for (int kx = 0; kx < conv->kernel; kx++, k++, dk++) {
                                int64_t from = source(conv, i, c, row, column, ky, kx);
                                if (from < 0)
                                    continue;
                                if (dx != NULL)
                                    dx[from] += *dy * *k;
                                *dk += *dy * x[from];
                            }
                }
}

/* ---- torch.nn.BatchNorm2d, torch.relu, torch.nn.MaxPool2d ---- */

/* Index of [i][c][j] in a tensor [n][channels][plane]. */
static size_t element(const struct batchnorm *norm, int i, int c, int j) {
    return ((size_t)i * (size_t)norm->c + (size_t)c) * (size_t)(norm->h * norm->w) + (size_t)j;
}

/* Mean and biased variance of channel c. */
static void statistics(double *mean, double *var, const double *x, const struct batchnorm *norm,
                       int c, int n) {
    const int plane = norm->h * norm->w;
    *mean = *var = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < plane; j++)
            *mean += x[element(norm, i, c, j)];
    *mean /= (double)n * plane;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < plane; j++)
            *var += pow(x[element(norm, i, c, j)] - *mean, 2);
    *var /= (double)n * plane;
}

/* Place in the plane of the maximum of the pooling window that makes output [row][column]: of
 * equals the first, and NaN before all. */
static int maximum(const double *plane, const struct batchnorm *norm, int row, int column) {
    int best = row * norm->pool * norm->w + column * norm->pool;
    for (int y = row * norm->pool; y < (row + 1) * norm->pool; y++)
        for (int x = column * norm->pool; x < (column + 1) * norm->pool; x++)
            if (plane[y * norm->w + x] > plane[best] || isnan(plane[y * norm->w + x]))
                best = y * norm->w + x;
    return best;
}

static double relu(double z) {
    return z <= 0 ? 0 : z;
}

void reference_batchnorm_forward(double *y, double *running, const double *x, const double *w,
                                 const struct batchnorm *norm, bool training, int n) {
    const double *weight = w + norm->weight.offset, *bias = w + norm->bias.offset;
    double *running_mean = running + norm->running_mean.offset;
    double *running_var = running + norm->running_var.offset;
    const int plane = norm->h * norm->w, rows = norm->h / norm->pool,
              columns = norm->w / norm->pool;
    const double momentum = (double)norm->momentum, m = (double)n * plane;
    double *a = memory_new((size_t)plane, sizeof *a); /* after ReLU */
    for (int c = 0; c < norm->c; c++) {
        double mean = running_mean[c], var = running_var[c];
        if (training) {
            statistics(&mean, &var, x, norm, c, n);
            running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean;
            running_var[c] = (1 - momentum) * running_var[c] + momentum * (var * m / (m - 1));
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < plane; j++) {
                double xhat = (x[element(norm, i, c, j)] - mean) / sqrt(var + (double)norm->eps);
                a[j] = relu(xhat * weight[c] + bias[c]);
            }
            for (int row = 0; row < rows; row++)
                for (int column = 0; column < columns; column++)
                    y[((i * norm->c + c) * rows + row) * columns + column] =
                        a[maximum(a, norm, row, column)];
        }
    }
    free(a);
}

void reference_batchnorm_backward(double *dx, double *g, const double *dy, const double *x,
                                  const double *w, const struct batchnorm *norm, int n) {
    const double *weight = w + norm->weight.offset, *bias = w + norm->bias.offset;
    double *dweight = g + norm->weight.offset, *dbias = g + norm->bias.offset;
    const int plane = norm->h * norm->w, rows = norm->h / norm->pool,
              columns = norm->w / norm->pool;
    const double m = (double)n * plane;
    double *a = memory_new((size_t)plane, sizeof *a);
    double *xhat = memory_new((size_t)(n * plane), sizeof *xhat);
    double *dz = memory_new((size_t)(n * plane), sizeof *dz); /* z: what goes into the ReLU */
    for (int c = 0; c < norm->c; c++) {
        double mean, var;
        statistics(&mean, &var, x, norm, c, n);
        const double deviation = sqrt(var + (double)norm->eps);
        clear(dz, (size_t)(n * plane));
        dweight[c] = dbias[c] = 0;
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < plane; j++) {
                xhat[i * plane + j] = (x[element(norm, i, c, j)] - mean) / deviation;
                a[j] = relu(xhat[i * plane + j] * weight[c] + bias[c]);
            }
            for (int row = 0; row < rows; row++)
                for (int column = 0; column < columns; column++) {
                    const int best = maximum(a, norm, row, column);
                    if (!(a[best] <= 0)) /* as PyTorch: NaN passes */
                        dz[i * plane + best] =
                            dy[((i * norm->c + c) * rows + row) * columns + column];
                }
            for (int j = i * plane; j < (i + 1) * plane; j++) {
                dweight[c] += dz[j] * xhat[j];
                dbias[c] += dz[j];
            }
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < plane; j++)
                dx[element(norm, i, c, j)] =
                    weight[c] / deviation *
                    (dz[i * plane + j] - dbias[c] / m - xhat[i * plane + j] * dweight[c] / m);
    }
    free(a);
    free(xhat);
    free(dz);
}

static bool nearly_equal(double a, double b) {
    return a != b && fabs(a - b) < 1e-4;
}

void reference_batchnorm_decide(double *dy, const double *x, const double *w,
                                const struct batchnorm *norm, int n) {
    const double *weight = w + norm->weight.offset, *bias = w + norm->bias.offset;
    const int plane = norm->h * norm->w, rows = norm->h / norm->pool,
              columns = norm->w / norm->pool;
    double *z = memory_new((size_t)plane, sizeof *z);
    for (int c = 0; c < norm->c; c++) {
        double mean, var;
        statistics(&mean, &var, x, norm, c, n);
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < plane; j++)
                z[j] =
                    (x[element(norm, i, c, j)] - mean) / sqrt(var + (double)norm->eps) * weight[c] +
                    bias[c];
            for (int row = 0; row < rows; row++)
                for (int column = 0; column < columns; column++) {
                    const double largest = z[maximum(z, norm, row, column)];
                    bool near = nearly_equal(largest, 0);
                    for (int y = row * norm->pool; y < (row + 1) * norm->pool; y++)
                        for (int k = column * norm->pool; k < (column + 1) * norm->pool; k++)
                            near = near || nearly_equal(largest, z[y * norm->w + k]);
                    if (near)
                        dy[((i * norm->c + c) * rows + row) * columns + column] = 0;
                }
        }
    }
    free(z);
}

/* ---- torch.nn.Linear ---- */

void reference_linear_forward(double *y, const double *x, const double *w, const struct head *head,
                              int n) {
    const double *weight = w + head->weight.offset, *bias = w + head->bias.offset;
    const int in = head->in, out = head->out;
    for (int i = 0; i < n; i++)
        for (int o = 0; o < out; o++) {
            y[i * out + o] = bias[o];
            for (int j = 0; j < in; j++)
                y[i * out + o] += x[i * in + j] * weight[o * in + j];
        }
}

void reference_linear_backward(double *dx, double *g, const double *dy, const double *x,
                               const double *w, const struct head *head, int n) {
    const double *weight = w + head->weight.offset;
    double *dweight = g + head->weight.offset, *dbias = g + head->bias.offset;
    const int in = head->in, out = head->out;
    clear(dx, (size_t)(n * in));
    clear(dweight, (size_t)(out * in));
    clear(dbias, (size_t)out);
    for (int i = 0; i < n; i++)
        for (int o = 0; o < out; o++) {
            dbias[o] += dy[i * out + o];
            for (int j = 0; j < in; j++) {
                dx[i * in + j] += dy[i * out + o] * weight[o * in + j];
                dweight[o * in + j] += dy[i * out + o] * x[i * in + j];
            }
        }
}

/* ---- torch.nn.CrossEntropyLoss ---- */

double reference_cross_entropy(double *dlogits, const double *logits, const uint8_t *labels,
                               int classes, double label_smoothing, int n) {
    double loss = 0;
    for (int i = 0; i < n; i++) {
        const double *z = logits + i * classes;
        double largest = z[0], sum = 0;
        for (int k = 1; k < classes; k++)
            largest = fmax(largest, z[k]);
        for (int k = 0; k < classes; k++)
            sum += exp(z[k] - largest);
        for (int k = 0; k < classes; k++) {
            const double log_softmax = z[k] - largest - log(sum);
            const double target =
                (1 - label_smoothing) * (k == labels[i]) + label_smoothing / classes;
            if (target > 0)
                loss -= target * log_softmax / n;
            dlogits[i * classes + k] = (exp(log_softmax) - target) / n;
        }
    }
    return loss;
}

/* ---- torch.optim.Adam, AdamW and SGD ---- */

void reference_adam(double *parameters, double *exp_avg, double *exp_avg_sq,
                    const double *gradients, const struct adam *adam, double schedule,
                    int64_t step) {
    const double lr = adam->lr * schedule;
    for (const struct range *range = adam->range; range < adam->range + adam->ranges; range++)
        for (size_t i = range->offset; i < range->offset + range->count; i++) {
            double g = gradients[i];
            if (adam->decoupled)
                parameters[i] -= lr * adam->weight_decay * parameters[i];
            else
                g += adam->weight_decay * parameters[i];
            exp_avg[i] = adam->beta1 * exp_avg[i] + (1 - adam->beta1) * g;
            exp_avg_sq[i] = adam->beta2 * exp_avg_sq[i] + (1 - adam->beta2) * g * g;
            const double m_hat = exp_avg[i] / (1 - pow(adam->beta1, (double)step));
            const double v_hat = exp_avg_sq[i] / (1 - pow(adam->beta2, (double)step));
            parameters[i] -= lr * m_hat / (sqrt(v_hat) + adam->eps);
        }
}

void reference_sgd(double *parameters, double *momentum_buffer, const double *gradients,
                   const struct sgd *sgd, double schedule) {
    for (const struct range *range = sgd->range; range < sgd->range + sgd->ranges; range++)
        for (size_t i = range->offset; i < range->offset + range->count; i++) {
            const double g = gradients[i] + sgd->weight_decay * parameters[i];
            momentum_buffer[i] = sgd->momentum * momentum_buffer[i] + g;
            parameters[i] -= sgd->lr * schedule * (g + sgd->momentum * momentum_buffer[i]);
        }
}

/* ---- Muon ---- */

static double frobenius(const double *row, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += row[i] * row[i];
    return sqrt(sum);
}

/* c [n][columns] = a [n][depth] b [depth][columns], or, transposed, of b [columns][depth]. */
static void product(double *c, const double *a, const double *b, bool transposed, int n, int depth,
                    int columns) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < columns; j++) {
            c[i * columns + j] = 0;
            for (int k = 0; k < depth; k++)
                c[i * columns + j] +=
                    a[i * depth + k] * b[transposed ? j * depth + k : k * columns + j];
        }
}

void reference_muon(double *parameters, double *momentum_buffer, const double *gradients,
                    const struct muon *muon, double schedule) {
    for (const struct matrix *of = muon->matrix; of < muon->matrix + muon->matrices; of++) {
        const int rows = of->rows, columns = of->columns;
        const size_t count = (size_t)(rows * columns), square = (size_t)(rows * rows);
        double *w = parameters + of->offset, *m = momentum_buffer + of->offset;
        const double *g = gradients + of->offset;
        double *x = memory_new(count, sizeof *x), *bx = memory_new(count, sizeof *bx);
        double *a = memory_new(square, sizeof *a), *b = memory_new(square, sizeof *b);
        const double norm = frobenius(w, count);
        for (size_t i = 0; i < count; i++) {
            w[i] *= norm > 0 ? sqrt(rows) / norm : 1;
            m[i] = muon->momentum * m[i] + (1 - muon->momentum) * g[i];
            x[i] = (1 - muon->momentum) * g[i] + muon->momentum * m[i];
        }
        const double length = fmax(frobenius(x, count), 1e-7);
        for (size_t i = 0; i < count; i++)
            x[i] /= length;
        for (int iteration = 0; iteration < 5; iteration++) {
            product(a, x, x, true, rows, columns, rows);
            product(b, a, a, false, rows, rows, rows);
            for (size_t i = 0; i < square; i++)
                b[i] = -4.775 * a[i] + 2.0315 * b[i];
            product(bx, b, x, false, rows, rows, columns);
            for (size_t i = 0; i < count; i++)
                x[i] = 3.4445 * x[i] + bx[i];
        }
        for (size_t i = 0; i < count; i++)
            w[i] -= muon->lr * schedule * x[i];
        free(x);
        free(bx);
        free(a);
        free(b);
    }
}

/* ---- torch.optim.swa_utils.AveragedModel ---- */

void reference_average(double *average, const double *of, const struct average *op, int64_t step) {
    for (size_t i = 0; i < op->count; i++)
        average[i] = step == 1 ? of[i] : op->decay * average[i] + (1 - op->decay) * of[i];
}
