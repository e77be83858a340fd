#include "host.h"

#include "base/error.h"
#include "base/memory.h"

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

struct device *host_new(const struct device_ops *ops, const struct device_options *options) {
    require(options->threads > 0);
    flush_denormals();
    struct host *host = memory_new(1, sizeof *host);
    host->base.ops = ops;
    host->threads = options->threads;
    return &host->base;
}

void host_close(struct device *device) {
    struct host *d = host_of(device);
    for (struct owned *next; d->owned != NULL; d->owned = next) {
        next = d->owned->next;
        free(d->owned);
    }
    free(d->scratch);
    free(d);
}

size_t host_bytes(const struct device *device) {
    return ((const struct host *)(const void *)device)->bytes;
}

void *host_own(struct host *d, size_t count, size_t size) {
    struct owned *owned;
    require(count <= (SIZE_MAX - sizeof *owned) / size);
    owned = memory_new(1, sizeof *owned + count * size);
    owned->next = d->owned;
    d->owned = owned;
    d->bytes += count * size;
    return owned->memory;
}

float *host_scratch(struct host *host, size_t count) {
    if (count > host->scratch_size) {
        free(host->scratch);
        host->scratch = memory_new(count, sizeof *host->scratch);
        host->bytes += (count - host->scratch_size) * sizeof *host->scratch;
        host->scratch_size = count;
    }
    return host->scratch;
}

void host_describe_threads(const struct device *device, char *text, size_t size) {
    const int threads = ((const struct host *)(const void *)device)->threads;
    const size_t used = strlen(text);
    snprintf(text + used, size - used, ", %d thread%s", threads, threads > 1 ? "s" : "");
}

struct block *host_block_new(struct device *device, size_t count) {
    struct host *d = host_of(device);
    struct block *block = host_own(d, 1, sizeof *block);
    block->count = count;
    block->data = host_own(d, count, sizeof *block->data);
    return block;
}

void host_upload(struct device *device, struct slice to, const float *from, size_t count) {
    (void)device;
    require(to.offset + count <= to.block->count);
    memcpy(slice_data(to), from, count * sizeof *from);
}

bool host_download(struct device *device, float *to, struct slice from, size_t count,
                   struct error *error) {
    (void)device, (void)error;
    require(from.offset + count <= from.block->count);
    memcpy(to, slice_data(from), count * sizeof *to);
    return true;
}

struct loader *host_loader_new(struct device *device, const uint8_t *records, int64_t count, int c,
                               int h, int w) {
    struct host *d = host_of(device);
    struct loader *loader = host_own(d, 1, sizeof *loader);
    loader->records = records;
    loader->count = count;
    loader->pixels = (size_t)c * (size_t)h * (size_t)w;
    loader->order = host_own(d, (size_t)count, sizeof *loader->order);
    loader->losses = host_own(d, (size_t)count, sizeof *loader->losses);
    loader->predicted = host_own(d, (size_t)count, sizeof *loader->predicted);
    return loader;
}

void host_loader_rewind(struct device *device, struct loader *loader, const uint32_t *order,
                        int64_t length) {
    (void)device;
    require(length <= loader->count);
    memcpy(loader->order, order, (size_t)length * sizeof *order);
    loader->length = length;
    loader->next = loader->steps = 0;
}

bool host_losses(struct device *device, const struct loader *loader, float *to, int64_t first,
                 int64_t count, struct error *error) {
    (void)device, (void)error;
    require(first + count <= loader->steps);
    memcpy(to, loader->losses + first, (size_t)count * sizeof *to);
    return true;
}

bool host_predictions(struct device *device, const struct loader *loader, uint8_t *classes,
                      int64_t count, struct error *error) {
    (void)device, (void)error;
    require(count <= loader->next);
    memcpy(classes, loader->predicted, (size_t)count);
    return true;
}

void host_repeat(struct device *device, struct program *program, int64_t times) {
    (void)device;
    while (times-- > 0)
        program->body(program->context);
}

void host_adam_seek(struct device *device, int64_t step) {
    host_of(device)->adam_steps = step;
}

const uint8_t *host_pixels(const struct loader *loader, int64_t image) {
    return loader->records + loader->order[image] * (1 + loader->pixels) + 1;
}

void host_pixel_values(float values[256]) {
    for (int i = 0; i < 256; i++)
        values[i] = ((float)i / 255.0F - 0.5F) / 0.5F;
}

double host_cross_entropy(float *dz, uint8_t *predicted, const float *z, size_t stride, int classes,
                          int label, int n) {
    size_t best = 0;
    for (size_t k = 1; k < (size_t)classes; k++)
        if (z[k * stride] > z[best * stride])
            best = k;
    *predicted = (uint8_t)best;
    const double largest = (double)z[best * stride];
    double sum = 0; /* of e^(z - largest z), which cannot overflow */
    for (size_t k = 0; k < (size_t)classes; k++)
        sum += exp((double)z[k * stride] - largest);
    if (dz != NULL)
        for (size_t k = 0; k < (size_t)classes; k++) {
            const double softmax = exp((double)z[k * stride] - largest) / sum;
            dz[k * stride] = (float)((softmax - ((int)k == label)) / n);
        }
    return log(sum) + largest - (double)z[(size_t)label * stride];
}
