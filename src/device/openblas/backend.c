/* The device itself: opening and closing it, its memory, its data set, its steps. */
#include "openblas.h"

#include "base/error.h"
#include "base/memory.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE__
#    include <xmmintrin.h>
#endif

/* Weight decay drives weights into the denormal numbers, which many processors compute with a
 * hundred times slower; here they count as zero. Threads inherit this from the one that makes them,
 * so it is set before the first parallel region. */
static void flush_denormals(void) {
#if defined __SSE__
    _mm_setcsr(_mm_getcsr() | 0x8040U); /* flush to zero, denormals are zero */
#elif defined __aarch64__
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | (UINT64_C(1) << 24)));
#endif
}

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
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, M, N, K, 1, a, K, b, N, 0, c, N);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, M, N, K, 1, a, K, bt, K, 0, ct, N);
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
    require(options->threads > 0);
    openblas_set_num_threads(1); /* the threads are ours */
    flush_denormals();
    if (!sgemm_is_right())
        return error_set(error, STATUS_DEVICE,
                         "%s with its kernels for '%s' multiplies matrices "
                         "wrongly on this processor; set OPENBLAS_CORETYPE=Haswell (or another "
                         "core that fits) in the environment, or install another OpenBLAS",
                         openblas_get_config(), openblas_get_corename());
    struct openblas *d = memory_new(1, sizeof *d);
    d->base.ops = &openblas_ops;
    d->threads = options->threads;
    *device = &d->base;
    return true;
}

static void openblas_close(struct device *device) {
    struct openblas *d = openblas_of(device);
    for (struct owned *next; d->owned != NULL; d->owned = next) {
        next = d->owned->next;
        free(d->owned);
    }
    free(d->scratch);
    free(d);
}

static void openblas_describe(const struct device *device, char *text, size_t size) {
    char version[64] = "";
    sscanf(openblas_get_config(), "OpenBLAS %63s", version);
    int threads = device == NULL ? 0 : ((const struct openblas *)(const void *)device)->threads;
    int used =
        snprintf(text, size, "OpenBLAS %s, kernels for %s", version, openblas_get_corename());
    if (threads > 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ", %d thread%s", threads,
                 threads > 1 ? "s" : "");
}

static size_t openblas_memory(const struct device *device) {
    return ((const struct openblas *)(const void *)device)->bytes;
}

/* Zeroed memory that close() frees. */
static void *own(struct openblas *d, size_t count, size_t size) {
    struct owned *owned;
    require(count <= (SIZE_MAX - sizeof *owned) / size);
    owned = memory_new(1, sizeof *owned + count * size);
    owned->next = d->owned;
    d->owned = owned;
    d->bytes += count * size;
    return owned->memory;
}

float *openblas_scratch(struct openblas *device, size_t count) {
    if (count > device->scratch_size) {
        free(device->scratch);
        device->scratch = memory_new(count, sizeof *device->scratch);
        device->bytes += (count - device->scratch_size) * sizeof *device->scratch;
        device->scratch_size = count;
    }
    return device->scratch;
}

static struct tensor *tensor_new(struct device *device, int n, int c, int h, int w) {
    struct openblas *d = openblas_of(device);
    struct tensor *tensor = own(d, 1, sizeof *tensor);
    tensor->image = (size_t)c * (size_t)h * (size_t)w;
    tensor->capacity = n;
    tensor->data = own(d, (size_t)n * tensor->image, sizeof *tensor->data);
    return tensor;
}

static struct block *block_new(struct device *device, size_t count) {
    struct openblas *d = openblas_of(device);
    struct block *block = own(d, 1, sizeof *block);
    block->count = count;
    block->data = own(d, count, sizeof *block->data);
    return block;
}

static void upload(struct device *device, struct slice to, const float *from, size_t count) {
    (void)device;
    require(to.offset + count <= to.block->count);
    memcpy(slice_data(to), from, count * sizeof *from);
}

