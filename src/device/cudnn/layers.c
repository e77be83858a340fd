/* The ops: which plan, product or kernel computes what.
 *
 * A step of few images is made of short kernels, and starting one takes longer than its work. So
 * within a program, where nobody else looks, two things are put off:
 *  - the bias of a product stays a promise, the tensor's `addend`. Batch normalisation and the loss
 *    add it as they read; all else has it added first.
 *  - the gradients of all biases are summed by one kernel, before Adam wants them or a tensor that
 *    they come from is overwritten.
 * The arithmetic is the same, so the bits are. */
#include "gpu.h"

/* Blocks that share a channel of n images. */
static int splits_for(int n) {
    return n < KERNEL_SPLITS ? n : KERNEL_SPLITS;
}

/* ---- what is put off ---- */

const float *for_reading(struct gpu *d, const struct tensor *tensor) {
    const int n = tensor->promise->images;
    const int64_t count = (int64_t)n * tensor->c * tensor->plane;
    if (tensor->promise->addend != NULL)
        LAUNCH(d, add_bias, (count + KERNEL_BLOCK - 1) / KERNEL_BLOCK, 1, .y = tensor->data,
               .bias = tensor->promise->addend, .n = n, .c = tensor->c, .plane = tensor->plane);
    tensor->promise->addend = NULL;
    return tensor->data;
}

float *for_writing(struct gpu *d, const struct tensor *tensor) {
    if (tensor->promise->owes)
        settle_gradients(d);
    tensor->promise->addend = NULL;
    return tensor->data;
}

static void add_bias(struct gpu *d, const struct tensor *y, struct slice bias, int n) {
    y->promise->addend = slice_data(bias);
    y->promise->images = n;
    if (d->running == NULL)
        for_reading(d, y);
}

void settle_gradients(struct gpu *d) {
    int channels = 0, splits = 0;
    for (int i = 0; i < d->owed.jobs; i++) {
        const struct bias_gradient *job = &d->owed.job[i];
        channels += job->c;
        splits = splits_for(job->n) > splits ? splits_for(job->n) : splits;
        d->owed_by[i]->owes = false;
    }
    d->owed.partial = d->partial;
    if (d->owed.jobs > 0)
        cudnn_launch(d, KERNEL_bias_gradients, channels, splits, &d->owed);
    d->owed.jobs = 0;
}

static void bias_gradient(struct gpu *d, struct slice dbias, const struct tensor *dy, int n) {
    const struct bias_gradient job = {slice_data(dbias), for_reading(d, dy), n, dy->c, dy->plane};
    int channels = job.c;
    bool again = false;
    for (int i = 0; i < d->owed.jobs; i++) {
        channels += d->owed.job[i].c;
        again = again || d->owed.job[i].dbias == job.dbias;
    }
    if (d->owed.jobs == KERNEL_JOBS || channels > KERNEL_CHANNELS || again)
        settle_gradients(d);
    require(job.c <= KERNEL_CHANNELS);
    d->owed_by[d->owed.jobs] = dy->promise;
    d->owed.job[d->owed.jobs++] = job;
    dy->promise->owes = true;
    if (d->running == NULL)
        settle_gradients(d);
}

/* ---- convolution ---- */

/* The largest power of two, up to 16, that divides the three addresses. */
static int alignment_of(const void *a, const void *b, const void *c) {
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | 16;
    return (int)(all & (~all + 1));
}

static bool same(const struct convolution *a, const struct convolution *b) {
    return a->kind == b->kind && a->n == b->n && a->in == b->in && a->out == b->out &&
           a->kernel == b->kernel && a->pad == b->pad && a->h == b->h && a->w == b->w &&
           a->alignment == b->alignment;
}

/* At least so many bytes for what is queued next; smaller ones of before stay, since graphs may
 * have them. NULL if the device has failed. */
static void *workspace_of(struct gpu *d, size_t bytes) {
    if (bytes > d->workspace_size) {
        d->workspace = device_memory(d, bytes);
        d->workspace_size = bytes;
    }
    return d->workspace;
}

/* Chooses a plan, and keeps it. */
static struct plan *add_plan(struct gpu *d, const struct convolution *convolution) {
    struct error error;
    struct plan *plan = plan_new(&d->planner, convolution, &error);
    if (plan == NULL) {
        gpu_failed(d, &error);
        return NULL;
    }
    plan->next = d->plans;
    d->plans = plan;
    return plan;
}

/* The plan of a convolution, chosen when it is needed for the first time; NULL if the device has
 * failed. */
static const struct plan *plan_for(struct gpu *d, const struct convolution *convolution) {
    struct plan *plan = d->plans;
    while (plan != NULL && !same(&plan->convolution, convolution))
        plan = plan->next;
    if (plan == NULL && !d->failed)
        plan = add_plan(d, convolution);
    return d->failed ? NULL : plan;
}

