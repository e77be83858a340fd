/* What a step consists of: its ops become a list of launches when it is made, and the plans and the
 * working memory are chosen then. That is for one launch at a time, and for the sums of a weight
 * gradient's parts behind it.
 *
 * A step of few images is made of short kernels, and starting one takes longer than its work. So a
 * convolution is computed without its bias, which batch normalisation adds as it reads; the loss
 * adds that of the logits; and the gradients of all biases are summed by one kernel. */
#include "cudnn.h"

/* c [rows][columns] = a b. cuBLAS counts columns first, so to it our x [n][in] is a matrix of `in`
 * rows and n columns. */
struct product {
    cublasOperation_t of_a, of_b;
    int rows, columns, depth;
    const float *a;
    int a_rows;
    const float *b;
    int b_rows;
    float *c;
};

/* One call of a library. */
struct launch {
    enum { LAUNCH_KERNEL, LAUNCH_PRODUCT, LAUNCH_PLAN } kind;
    union {
        struct {
            enum kernel number;
            int x, y; /* blocks */
            union {
                struct load_args load;
                struct bias_args bias;
                struct weight_args weight;
                struct sum_args sum;
                struct norm_args norm;
                struct loss_args loss;
                struct adam_args adam;
                struct sgd_args sgd;
                struct muon_args muon;
                struct average_args average;
            } args;
        } kernel;
        struct product product;
        struct plan *plan;
    };
};

struct cudnn_step {
    struct step base;
    int count;
    struct launch launches[];
};

enum { MOST_LAUNCHES = 6 }; /* of an op, with its bias's gradient */

/* A step that is being made. */
struct builder {
    struct cudnn *d;
    struct cudnn_step *step;
    bool training;
    const struct pass_data *pass;
    int n;
    struct bias_args biases; /* whose gradients are still to be summed */
    int channels;            /* of all of these */
};

static void add_launch(struct builder *b, struct launch launch) {
    b->step->launches[b->step->count++] = launch;
}

static void add_product(struct builder *b, struct product product) {
    add_launch(b, (struct launch){.kind = LAUNCH_PRODUCT, .product = product});
}

/* LAUNCH(b, adam, blocks, 1, .adam = {.w = w, ...}) adds a kernel on x times y blocks. */
#define LAUNCH(b, name, blocks_x, blocks_y, ...)                                                   \
    add_launch((b), (struct launch){.kind = LAUNCH_KERNEL,                                         \
                                    .kernel = {.number = KERNEL_##name,                            \
                                               .x = (blocks_x),                                    \
                                               .y = (blocks_y),                                    \
                                               .args = {__VA_ARGS__}}})