static bool download(struct device *device, float *to, struct slice from, size_t count,
                     struct error *error) {
    (void)device, (void)error;
    require(from.offset + count <= from.block->count);
    memcpy(to, slice_data(from), count * sizeof *to);
    return true;
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

static struct loader *loader_new(struct device *device, const uint8_t *records, int64_t count,
                                 int c, int h, int w) {
    struct openblas *d = openblas_of(device);
    struct loader *loader = own(d, 1, sizeof *loader);
    loader->records = records;
    loader->count = count;
    loader->pixels = (size_t)c * (size_t)h * (size_t)w;
    loader->order = own(d, (size_t)count, sizeof *loader->order);
    loader->losses = own(d, (size_t)count, sizeof *loader->losses);
    loader->predicted = own(d, (size_t)count, sizeof *loader->predicted);
    return loader;
}

static void loader_rewind(struct device *device, struct loader *loader, const uint32_t *order,
                          int64_t length) {
    (void)device;
    require(length <= loader->count);
    memcpy(loader->order, order, (size_t)length * sizeof *order);
    loader->length = length;
    loader->next = loader->steps = 0;
}

static bool losses(struct device *device, const struct loader *loader, float *to, int64_t first,
                   int64_t count, struct error *error) {
    (void)device, (void)error;
    require(first + count <= loader->steps);
    memcpy(to, loader->losses + first, (size_t)count * sizeof *to);
    return true;
}

static bool predictions(struct device *device, const struct loader *loader, uint8_t *classes,
                        int64_t count, struct error *error) {
    (void)device, (void)error;
    require(count <= loader->next);
    memcpy(classes, loader->predicted, (size_t)count);
    return true;
}

static void repeat(struct device *device, struct program *program, int64_t times) {
    (void)device;
    while (times-- > 0)
        program->body(program->context);
}

static void load_batch(struct device *device, struct tensor *x, struct loader *loader, int n) {
    float value[256]; /* of each byte: (pixel/255 - 0.5) / 0.5, rounded as PyTorch rounds it */
    for (int i = 0; i < 256; i++)
        value[i] = ((float)i / 255.0F - 0.5F) / 0.5F;
    require(loader->next + n <= loader->length && n <= x->capacity && x->image == loader->pixels);
#pragma omp parallel for num_threads(openblas_of(device)->threads) schedule(static)
    for (int i = 0; i < n; i++) {
        const size_t image = loader->order[loader->next + i];
        const uint8_t *pixels = loader->records + image * (1 + loader->pixels) + 1;
        float *to = x->data + (size_t)i * x->image;
        for (size_t j = 0; j < loader->pixels; j++)
            to[j] = value[pixels[j]];
    }
    loader->next += n;
}

static void adam_seek(struct device *device, int64_t step) {
    openblas_of(device)->adam_steps = step;
}

const struct device_ops openblas_ops = {
    .name = "openblas",
    .open = openblas_open,
    .close = openblas_close,
    .describe = openblas_describe,
    .memory = openblas_memory,
    .tensor_new = tensor_new,
    .block_new = block_new,
    .upload = upload,
    .download = download,
    .tensor_upload = tensor_upload,
    .tensor_download = tensor_download,
    .loader_new = loader_new,
    .loader_rewind = loader_rewind,
    .losses = losses,
    .predictions = predictions,
    .repeat = repeat,
    .load_batch = load_batch,
    .conv2d_forward = openblas_conv2d_forward,
    .conv2d_backward = openblas_conv2d_backward,
    .batchnorm_forward = openblas_batchnorm_forward,
    .batchnorm_backward = openblas_batchnorm_backward,
    .linear_forward = openblas_linear_forward,
    .linear_backward = openblas_linear_backward,
    .cross_entropy = openblas_cross_entropy,
    .adam_step = openblas_adam_step,
    .adam_seek = adam_seek,
};
