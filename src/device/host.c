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

struct device *host_new(const struct device_ops *ops, const struct host_kernels *kernels,
                        const struct device_options *options) {
    require(options->threads > 0);
    flush_denormals();
    struct host *host = memory_new(1, sizeof *host);
    host->base.ops = ops;
    host->kernels = kernels;
    host->base.threads = options->threads;
    return &host->base;
}

void host_close(struct device *device) {
    host_release(device, NULL);
    for (int i = 0; i < HOST_SCRATCHES; i++)
        free(host_of(device)->scratch[i].data);
    free(device);
}

size_t host_bytes(const struct device *device) {
    return ((const struct host *)(const void *)device)->bytes;
}

/* ---- memory ---- */

void *host_own(struct host *d, size_t count, size_t size) {
    struct owned *owned;
    require(count <= (SIZE_MAX - sizeof *owned) / size);
    owned = memory_new(1, sizeof *owned + count * size);
    owned->next = d->owned;
    owned->bytes = count * size;
    d->owned = owned;
    d->bytes += owned->bytes;
    return owned->memory;
}

void *host_mark(struct device *device) {
    return host_of(device)->owned;
}

void host_release(struct device *device, void *mark) {
    struct host *d = host_of(device);
    while (d->owned != mark) {
        struct owned *newest = d->owned;
        require(newest != NULL); /* else the mark has been released before */
        d->owned = newest->next;
        d->bytes -= newest->bytes;
        free(newest);
    }
}