static void convolve(struct gpu *d, int kind, const struct conv2d *conv, const float *x,
                     const float *w, const float *y, int n) {
    const struct convolution convolution = {kind,
                                            n,
                                            conv->in,
                                            conv->out,
                                            conv->kernel,
                                            conv->pad,
                                            conv->h,
                                            conv->w,
                                            alignment_of(x, w, y)};
    const struct plan *plan = plan_for(d, &convolution);
    struct error error;
    if (plan == NULL)
        return;
    void *workspace = workspace_of(d, plan->workspace);
    if (!d->failed && !plan_execute(plan, &d->planner, x, w, y, workspace, &error))
        gpu_failed(d, &error);
}

static int quotient_up(int a, int b) {
    return (a + b - 1) / b;
}

_Static_assert(KERNEL_ROOM / KERNEL_BLOCK >= KERNEL_IN * KERNEL_OUT, "room for all sums");

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Of cuDNN's engines for this one, those that are strict and repeatable use a few multiprocessors;
 * and one of them, which says nothing of it, computes by Winograd's method, a thousand times less
 * exactly. So it is a kernel of our own. Its blocks are at most two for each of an H100's
 * multiprocessors; its tiles are as even as can be, and smaller where there would be too few. */
static void weight_gradient(struct gpu *d, const struct conv2d *conv, const float *x,
                            const float *dy, int n) {
    enum { MOST_BLOCKS = 2 * 132, FEWEST_TILES = 33, WIDEST = 32, BANKS = 16 };
    const int edge = conv->kernel - 1, area = conv->kernel * conv->kernel;
    const int h = conv->h + 2 * conv->pad - edge, w = conv->w + 2 * conv->pad - edge;
    const int in_groups = quotient_up(conv->in, KERNEL_IN);
    const int out_groups = quotient_up(conv->out, KERNEL_OUT);
    const int columns = quotient_up(w, quotient_up(w, WIDEST));
    int pitch = columns + edge, rows = least(n * h / FEWEST_TILES, KERNEL_TILE / columns);
    rows = quotient_up(h, quotient_up(h, rows > 1 ? rows : 1));
    while (pitch % BANKS != conv->kernel % BANKS) /* then the taps are in different banks */
        pitch++;
    const int room = KERNEL_X / (KERNEL_IN * (rows + edge) * pitch);
    require(area <= KERNEL_BLOCK && room > 0);
    const int ins = least(in_groups, least(room, KERNEL_BLOCK / area));
    const int outs = least(out_groups, least(KERNEL_OUTS, KERNEL_BLOCK / (area * ins)));
    const int groups = quotient_up(in_groups, ins) * quotient_up(out_groups, outs);
    const int tiles = n * quotient_up(h, rows) * quotient_up(w, columns);
    const int splits = least(tiles, quotient_up(MOST_BLOCKS, groups));
    const int count = conv->out * conv->in * area;
    float *partial = workspace_of(d, sizeof(float) * (size_t)splits * (size_t)count);
    LAUNCH(d, weight_gradient, groups, splits, .partial = partial, .x = x, .dy = dy, .n = n,
           .in = conv->in, .out = conv->out, .kernel = conv->kernel, .pad = conv->pad, .h = conv->h,
           .w = conv->w, .ins = ins, .outs = outs, .rows = rows, .columns = columns,
           .pitch = pitch);
    LAUNCH(d, sum_partial, quotient_up(count, KERNEL_ADDED), 1, .to = slice_data(conv->dweight),
           .partial = partial, .count = count, .parts = splits);
}

void cudnn_conv2d_forward(struct device *device, struct tensor *y, const struct tensor *x,
                          const struct conv2d *conv, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    convolve(d, CONV_FORWARD, conv, for_reading(d, x), slice_data(conv->weight), for_writing(d, y),
             n);
    add_bias(d, y, conv->bias, n);
}

void cudnn_conv2d_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *x, const struct conv2d *conv, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    weight_gradient(d, conv, for_reading(d, x), for_reading(d, dy), n);
    bias_gradient(d, conv->dbias, dy, n);
    if (dx != NULL)
        convolve(d, CONV_BACKWARD_DATA, conv, for_writing(d, dx), slice_data(conv->weight),
                 dy->data, n);
}

/* ---- batch normalisation ---- */

static struct normal_input input_of(const struct tensor *x, const struct batchnorm *norm, int n) {
    require(norm->c <= KERNEL_CHANNELS);
    return (struct normal_input){.x = x->data,
                                 .addend = x->promise->addend,
                                 .weight = slice_data(norm->weight),
                                 .bias = slice_data(norm->bias),
                                 .n = n,
                                 .c = norm->c,
                                 .h = norm->h,
                                 .w = norm->w,
                                 .pool = norm->pool};
}

