/* The data set on the device, and the passes over it. */
#include "gpu.h"

#include <string.h>

struct dataset *gpu_dataset_new(struct device *device, const struct images *images) {
    struct gpu *d = gpu_of(device);
    struct dataset *dataset = gpu_host_memory(d, sizeof *dataset);
    const size_t record = 1 + (size_t)images->c * (size_t)images->h * (size_t)images->w;
    const size_t bytes = (size_t)images->count * record;
    *dataset = (struct dataset){gpu_device_memory(d, bytes), images->classes, images->c, images->h,
                                images->w};
    gpu_copy_to_device(d, dataset->records, images->records, bytes);
    return dataset;
}

struct pass *gpu_pass_new(struct device *device, struct dataset *dataset, int64_t images,
                          int64_t steps) {
    struct gpu *d = gpu_of(device);
    struct pass *pass = gpu_host_memory(d, sizeof *pass);
    const size_t views = (size_t)images * sizeof *pass->host_views;
    const size_t schedule = (size_t)steps * sizeof *pass->host_schedule;
    const size_t losses = (size_t)steps * sizeof *pass->host_losses;
    const size_t logits = (size_t)images * (size_t)dataset->classes * sizeof *pass->data.logits;
    pass->most.images = images;
    pass->most.steps = steps;
    pass->data = (struct pass_data){.records = dataset->records,
                                    .classes = dataset->classes,
                                    .c = dataset->c,
                                    .h = dataset->h,
                                    .w = dataset->w,
                                    .cursor = gpu_device_memory(d, sizeof *pass->data.cursor),
                                    .views = gpu_device_memory(d, views),
                                    .schedule = gpu_device_memory(d, schedule),
                                    .losses = gpu_device_memory(d, losses),
                                    .logits = gpu_device_memory(d, logits)};
    pass->host_cursor = gpu_pinned_memory(d, sizeof *pass->host_cursor);
    pass->host_views = gpu_pinned_memory(d, views);
    pass->host_schedule = gpu_pinned_memory(d, schedule);
    pass->host_losses = gpu_pinned_memory(d, losses);
    pass->sent = gpu_event_new(d);
    pass->newer.event = gpu_event_new(d);
    pass->older.event = gpu_event_new(d);
    return pass;
}

/* By way of pinned memory, from which the device takes it when it comes to that. */
static void send(struct gpu *d, void *to, void *pinned, const void *from, size_t bytes) {
    if (bytes == 0 || d->failed)
        return;
    memcpy(pinned, from, bytes);
    CUDA(d, cuMemcpyHtoDAsync, address(to), pinned, bytes, d->stream);
}

void gpu_pass_begin(struct device *device, struct pass *pass, const struct script *script) {
    struct gpu *d = gpu_of(device);
    const struct cursor cursor = {.steps_before = script->steps_before};
    const int64_t scheduled = script->schedule == NULL ? 0 : script->steps;
    require(script->images <= pass->most.images && script->steps <= pass->most.steps);
    CUDA(d, cuEventSynchronize, pass->sent); /* the script before */
    send(d, pass->data.cursor, pass->host_cursor, &cursor, sizeof cursor);
    send(d, pass->data.views, pass->host_views, script->views,
         (size_t)script->images * sizeof *script->views);
    send(d, pass->data.schedule, pass->host_schedule, script->schedule,
         (size_t)scheduled * sizeof *script->schedule);
    CUDA(d, cuEventRecord, pass->sent, d->stream);
    pass->script.images = script->images;
    pass->script.steps = script->steps;
    pass->has_schedule = script->schedule != NULL;
    pass->queued.images = pass->queued.steps = 0;
    pass->newer.steps = pass->older.steps = 0;
}

/* Each time to the event that is not the newer one: of what was sent before, that one still tells.
 */
void gpu_publish(struct gpu *d, struct pass *pass) {
    const struct published before = pass->newer;
    const int64_t count = pass->queued.steps - before.steps;
    if (count == 0)
        return;
    CUDA(d, cuMemcpyDtoHAsync, pass->host_losses + before.steps,
         address(pass->data.losses + before.steps), (size_t)count * sizeof *pass->host_losses,
         d->stream);
    CUDA(d, cuEventRecord, pass->older.event, d->stream);
    pass->newer = (struct published){pass->queued.steps, pass->older.event};
    pass->older = before;
}

bool gpu_losses(struct device *device, const struct pass *pass, float *losses, int64_t first,
                int64_t count, struct error *error) {
    struct gpu *d = gpu_of(device);
    const int64_t needed = first + count;
    require(d->failed || needed <= pass->queued.steps);
    CUDA(d, cuEventSynchronize,
         needed <= pass->older.steps ? pass->older.event : pass->newer.event);
    if (d->failed) {
        *error = d->failure;
        return false;
    }
    memcpy(losses, pass->host_losses + first, (size_t)count * sizeof *losses);
    return true;
}

bool gpu_logits(struct device *device, const struct pass *pass, float *logits, int64_t count,
                struct error *error) {
    require(gpu_of(device)->failed || count <= pass->queued.images);
    return gpu_copy_to_host(gpu_of(device), logits, pass->data.logits,
                            (size_t)count * (size_t)pass->data.classes * sizeof *logits, error);
}