static int quotient_up(int a, int b) {
    return (a + b - 1) / b;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Of a tensor that has room for the batch. */
static float *data_of(const struct builder *b, const struct tensor *tensor) {
    require(b->n <= tensor->capacity);
    return tensor->data;
}

/* Blocks that share a channel. */
static int splits(const struct builder *b) {
    return least(b->n, KERNEL_SPLITS);
}

/* ---- gradients of biases ---- */

static void sum_bias_gradients(struct builder *b) {
    if (b->biases.jobs > 0)
        LAUNCH(b, bias_gradients, b->channels, splits(b), .bias = b->biases);
    b->biases.jobs = b->channels = 0;
}

static void add_bias_gradient(struct builder *b, struct slice dbias, const struct tensor *dy) {
    require(dy->c <= KERNEL_CHANNELS);
    if (b->biases.jobs == KERNEL_JOBS || b->channels + dy->c > KERNEL_CHANNELS)
        sum_bias_gradients(b);
    b->biases.job[b->biases.jobs++] =
        (struct bias_gradient){slice_data(dbias), data_of(b, dy), dy->c, dy->plane};
    b->channels += dy->c;
}

/* ---- convolution ---- */

static void free_plan(struct gpu *d, void *plan) {
    plan_free(plan, &cudnn_of(d)->planner);
}

static void convolve(struct builder *b, int kind, const struct conv2d *conv, const float *x,
                     const float *y) {
    const struct convolution convolution = {
        kind,      b->n,    conv->in, conv->out, conv->kernel,
        conv->pad, conv->h, conv->w,  x,         slice_data(conv->weight),
        y};
    struct gpu *d = &b->d->gpu;
    struct error error;
    if (d->failed)
        return;
    struct plan *plan = plan_new(&b->d->planner, &convolution, &error);
    if (plan != NULL) {
        add_launch(b, (struct launch){.kind = LAUNCH_PLAN, .plan = gpu_own(d, free_plan, plan)});
        void *workspace = gpu_working_memory(d, plan->workspace);
        if (d->failed || plan_bind(plan, &b->d->planner, workspace, &error))
            return;
    }
    gpu_failed(d, &error);
}

_Static_assert(KERNEL_ROOM / KERNEL_BLOCK >= KERNEL_IN * KERNEL_OUT, "room for all sums");

/* Of cuDNN's engines for this one, those that are strict and repeatable use a few multiprocessors;
 * and one of them, which says nothing of it, computes by Winograd's method, a thousand times less
 * exactly. So it is a kernel of our own. Its blocks are at most two for each of an H100's
 * multiprocessors; its tiles are as even as can be, and smaller where there would be too few. */
static void weight_gradient(struct builder *b, const struct conv2d *conv, const float *x,
                            const float *dy) {
    enum { MOST_BLOCKS = 2 * 132, FEWEST_TILES = 33, BANKS = 16 };
    const int edge = conv->kernel - 1, area = conv->kernel * conv->kernel, n = b->n;
    const int h = conv->h + 2 * conv->pad - edge, w = conv->w + 2 * conv->pad - edge;
    const int in_groups = quotient_up(conv->in, KERNEL_IN);
    const int out_groups = quotient_up(conv->out, KERNEL_OUT);
    int pitch = w + edge, rows = least(n * h / FEWEST_TILES, KERNEL_TILE / w);
    rows = quotient_up(h, quotient_up(h, rows > 1 ? rows : 1));
    while (pitch % BANKS != conv->kernel % BANKS) /* then the taps are in different banks */
        pitch++;
    const int room = KERNEL_X / (KERNEL_IN * (rows + edge) * pitch);
    require(area <= KERNEL_BLOCK && w <= KERNEL_TILE && room > 0);
    const int ins = least(in_groups, least(room, KERNEL_BLOCK / area));
    const int outs = least(out_groups, least(KERNEL_OUTS, KERNEL_BLOCK / (area * ins)));
    const int groups = quotient_up(in_groups, ins) * quotient_up(out_groups, outs);
    const int parts = least(n * quotient_up(h, rows), quotient_up(MOST_BLOCKS, groups));
    const int count = conv->out * conv->in * area;
    float *partial = gpu_working_memory(&b->d->gpu, sizeof(float) * (size_t)parts * (size_t)count);
    LAUNCH(b, weight_gradient, groups, parts,
           .weight = {partial, x, dy, n, conv->in, conv->out, conv->kernel, conv->pad, conv->h,
                      conv->w, ins, outs, rows, pitch});
    LAUNCH(b, sum_partial, quotient_up(count, KERNEL_ADDED), 1,
           .sum = {slice_data(conv->dweight), partial, count, parts});
}

/* ---- a stage: convolution, then batch normalisation ---- */

static struct norm_args norm_of(const struct builder *b, const struct stage *stage) {
    const struct batchnorm *norm = &stage->norm;
    float *mean = slice_data(norm->saved);
    require(norm->c <= KERNEL_CHANNELS);
    return (struct norm_args){.partial = b->d->partial,
                              .x = data_of(b, stage->z),
                              .addend = slice_data(stage->conv.bias),
                              .weight = slice_data(norm->weight),
                              .bias = slice_data(norm->bias),
                              .mean = mean,
                              .invstd = mean + norm->c,
                              .training = b->training,
                              .n = b->n,
                              .c = norm->c,
                              .h = norm->h,
                              .w = norm->w,
                              .pool = norm->pool,
                              .eps = norm->eps,
                              .momentum = norm->momentum};
}

static void add_stage(struct builder *b, const struct stage *stage) {
    struct norm_args norm = norm_of(b, stage);
    norm.y = data_of(b, stage->y);
    norm.running_mean = slice_data(stage->norm.running_mean);
    norm.running_var = slice_data(stage->norm.running_var);
    convolve(b, CONV_FORWARD, &stage->conv, data_of(b, stage->x), norm.x);
    if (b->training)
        LAUNCH(b, batch_sums, norm.c, splits(b), .norm = norm);
    LAUNCH(b, normalise, norm.c, splits(b), .norm = norm);
}

static void add_stage_backward(struct builder *b, const struct stage *stage) {
    struct norm_args norm = norm_of(b, stage);
    float *dz = norm.dx = data_of(b, stage->dz);
    norm.dy = data_of(b, stage->dy);
    norm.dweight = slice_data(stage->norm.dweight);
    norm.dbias = slice_data(stage->norm.dbias);
    LAUNCH(b, gradient_sums, norm.c, splits(b), .norm = norm);
    LAUNCH(b, normalise_gradient, norm.c, splits(b), .norm = norm);
    weight_gradient(b, &stage->conv, data_of(b, stage->x), dz);
    if (stage->dx != NULL)
        convolve(b, CONV_BACKWARD_DATA, &stage->conv, data_of(b, stage->dx), dz);
    add_bias_gradient(b, stage->conv.dbias, stage->dz);
}

/* ---- the other ops ---- */

static void add_load(struct builder *b, const struct tensor *images) {
    const int pixels = images->c * images->plane;
    require(pixels == b->pass->c * b->pass->h * b->pass->w);
    LAUNCH(b, load_batch, b->n, quotient_up(pixels, 4 * KERNEL_BLOCK),
           .load = {data_of(b, images), *b->pass, b->n});
}

static void add_head(struct builder *b, const struct head *head) {
    const int n = b->n, in = head->in, out = head->out;
    float *y = data_of(b, head->y);
    add_product(b, (struct product){CUBLAS_OP_T, CUBLAS_OP_N, out, n, in, slice_data(head->weight),
                                    in, data_of(b, head->x), in, y});
    require(out == b->pass->classes);
    LAUNCH(b, cross_entropy, 1, 1,
           .loss = {y, b->training ? data_of(b, head->dy) : NULL, slice_data(head->bias), *b->pass,
                    n, b->training ? head->label_smoothing : 0});
}

static void add_head_backward(struct builder *b, const struct head *head) {
    const int n = b->n, in = head->in, out = head->out;
    const float *dy = data_of(b, head->dy);
    add_product(b, (struct product){CUBLAS_OP_N, CUBLAS_OP_N, in, n, out, slice_data(head->weight),
                                    in, dy, out, data_of(b, head->dx)});
    add_product(b, (struct product){CUBLAS_OP_N, CUBLAS_OP_T, in, out, n, data_of(b, head->x), in,
                                    dy, out, slice_data(head->dweight)});
    add_bias_gradient(b, head->dbias, head->dy);
}

/* ---- optimisers ---- */

static int blocks_for(size_t count) {
    return (int)((count + KERNEL_BLOCK - 1) / KERNEL_BLOCK);
}

static struct group group_of(const struct range *range, int ranges) {
    struct group group = {.ranges = ranges};
    require(ranges <= MOST_RANGES);
    for (int i = 0; i < ranges; i++)
        group.range[i] = range[i];
    return group;
}

static int blocks_for_group(const struct group *group) {
    size_t count = 0;
    for (int i = 0; i < group->ranges; i++)
        count += group->range[i].count;
    return blocks_for(count);
}

static void add_adam(struct builder *b, const struct adam *adam) {
    const struct group group = group_of(adam->range, adam->ranges);
    sum_bias_gradients(b);
    LAUNCH(b, adam, blocks_for_group(&group), 1,
           .adam = {adam->parameters->data, adam->exp_avg->data, adam->exp_avg_sq->data,
                    adam->gradients->data, *b->pass, group, adam->lr, adam->beta1, adam->beta2,
                    adam->eps, adam->weight_decay, adam->decoupled});
}

static void add_sgd(struct builder *b, const struct sgd *sgd) {
    const struct group group = group_of(sgd->range, sgd->ranges);
    sum_bias_gradients(b);
    LAUNCH(b, sgd, blocks_for_group(&group), 1,
           .sgd = {sgd->parameters->data, sgd->momentum_buffer->data, sgd->gradients->data,
                   *b->pass, group, sgd->lr, sgd->momentum, sgd->weight_decay});
}

static void add_muon(struct builder *b, const struct muon *muon) {
    struct muon_args args = {.w = muon->parameters->data,
                             .m = muon->momentum_buffer->data,
                             .dw = muon->gradients->data,
                             .pass = *b->pass,
                             .lr = muon->lr,
                             .momentum = muon->momentum};
    require(muon->matrices <= MOST_MATRICES);
    for (int i = 0; i < muon->matrices; i++) {
        const struct matrix *matrix = &muon->matrix[i];
        require(1 <= matrix->rows && matrix->rows <= MOST_ROWS && matrix->rows <= matrix->columns);
        args.matrix[i] = *matrix;
    }
    sum_bias_gradients(b);
    LAUNCH(b, muon, muon->matrices, 1, .muon = args);
}

static void add_average(struct builder *b, const struct average *average) {
    LAUNCH(b, average, blocks_for(average->count), 1,
           .average = {average->average->data, average->of->data, *b->pass, (int64_t)average->count,
                       average->decay});
}

/* ---- the step ---- */

static void add_op(struct builder *b, const struct op *op) {
    switch (op->kind) {
    case OP_LOAD:
        add_load(b, op->images);
        break;
    case OP_STAGE:
        add_stage(b, op->stage);
        break;
    case OP_HEAD:
        add_head(b, op->head);
        break;
    case OP_HEAD_BACKWARD:
        add_head_backward(b, op->head);
        break;
    case OP_STAGE_BACKWARD:
        add_stage_backward(b, op->stage);
        break;
    case OP_ADAM:
        add_adam(b, op->adam);
        break;
    case OP_SGD:
        add_sgd(b, op->sgd);
        break;
    case OP_MUON:
        add_muon(b, op->muon);
        break;
    case OP_AVERAGE:
        add_average(b, op->average);
        break;
    }
}

static void queue_launch(struct cudnn *d, struct launch *launch) {
    void *parameters[] = {&launch->kernel.args};
    const struct product *p = &launch->product;
    const float one = 1, zero = 0;
    struct error error;
    switch (launch->kind) {
    case LAUNCH_KERNEL:
        CUDA(&d->gpu, cuLaunchKernel, d->kernels[launch->kernel.number], (unsigned)launch->kernel.x,
             (unsigned)launch->kernel.y, 1, KERNEL_BLOCK, 1, 1, 0, d->gpu.stream, parameters, NULL);
        break;
    case LAUNCH_PRODUCT:
        CUBLAS(d, cublasSgemm, d->blas, p->of_a, p->of_b, p->rows, p->columns, p->depth, &one, p->a,
               p->a_rows, p->b, p->b_rows, &zero, p->c, p->rows);
        break;
    case LAUNCH_PLAN:
        if (!plan_execute(launch->plan, &d->planner, &error))
            gpu_failed(&d->gpu, &error);
        break;
    }
}

static void queue_launches(struct gpu *gpu, struct step *step) {
    struct cudnn_step *s = (struct cudnn_step *)(void *)step;
    for (int i = 0; i < s->count && !gpu->failed; i++)
        queue_launch(cudnn_of(gpu), &s->launches[i]);
}

struct step *cudnn_step_new(struct device *device, const struct step_description *description) {
    struct gpu *gpu = gpu_of(device);
    const size_t most = MOST_LAUNCHES * (size_t)description->count;
    struct cudnn_step *step = gpu_host_memory(gpu, sizeof *step + most * sizeof step->launches[0]);
    struct builder b = {.d = cudnn_of(gpu),
                        .step = step,
                        .training = description->training,
                        .pass = description->pass == NULL ? NULL : &description->pass->data,
                        .n = description->n,
                        .biases = {.partial = cudnn_of(gpu)->partial, .n = description->n}};
    for (int i = 0; i < description->count && !gpu->failed; i++)
        add_op(&b, &description->ops[i]);
    sum_bias_gradients(&b);
    gpu_step_init(gpu, &step->base, description, queue_launches);
    return &step->base;
}