void cudnn_batchnorm_forward(struct device *device, struct tensor *y, const struct tensor *x,
                             const struct batchnorm *norm, bool training, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    const struct normal_input in = input_of(x, norm, n);
    float *saved = slice_data(norm->saved);
    if (training)
        LAUNCH(d, batch_sums, norm->c, splits_for(n), .partial = d->partial, .in = in);
    LAUNCH(d, normalise, norm->c, splits_for(n), .y = for_writing(d, y), .mean = saved,
           .invstd = saved + norm->c, .running_mean = slice_data(norm->running_mean),
           .running_var = slice_data(norm->running_var), .partial = training ? d->partial : NULL,
           .in = in, .eps = norm->eps, .momentum = norm->momentum);
}

void cudnn_batchnorm_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                              const struct tensor *x, const struct batchnorm *norm, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    const struct normal_input in = input_of(x, norm, n);
    const float *mean = slice_data(norm->saved), *invstd = mean + norm->c;
    LAUNCH(d, gradient_sums, norm->c, splits_for(n), .partial = d->partial,
           .dy = for_reading(d, dy), .mean = mean, .invstd = invstd, .in = in);
    LAUNCH(d, normalise_gradient, norm->c, splits_for(n), .dx = for_writing(d, dx),
           .dweight = slice_data(norm->dweight), .dbias = slice_data(norm->dbias), .dy = dy->data,
           .mean = mean, .invstd = invstd, .partial = d->partial, .in = in);
}

/* ---- Linear ---- */

/* cuBLAS counts columns first, so to it our x [n][in] is a matrix of `in` rows and n columns. */
static void product(struct gpu *d, cublasOperation_t of_a, cublasOperation_t of_b, int rows,
                    int columns, int depth, const float *a, int a_rows, const float *b, int b_rows,
                    float *c) {
    const float one = 1, zero = 0;
    CUBLAS(d, cublasSgemm, d->blas, of_a, of_b, rows, columns, depth, &one, a, a_rows, b, b_rows,
           &zero, c, rows);
}

void cudnn_linear_forward(struct device *device, struct tensor *y, const struct tensor *x,
                          const struct linear *linear, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    const int in = linear->in, out = linear->out;
    product(d, CUBLAS_OP_T, CUBLAS_OP_N, out, n, in, slice_data(linear->weight), in,
            for_reading(d, x), in, for_writing(d, y));
    add_bias(d, y, linear->bias, n);
}

void cudnn_linear_backward(struct device *device, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *x, const struct linear *linear, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    const int in = linear->in, out = linear->out;
    product(d, CUBLAS_OP_N, CUBLAS_OP_N, in, n, out, slice_data(linear->weight), in,
            for_reading(d, dy), out, for_writing(d, dx));
    product(d, CUBLAS_OP_N, CUBLAS_OP_T, in, out, n, for_reading(d, x), in, dy->data, out,
            slice_data(linear->dweight));
    bias_gradient(d, linear->dbias, dy, n);
}

/* ---- loss and optimiser ---- */

/* The logits must be there afterwards, so the kernel writes them, too, if it adds to them. */
void cudnn_cross_entropy(struct device *device, struct tensor *dlogits, const struct tensor *logits,
                         struct loader *loader, int n) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    cudnn_loader_advance(d, loader, 0, 1);
    LAUNCH(d, cross_entropy, 1, 1, .logits = logits->data,
           .dlogits = dlogits == NULL ? NULL : for_writing(d, dlogits), .losses = loader->losses,
           .predicted = loader->predicted, .addend = logits->promise->addend,
           .records = loader->records, .order = loader->order, .cursor = loader->cursor, .n = n,
           .classes = logits->c * logits->plane, .pixels = loader->pixels);
    logits->promise->addend = NULL;
}

void cudnn_adam_step(struct device *device, const struct adam *adam) {
    struct gpu *d = gpu_of(device);
    if (d->failed)
        return;
    const int64_t blocks = ((int64_t)adam->count + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
    settle_gradients(d);
    LAUNCH(d, adam, blocks, 1, .w = adam->parameters->data, .m = adam->exp_avg->data,
           .v = adam->exp_avg_sq->data, .dw = adam->gradients->data, .clock = d->clock,
           .count = (int64_t)adam->count, .lr = adam->lr, .beta1 = adam->beta1,
           .beta2 = adam->beta2, .eps = adam->eps, .weight_decay = adam->weight_decay);
}

void cudnn_adam_seek(struct device *device, int64_t step) {
    struct gpu *d = gpu_of(device);
    const struct adam_clock clock = {.steps = step};
    copy_to_device(d, d->clock, &clock, sizeof clock);
}