float *host_scratch(struct host *host, enum host_scratch of, size_t count) {
    if (count > host->scratch[of].count) {
        free(host->scratch[of].data);
        host->scratch[of].data = memory_new(count, sizeof(float));
        host->bytes += (count - host->scratch[of].count) * sizeof(float);
        host->scratch[of].count = count;
    }
    return host->scratch[of].data;
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

/* ---- the data, and passes over them ---- */

struct dataset *host_dataset_new(struct device *device, const struct images *images) {
    struct dataset *dataset = host_own(host_of(device), 1, sizeof *dataset);
    dataset->images = *images;
    return dataset;
}

struct pass *host_pass_new(struct device *device, struct dataset *dataset, int64_t images,
                           int64_t steps) {
    struct host *d = host_of(device);
    struct pass *pass = host_own(d, 1, sizeof *pass);
    pass->images = &dataset->images;
    pass->most_images = images;
    pass->most_steps = steps;
    pass->views = host_own(d, (size_t)images, sizeof *pass->views);
    pass->schedule = host_own(d, (size_t)steps, sizeof *pass->schedule);
    pass->losses = host_own(d, (size_t)steps, sizeof *pass->losses);
    pass->logits =
        host_own(d, (size_t)images * (size_t)dataset->images.classes, sizeof *pass->logits);
    return pass;
}

void host_pass_begin(struct device *device, struct pass *pass, const struct script *script) {
    (void)device;
    require(script->images <= pass->most_images && script->steps <= pass->most_steps);
    memcpy(pass->views, script->views, (size_t)script->images * sizeof *pass->views);
    if (script->schedule != NULL)
        memcpy(pass->schedule, script->schedule, (size_t)script->steps * sizeof *pass->schedule);
    pass->script = *script;
    pass->script.views = pass->views;
    pass->script.schedule = script->schedule == NULL ? NULL : pass->schedule;
    pass->next = pass->steps = 0;
}

bool host_losses(struct device *device, const struct pass *pass, float *to, int64_t first,
                 int64_t count, struct error *error) {
    (void)device, (void)error;
    require(first + count <= pass->steps);
    memcpy(to, pass->losses + first, (size_t)count * sizeof *to);
    return true;
}

bool host_logits(struct device *device, const struct pass *pass, float *logits, int64_t count,
                 struct error *error) {
    (void)device, (void)error;
    require(count <= pass->next);
    memcpy(logits, pass->logits, (size_t)(count * pass->images->classes) * sizeof *logits);
    return true;
}

/* ---- steps ---- */

struct step *host_step_new(struct device *device, const struct step_description *description) {
    struct host *d = host_of(device);
    const size_t count = (size_t)description->count;
    struct step *step = host_own(d, 1, sizeof *step);
    struct op *ops = host_own(d, count, sizeof *ops);
    memcpy(ops, description->ops, count * sizeof *ops);
    step->description = *description;
    step->description.ops = ops;
    return step;
}

static void require_schedule(const struct pass *pass) {
    require(pass->steps > 0 && pass->script.schedule != NULL);
}

/* The batch begins at image `next` before it is loaded, and ends there afterwards. */
static void run_op(struct host *d, const struct op *op, const struct step_description *of) {
    const struct host_kernels *kernel = d->kernels;
    struct pass *pass = of->pass;
    switch (op->kind) {
    case OP_LOAD:
        require(pass->next + of->n <= pass->script.images && pass->steps < pass->script.steps);
        kernel->load(d, op->images, pass, of->n);
        pass->next += of->n;
        pass->steps++;
        break;
    case OP_STAGE:
        kernel->stage(d, op->stage, of->training, of->n);
        break;
    case OP_HEAD:
        require(pass->next >= of->n);
        pass->losses[pass->steps - 1] =
            (float)(kernel->head(d, op->head, of->training, pass, of->n) / of->n);
        break;
    case OP_HEAD_BACKWARD:
        kernel->head_backward(d, op->head, of->n);
        break;
    case OP_STAGE_BACKWARD:
        kernel->stage_backward(d, op->stage, of->n);
        break;
    case OP_ADAM:
        require_schedule(pass);
        kernel->adam(d, op->adam, pass);
        break;
    case OP_SGD:
        require_schedule(pass);
        kernel->sgd(d, op->sgd, pass);
        break;
    case OP_MUON:
        require_schedule(pass);
        kernel->muon(d, op->muon, pass);
        break;
    case OP_AVERAGE:
        require(pass->steps > 0);
        kernel->average(d, op->average, pass);
        break;
    }
}

void host_step_run(struct device *device, struct step *step, int64_t times) {
    const struct step_description *description = &step->description;
    for (; times > 0; times--)
        for (int i = 0; i < description->count; i++)
            run_op(host_of(device), &description->ops[i], description);
}

/* ---- for a backend's kernels ---- */

void host_pixel_values(float values[256]) {
    for (int i = 0; i < 256; i++)
        values[i] = ((float)i / 255.0F - 0.5F) / 0.5F;
}

/* The record of an image of the pass: its label, then its pixels. */
static const uint8_t *record_of(const struct pass *pass, int64_t image) {
    const struct images *of = pass->images;
    return of->records + pass->script.views[image].image * (size_t)(1 + of->c * of->h * of->w);
}

/* Which of `count` pixels in a line is seen at `at`, -1 if none is. */
static int pixel_at(int at, int count, bool reflected) {
    if (at >= 0 && at < count)
        return at;
    if (!reflected)
        return -1;
    return at < 0 ? -at : 2 * (count - 1) - at;
}

void host_load_row(float *x, size_t stride, const struct pass *pass, int64_t image, int row,
                   const float values[256]) {
    const struct view *view = &pass->script.views[image];
    const int h = pass->images->h, w = pass->images->w;
    const uint8_t *pixels = record_of(pass, image) + 1 + row * w;
    if (view->down == 0 && view->right == 0 && view->mirrored == 0) {
        for (int j = 0; j < w; j++)
            x[(size_t)j * stride] = values[pixels[j]];
        return;
    }
    const int top = row % h, y = pixel_at(top - view->down, h, view->reflected);
    for (int j = 0; j < w; j++) {
        const int at = pixel_at((view->mirrored ? w - 1 - j : j) - view->right, w, view->reflected);
        x[(size_t)j * stride] = values[y >= 0 && at >= 0 ? pixels[(y - top) * w + at] : 0];
    }
}

double host_cross_entropy(float *dz, const float *z, size_t stride, const struct head *head,
                          struct pass *pass, int64_t image, int n) {
    const size_t classes = (size_t)pass->images->classes;
    const double spread = dz == NULL ? 0 : head->label_smoothing / (double)classes;
    const double whole = dz == NULL ? 1 : 1 - head->label_smoothing;
    const int label = record_of(pass, image)[0];
    float *kept = pass->logits + (size_t)image * classes;
    double largest = (double)z[0], sum = 0; /* of e^(z - largest z), which cannot overflow */
    for (size_t k = 0; k < classes; k++) {
        kept[k] = z[k * stride];
        if ((double)kept[k] > largest)
            largest = (double)kept[k];
    }
    double all = 0;
    for (size_t k = 0; k < classes; k++) {
        sum += exp((double)kept[k] - largest);
        all += (double)kept[k];
    }
    for (size_t k = 0; dz != NULL && k < classes; k++) {
        const double softmax = exp((double)kept[k] - largest) / sum;
        dz[k * stride] = (float)((softmax - ((int)k == label ? whole + spread : spread)) / n);
    }
    return log(sum) + largest - whole * (double)kept[label] - (spread > 0 ? spread * all : 0);
}
