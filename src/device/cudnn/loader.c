/* The data set on the device. */
#include "gpu.h"

#include <string.h>

struct loader *cudnn_loader_new(struct device *device, const uint8_t *records, int64_t count, int c,
                                int h, int w) {
    struct gpu *d = gpu_of(device);
    struct loader *loader = host_memory(d, sizeof *loader);
    const size_t images = (size_t)count, pixels = (size_t)c * (size_t)h * (size_t)w;
    loader->count = count;
    loader->pixels = (int)pixels;
    loader->records = device_memory(d, images * (1 + pixels));
    loader->order = device_memory(d, images * sizeof *loader->order);
    loader->cursor = device_memory(d, sizeof *loader->cursor);
    loader->losses = device_memory(d, images * sizeof *loader->losses);
    loader->predicted = device_memory(d, images);
    loader->host_order = pinned_memory(d, images * sizeof *loader->host_order);
    loader->host_losses = pinned_memory(d, images * sizeof *loader->host_losses);
    loader->order_uploaded = new_event(d);
    loader->newer.event = new_event(d);
    loader->older.event = new_event(d);
    copy_to_device(d, loader->records, records, images * (1 + pixels));
    return loader;
}

void cudnn_loader_rewind(struct device *device, struct loader *loader, const uint32_t *order,
                         int64_t length) {
    struct gpu *d = gpu_of(device);
    const size_t bytes = (size_t)length * sizeof *order;
    require(length <= loader->count);
    CUDA(d, cuEventSynchronize, loader->order_uploaded); /* of the pass before */
    if (!d->failed)
        memcpy(loader->host_order, order, bytes);
    CUDA(d, cuMemcpyHtoDAsync, address(loader->order), loader->host_order, bytes, d->stream);
    CUDA(d, cuEventRecord, loader->order_uploaded, d->stream);
    CUDA(d, cuMemsetD8Async, address(loader->cursor), 0, sizeof *loader->cursor, d->stream);
    loader->length = length;
    loader->next = loader->steps = 0;
    loader->newer.steps = loader->older.steps = 0;
}

void cudnn_loader_advance(struct gpu *d, struct loader *loader, int images, int losses) {
    struct recording *running = d->running;
    if (running != NULL) {
        require(running->loader == NULL || running->loader == loader);
        running->loader = loader;
    }
    if (d->capturing) {
        running->images += images;
        running->steps += losses;
        return;
    }
    require(loader->next + images <= loader->length);
    loader->next += images;
    loader->steps += losses;
}

void cudnn_load_batch(struct device *device, struct tensor *x, struct loader *loader, int n) {
    struct gpu *d = gpu_of(device);
    const int blocks = (loader->pixels + 4 * KERNEL_BLOCK - 1) / (4 * KERNEL_BLOCK);
    require(n <= x->capacity && x->c * x->plane == loader->pixels);
    cudnn_loader_advance(d, loader, n, 0);
    LAUNCH(d, load_batch, n, blocks, .x = for_writing(d, x), .records = loader->records,
           .order = loader->order, .cursor = loader->cursor, .n = n, .pixels = loader->pixels);
}

/* Each time to the event that is not the newer one: of what was sent before, that one still tells.
 */
void cudnn_publish(struct gpu *d, struct loader *loader) {
    const struct published before = loader->newer;
    const int64_t count = loader->steps - before.steps;
    if (count == 0)
        return;
    CUDA(d, cuMemcpyDtoHAsync, loader->host_losses + before.steps,
         address(loader->losses + before.steps), (size_t)count * sizeof *loader->losses, d->stream);
    CUDA(d, cuEventRecord, loader->older.event, d->stream);
    loader->newer = (struct published){loader->steps, loader->older.event};
    loader->older = before;
}

bool cudnn_losses(struct device *device, const struct loader *loader, float *losses, int64_t first,
                  int64_t count, struct error *error) {
    struct gpu *d = gpu_of(device);
    const int64_t needed = first + count;
    require(d->failed || needed <= loader->steps);
    if (needed > loader->newer.steps)
        cudnn_publish(d, (struct loader *)loader);
    CUDA(d, cuEventSynchronize,
         needed <= loader->older.steps ? loader->older.event : loader->newer.event);
    if (d->failed) {
        *error = d->failure;
        return false;
    }
    memcpy(losses, loader->host_losses + first, (size_t)count * sizeof *losses);
    return true;
}

bool cudnn_predictions(struct device *device, const struct loader *loader, uint8_t *classes,
                       int64_t count, struct error *error) {
    struct gpu *d = gpu_of(device);
    require(d->failed || count <= loader->next);
    return copy_to_host(d, classes, loader->predicted, (size_t)count, error);
}
