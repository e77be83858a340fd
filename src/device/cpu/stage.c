/* A stage: convolution, batch normalisation, ReLU and max-pool. What the normalisation needs of z
 * it takes from each group of rows as the convolution makes it, while it is in the cache.
 *
 * Training needs the statistics of all of z before the first of y: the groups give their sums, and
 * then a channel of the batch is read for its variance and stays in the cache for its y. In
 * evaluation the statistics are there: y is made at once, and z goes nowhere, but where a group's
 * windows do not end with it, or several threads share a group. */
#include "cpu.h"

#include <math.h>

struct forward {
    const struct stage *stage;
    bool training;
    double *sums; /* [groups][c], in training, if the convolution gave its rows; else NULL */
};

/* ---- statistics ---- */

static double sum_of_rows(const struct tensor *z, const struct rows *rows, int c) {
    return CPU_SET(cpu_sum)(rows->data + (size_t)c * rows->plane, row_pitch(z->w, rows->images),
                            (size_t)(z->w * rows->images), rows->count);
}

static void take_sums(void *context, const struct rows *rows) {
    const struct forward *f = context;
    const struct tensor *z = f->stage->z;
    for (int c = 0; c < z->c; c++)
        f->sums[rows->group * z->c + c] = sum_of_rows(z, rows, c);
}

/* Those of channel c: the batch's, and the running ones move. */
static void find_statistics(const struct forward *f, int c, int groups, int n) {
    const struct batchnorm *norm = &f->stage->norm;
    const struct tensor *z = f->stage->z;
    const double m = (double)n * norm->h * norm->w;
    float *running_mean = slice_data(norm->running_mean), *saved = slice_data(norm->saved);
    float *running_var = slice_data(norm->running_var);
    double sum = 0;
    for (int i = 0; i < groups; i++) {
        const struct rows rows = rows_of(z, f->stage->conv.kernel, i, n);
        sum += f->sums != NULL ? f->sums[i * norm->c + c] : sum_of_rows(z, &rows, c);
    }
    const float mean = (float)(sum / m);
    const double variance = CPU_SET(cpu_squares)(z, n, c, mean) / m;
    saved[c] = mean;
    saved[norm->c + c] = (float)(1 / sqrt(variance + (double)norm->eps));
    running_mean[c] = norm->momentum * mean + (1 - norm->momentum) * running_mean[c];
    running_var[c] =
        norm->momentum * (float)(variance * m / (m - 1)) + (1 - norm->momentum) * running_var[c];
}

/* ---- y ---- */

static void normalise(const struct forward *f, const struct rows *rows, int c) {
    const struct batchnorm *norm = &f->stage->norm;
    const float *saved = slice_data(norm->saved);
    const float mean = f->training ? saved[c] : slice_data(norm->running_mean)[c];
    const float invstd =
        f->training ? saved[norm->c + c] : 1 / sqrtf(slice_data(norm->running_var)[c] + norm->eps);
    const struct channel s = {mean, invstd * slice_data(norm->weight)[c],
                              slice_data(norm->bias)[c]};
    CPU_SET(cpu_normalise)(f->stage->y, rows, f->stage->z, c, norm->pool, s);
}

static void normalise_rows(void *context, const struct rows *rows) {
    const struct forward *f = context;
    for (int c = 0; c < f->stage->norm.c; c++)
        normalise(f, rows, c);
}

/* Channel c, block by block. */
static void normalise_channel(const struct forward *f, int c, int n) {
    const struct tensor *z = f->stage->z;
    for (int block = 0; block < block_count(n); block++) {
        const int images = block_images(n, block);
        const struct rows plane = {.data = tensor_row(z, block, images, 0, 0),
                                   .plane = plane_size(z, images),
                                   .block = block,
                                   .images = images,
                                   .count = z->h};
        normalise(f, &plane, c);
    }
}

void CPU_SET(cpu_stage)(struct host *d, const struct stage *stage, bool training, int n) {
    const int groups = block_count(n) * group_count(stage->z, stage->conv.kernel);
    const bool at_once = !training && group_rows(stage->conv.kernel) % stage->norm.pool == 0;
    take_rows *take = training ? take_sums : at_once ? normalise_rows : NULL;
    struct forward f = {.stage = stage, .training = training};
    tensor_read(stage->x, n);
    tensor_write(stage->z, n);
    tensor_write(stage->y, n);
    if (training) /* two floats for each double */
        f.sums = (void *)host_scratch(d, HOST_OP, 2 * (size_t)(groups * stage->z->c));
    const bool taken =
        CPU_SET(cpu_conv2d_forward)(d, stage->z, stage->x, &stage->conv, n, !at_once, take, &f);
    if (at_once && taken)
        return;
    if (!taken)
        f.sums = NULL;
#pragma omp parallel for num_threads(d->base.threads) schedule(dynamic)
    for (int c = 0; c < stage->norm.c; c++) {
        if (training)
            find_statistics(&f, c, groups, n);
        normalise_channel(&f, c, n);
    }
}

void CPU_SET(cpu_stage_backward)(struct host *d, const struct stage *stage, int n) {
    tensor_read(stage->x, n);
    tensor_read(stage->z, n);
    tensor_read(stage->dy, n);
    tensor_write(stage->dz, n);
    if (stage->dx != NULL)
        tensor_write(stage->dx, n);
    CPU_SET(cpu_batchnorm_backward)(d, stage->dz, stage->dy, stage->z, &stage->norm, n);
    CPU_SET(cpu_conv2d_backward)(d, stage->dx, stage->dz, stage->x, &stage->conv, n);
}
