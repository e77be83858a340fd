/* The device itself: opening and closing it, its memory, its data set, its steps. */
#include "library.h"
#include "openblas.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Whether sgemm computes right here, in the shapes that a convolution uses. Some packaged versions
 * of OpenBLAS do not on some processors, and training would silently go wrong. */
static bool sgemm_is_right(void) {
    enum { M = 12, N = 140, K = 75 };
    static float a[M * K], b[K * N], bt[N * K], c[M * N], ct[M * N];
    for (int i = 0; i < M * K; i++)
        a[i] = (float)(i * 7 % 31 - 15) / 16;
    for (int i = 0; i < K; i++)
        for (int j = 0; j < N; j++)
            b[i * N + j] = bt[j * K + i] = (float)((i * N + j) * 5 % 29 - 14) / 16;
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, M, N, K, 1, a, K, b, N, 0, c,
                         N);
    openblas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, M, N, K, 1, a, K, bt, K, 0, ct,
                         N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0; /* exact: small multiples of 1/256 */
            for (int k = 0; k < K; k++)
                sum += a[i * K + k] * b[k * N + j];
            /* written so that a NaN is wrong, too */
            if (!(fabsf(c[i * N + j] - sum) <= 1e-3F && fabsf(ct[i * N + j] - sum) <= 1e-3F))
                return false;
        }
    return true;
}

static bool openblas_open(struct device **device, const struct device_options *options,
                          struct error *error) {
    struct device_options own = *options;
    if (own.threads > OPENBLAS_THREADS)
        own.threads = OPENBLAS_THREADS;
    if (!openblas_load(own.threads, error))
        return false;
    if (!sgemm_is_right())
        return error_set(error, STATUS_DEVICE,
                         "%s with its kernels for '%s' multiplies matrices "
                         "wrongly on this processor; set OPENBLAS_CORETYPE=Haswell (or another "
                         "core that fits) in the environment, or install another OpenBLAS",
                         openblas.openblas_get_config(), openblas.openblas_get_corename());
    *device = host_new(&openblas_ops, &own);
    return true;
}

static void openblas_describe(const struct device *device, char *text, size_t size) {
    char version[64] = "";
    sscanf(device == NULL ? OPENBLAS_VERSION : openblas.openblas_get_config(), " OpenBLAS %63s",
           version);
    if (device == NULL) { /* which loads nothing */
        snprintf(text, size, "built with OpenBLAS %s", version);
        return;
    }
    snprintf(text, size, "OpenBLAS %s, kernels for %s", version, openblas.openblas_get_corename());
    host_describe_threads(device, text, size);
}

static struct tensor *tensor_new(struct device *device, int n, int c, int h, int w) {
    struct host *d = host_of(device);
    struct tensor *tensor = host_own(d, 1, sizeof *tensor);
    tensor->image = (size_t)c * (size_t)h * (size_t)w;
    tensor->capacity = n;
    tensor->data = host_own(d, (size_t)n * tensor->image, sizeof *tensor->data);
    return tensor;
}

static void tensor_upload(struct device *device, struct tensor *to, const float *from, int n) {
    (void)device;
    require(n <= to->capacity);
    memcpy(to->data, from, (size_t)n * to->image * sizeof *from);
}

static bool tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error) {
    (void)device, (void)error;
    require(n <= from->capacity);
    memcpy(to, from->data, (size_t)n * from->image * sizeof *to);
    return true;
}

static void load_batch(struct device *device, struct tensor *x, struct loader *loader, int n) {
    float value[256];
    host_pixel_values(value);
    require(loader->next + n <= loader->length && n <= x->capacity && x->image == loader->pixels);
#pragma omp parallel for num_threads(host_of(device)->threads) schedule(static)
    for (int i = 0; i < n; i++) {
        const uint8_t *pixels = host_pixels(loader, loader->next + i);
        float *to = x->data + (size_t)i * x->image;
        for (size_t j = 0; j < loader->pixels; j++)
            to[j] = value[pixels[j]];
    }
    loader->next += n;
}

const struct device_ops openblas_ops = {
    .name = "openblas",
    .open = openblas_open,
    .close = host_close,
    .describe = openblas_describe,
    .memory = host_bytes,
    .tensor_new = tensor_new,
    .block_new = host_block_new,
    .upload = host_upload,
    .download = host_download,
    .tensor_upload = tensor_upload,
    .tensor_download = tensor_download,
    .loader_new = host_loader_new,
    .loader_rewind = host_loader_rewind,
    .losses = host_losses,
    .predictions = host_predictions,
    .repeat = host_repeat,
    .load_batch = load_batch,
    .conv2d_forward = openblas_conv2d_forward,
    .conv2d_backward = openblas_conv2d_backward,
    .batchnorm_forward = openblas_batchnorm_forward,
    .batchnorm_backward = openblas_batchnorm_backward,
    .linear_forward = openblas_linear_forward,
    .linear_backward = openblas_linear_backward,
    .cross_entropy = openblas_cross_entropy,
    .adam_step = openblas_adam_step,
    .adam_seek = host_adam_seek,
};
