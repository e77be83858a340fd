#include "model.h"

#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the layers ---- */

enum { GAP = 3 }; /* numbers before and behind a slice; odd, so it is not aligned to anything */

static double *nothing(size_t count) {
    return doubles(floats(NULL, count), count);
}

static struct slice place(struct row *row, int count, float low, float high) {
    const size_t at = row->count + GAP, more = (size_t)count;
    double *longer = nothing(at + more + GAP);
    if (row->count > 0)
        memcpy(longer, row->values, row->count * sizeof *longer);
    memcpy(longer + at, uniform(more, low, high), more * sizeof *longer);
    *row = (struct row){longer, at + more + GAP};
    return (struct slice){NULL, at};
}

static size_t batch(const struct layer *l, struct shape shape) {
    return (size_t)l->n * volume(shape);
}

static size_t weights_of(const struct layer *l) {
    const struct conv2d *conv = &l->stage.conv;
    return (size_t)(l->is_head ? l->head.in * l->head.out
                               : conv->in * conv->out * conv->kernel * conv->kernel);
}

/* With about half of an image's columns all 0: what a convolution makes of them alone is the same
 * everywhere, to the bit. */
static void make_ties(const struct layer *l) {
    const size_t columns = (size_t)l->in.w, image = volume(l->in);
    const double *kept = grid((size_t)l->n * columns, 0, 1, 2);
    for (size_t i = 0; i < batch(l, l->in); i++)
        l->x[i] *= kept[i / image * columns + i % columns];
}

struct layer *model_stage(struct model *model, const struct stage_case *t) {
    static const char *const names[] = {[PLAIN] = "",
                                        [TIES] = ", with ties",
                                        [FAR] = ", mean far from 0",
                                        [DEAD] = ", all 0 after ReLU",
                                        [CONSTANT] = ", variance 0",
                                        [FLAT] = ", weight 0"};
    const int h = t->h + 2 * t->pad - t->kernel + 1, w = t->w + 2 * t->pad - t->kernel + 1;
    const bool far = t->data == FAR;
    struct layer *l = &model->layers[model->count++];
    struct conv2d *conv = &l->stage.conv;
    struct batchnorm *norm = &l->stage.norm;
    *l = (struct layer){.n = t->n,
                        .in = {t->in, t->h, t->w},
                        .between = {t->out, h, w},
                        .out = {t->out, h / t->pool, w / t->pool}};
    snprintf(l->label, sizeof l->label,
             "stage %d > %d, kernel %d, pad %d, pool %d, of %d x %d x %d%s", t->in, t->out,
             t->kernel, t->pad, t->pool, t->n, t->h, t->w, names[t->data]);
    *conv = (struct conv2d){
        .in = t->in, .out = t->out, .kernel = t->kernel, .pad = t->pad, .h = t->h, .w = t->w};
    *norm = (struct batchnorm){
        .c = t->out, .h = h, .w = w, .pool = t->pool, .eps = t->eps, .momentum = t->momentum};
    conv->weight = place(&model->parameters, (int)weights_of(l), far ? 0.5F : -1, far ? 1.5F : 1);
    conv->bias = place(&model->parameters, t->out, -1, 1);
    norm->weight = place(&model->parameters, t->out, -1, 1);
    norm->bias = place(&model->parameters, t->out, -1, 1);
    norm->running_mean = place(&model->statistics, t->out, -1, 1);
    norm->running_var = place(&model->statistics, t->out, 0.5F, 2);
    l->x = uniform(batch(l, l->in), far ? 5 : -1, far ? 7 : 1);
    l->dy = uniform(batch(l, l->out), -1, 1);
    if (t->data == CONSTANT)
        memset(l->x, 0, batch(l, l->in) * sizeof *l->x);
    else if (t->data != PLAIN && !far)
        make_ties(l);
    double *bias = model->parameters.values + conv->bias.offset;
    double *gamma = model->parameters.values + norm->weight.offset;
    double *beta = model->parameters.values + norm->bias.offset;
    for (int c = 0; c < t->out; c++) {
        gamma[c] += gamma[c] > 0 ? 0.5 : -0.5; /* of both signs */
        if (t->data == CONSTANT)
            bias[c] = 0.25 * (c + 1); /* whose mean is exact */
        if (t->data == FLAT)
            gamma[c] = 0;
        if ((t->data == FLAT || t->data == CONSTANT) && c % 3 == 0)
            beta[c] = 0; /* at the kink of ReLU */
        if (t->data == DEAD)
            beta[c] = -9;
    }
    return l;
}

struct layer *model_head(struct model *model, const struct head_case *t) {
    struct layer *l = &model->layers[model->count++];
    *l = (struct layer){.is_head = true,
                        .head = {.in = (int)volume(t->in), .out = t->out},
                        .n = t->n,
                        .in = t->in,
                        .out = {t->out, 1, 1}};
    snprintf(l->label, sizeof l->label, "head %zu > %d, of %d", volume(t->in), t->out, t->n);
    l->head.weight = place(&model->parameters, (int)weights_of(l), -1, 1);
    l->head.bias = place(&model->parameters, t->out, -1, 1);
    l->x = uniform(batch(l, l->in), -1, 1);
    l->dy = uniform(batch(l, l->out), -1, 1);
    l->images = images_new(t->n, (struct shape){1, 1, 1}, t->out);
    l->views = views_new(&l->images, t->n, false);
    return l;
}

/* ---- on a device ---- */

static struct slice in(struct block *block, struct slice slice) {
    return (struct slice){block, slice.offset};
}

void model_put(struct model *model, struct device *d) {
    const size_t parameters = model->parameters.count;
    const struct layer *first = &model->layers[0];
    const int room = first->n + model->spare;
    struct tensor *x = tensor_of(d, first->x, first->n, room, first->in);
    struct tensor *dx = tensor_of(d, NULL, room, room, first->in);
    model->device = d;
    model->weights = block_of(d, model->parameters.values, parameters);
    model->gradient_block = block_of(d, NULL, parameters);
    model->average_block = block_of(d, NULL, parameters);
    model->adam.exp_avg = d->ops->block_new(d, parameters);
    model->adam.exp_avg_sq = d->ops->block_new(d, parameters);
    model->sgd.momentum_buffer = model->muon.momentum_buffer = model->adam.exp_avg;
    model->adam.parameters = model->sgd.parameters = model->muon.parameters = model->weights;
    model->adam.gradients = model->sgd.gradients = model->muon.gradients = model->gradient_block;
    model->average = (struct average){parameters, 0.9, model->average_block, model->weights};
    model->running = block_of(d, model->statistics.values, model->statistics.count);
    model->gradients = (struct row){nothing(parameters), parameters};
    model->exp_avg = zeros(parameters), model->exp_avg_sq = zeros(parameters);
    model->averages = nothing(parameters);
    struct block *w = model->weights, *g = model->gradient_block;
    for (struct layer *l = model->layers; l < model->layers + model->count; l++) {
        struct tensor *y = tensor_of(d, NULL, room, room, l->out);
        struct tensor *dy = tensor_of(d, NULL, room, room, l->out);
        struct conv2d *conv = &l->stage.conv;
        struct batchnorm *norm = &l->stage.norm;
        struct head *head = &l->head;
        if (l->is_head) {
            head->weight = in(w, head->weight), head->dweight = in(g, head->weight);
            head->bias = in(w, head->bias), head->dbias = in(g, head->bias);
            head->x = x, head->y = y, head->dx = dx, head->dy = dy;
        } else {
            conv->weight = in(w, conv->weight), conv->dweight = in(g, conv->weight);
            conv->bias = in(w, conv->bias), conv->dbias = in(g, conv->bias);
            norm->weight = in(w, norm->weight), norm->dweight = in(g, norm->weight);
            norm->bias = in(w, norm->bias), norm->dbias = in(g, norm->bias);
            norm->running_mean = in(model->running, norm->running_mean);
            norm->running_var = in(model->running, norm->running_var);
            norm->saved = slice_of(d, NULL, 2 * (size_t)norm->c);
            l->stage.x = x, l->stage.y = y, l->stage.dx = dx, l->stage.dy = dy;
            l->stage.z = tensor_of(d, NULL, room, room, l->between);
            l->stage.dz = tensor_of(d, NULL, room, room, l->between);
        }
        x = y, dx = dy;
    }
}

/* ---- a layer alone, on a device ---- */

const char *const result_names[RESULTS] = {
    [Z] = "z",       [Y] = "y",   [STATISTICS] = "running statistics",
    [DZ] = "dz",     [DX] = "dx", [GRADIENTS] = "gradients",
    [LOSS] = "loss", [DY] = "dy", [EVALUATED] = "y in evaluation",
};

static struct row block_row(struct device *d, struct block *block, size_t count) {
    return (struct row){download(d, (struct slice){block, 0}, count), count};
}

static struct row tensor_row(struct device *d, const struct layer *l, const struct tensor *tensor,
                             struct shape shape) {
    return (struct row){tensor_values(d, tensor, l->n, shape), batch(l, shape)};
}

/* Fills with NaN again what a step is to write. */
static void clear(struct device *d, struct block *block, size_t count) {
    d->ops->upload(d, (struct slice){block, 0}, floats(NULL, count), count);
}

static void upload_batch(struct device *d, const struct layer *l, struct tensor *to,
                         const double *values, struct shape shape) {
    d->ops->tensor_upload(d, to, floats(values, batch(l, shape)), l->n);
}

static struct results run_stage(const struct model *model, struct results *alone) {
    struct device *d = model->device;
    const struct layer *l = &model->layers[0];
    const struct batchnorm *norm = &l->stage.norm;
    const size_t parameters = model->parameters.count;
    const struct op forward = {OP_STAGE, .stage = &l->stage};
    struct results r = {0};
    run_ops(d, &forward, 1, true, NULL, l->n);
    r.of[Z] = tensor_row(d, l, l->stage.z, l->between);
    r.of[Y] = tensor_row(d, l, l->stage.y, l->out);
    r.of[STATISTICS] = block_row(d, model->running, model->statistics.count);
    slice_values(d, norm->saved, 2 * (size_t)norm->c); /* for what is beside them */

    r.of[DY] = (struct row){zeros(batch(l, l->out)), batch(l, l->out)};
    memcpy(r.of[DY].values, l->dy, r.of[DY].count * sizeof(double));
    reference_batchnorm_decide(r.of[DY].values, r.of[Z].values, model->parameters.values, norm,
                               l->n);
    upload_batch(d, l, l->stage.dy, r.of[DY].values, l->out);
    for (int i = 0; i < (alone == NULL ? 1 : 2); i++) {
        struct results *gradients = i == 0 ? &r : alone;
        struct stage stage = l->stage;
        if (i == 1)
            stage.dx = NULL;
        clear(d, model->gradient_block, parameters);
        upload_batch(d, l, stage.dz, NULL, l->between);
        run_ops(d, &(struct op){OP_STAGE_BACKWARD, .stage = &stage}, 1, true, NULL, l->n);
        gradients->of[DZ] = tensor_row(d, l, stage.dz, l->between);
        gradients->of[GRADIENTS] = block_row(d, model->gradient_block, parameters);
    }
    r.of[DX] = tensor_row(d, l, l->stage.dx, l->in);

    const struct row *statistics = &model->statistics;
    d->ops->upload(d, (struct slice){model->running, 0},
                   floats(statistics->values, statistics->count), statistics->count);
    upload_batch(d, l, l->stage.y, NULL, l->out);
    run_ops(d, &forward, 1, false, NULL, l->n);
    r.of[EVALUATED] = tensor_row(d, l, l->stage.y, l->out);
    check(l->label, "running statistics in evaluation",
          block_row(d, model->running, statistics->count).values, statistics->values,
          statistics->count, 0);
    return r;
}

static struct results run_head(const struct model *model) {
    struct device *d = model->device;
    const struct layer *l = &model->layers[0];
    struct pass *pass = pass_of(d, &l->images, l->n, 1);
    const struct op forward[] = {{OP_LOAD, .images = d->ops->tensor_new(d, l->n, 1, 1, 1)},
                                 {OP_HEAD, .head = &l->head}};
    struct results r = {0};
    begin_pass(d, pass, l->views, l->n, NULL, 1, 0);
    run_ops(d, forward, 2, true, pass, l->n);
    r.of[Y] = tensor_row(d, l, l->head.y, l->out);
    r.of[DY] = tensor_row(d, l, l->head.dy, l->out);
    r.of[LOSS] = (struct row){losses(d, pass, 0, 1), 1};
    check(l->label, "logits", logits(d, pass, l->n, l->out.c), r.of[Y].values, r.of[Y].count, 0);

    upload_batch(d, l, l->head.dy, l->dy, l->out);
    run_ops(d, &(struct op){OP_HEAD_BACKWARD, .head = &l->head}, 1, true, NULL, l->n);
    r.of[DX] = tensor_row(d, l, l->head.dx, l->in);
    r.of[GRADIENTS] = block_row(d, model->gradient_block, model->parameters.count);

    begin_pass(d, pass, l->views, l->n, NULL, 1, 0);
    upload_batch(d, l, l->head.y, NULL, l->out);
    run_ops(d, forward, 2, false, pass, l->n);
    r.of[EVALUATED] = tensor_row(d, l, l->head.y, l->out);
    check(l->label, "loss in evaluation", losses(d, pass, 0, 1), r.of[LOSS].values, 1, 1e-6);
    return r;
}

struct results model_run(const struct model *model, struct device *d, struct results *alone) {
    void *mark = d->ops->mark(d);
    struct model m = *model;
    const struct layer *l = &m.layers[0];
    model_put(&m, d);
    const struct results r = l->is_head ? run_head(&m) : run_stage(&m, alone);
    check(l->label, "parameters (an input)", block_row(d, m.weights, m.parameters.count).values,
          m.parameters.values, m.parameters.count, 0);
    check(l->label, "x (an input)",
          tensor_row(d, l, l->is_head ? l->head.x : l->stage.x, l->in).values, l->x,
          batch(l, l->in), 0);
    d->ops->release(d, mark);
    return r;
}

/* ---- a layer alone, against the reference ---- */

static void check_result(const struct layer *l, const struct results *got, enum result result,
                         const double *want, double tolerance) {
    check(l->label, result_names[result], got->of[result].values, want, got->of[result].count,
          tolerance);
}

/* Whether z has the convolution's bias. Fails if it is right neither way, or if it is not as in all
 * other stages of the backend. */
static bool z_has_bias(const struct device *d, const struct model *model,
                       const struct results *got) {
    static const struct device_ops *known;
    static bool known_answer;
    const struct layer *l = &model->layers[0];
    const size_t c = (size_t)l->out.c, plane = volume(l->between) / c, count = got->of[Z].count;
    const double *z = got->of[Z].values, *w = model->parameters.values;
    const double *bias = w + l->stage.conv.bias.offset;
    double *with = zeros(count), *without = zeros(count);
    reference_conv2d_forward(with, l->x, w, &l->stage.conv, l->n);
    for (size_t i = 0; i < count; i++) {
        if (model->holes && isnan(z[i]))
            with[i] = NAN; /* which a convolution may carry further */
        without[i] = with[i] - bias[i / plane % c];
    }
    const bool answer = distance(z, with, count) < distance(z, without, count);
    check_result(l, got, Z, answer ? with : without, 2e-6);
    if (known == d->ops && answer != known_answer)
        fail_msg("%s: z %s the convolution's bias, unlike others", l->label,
                 answer ? "has" : "lacks");
    known = d->ops;
    known_answer = answer;
    return answer;
}

static double *squares(const double *row, size_t count) {
    double *to = zeros(count);
    for (size_t i = 0; i < count; i++)
        to[i] = row[i] * row[i];
    return to;
}

/* A slice of a result. */
static void check_part(const struct layer *l, const char *what, const struct results *got,
                       enum result result, const double *want, struct slice part, size_t count,
                       double tolerance) {
    check(l->label, what, got->of[result].values + part.offset, want + part.offset, count,
          tolerance);
}

/* Gradients, measured against the roots of the sums of squares. */
static void check_sums(const struct layer *l, const char *what, const struct results *got,
                       const double *want, const double *of_squares, struct slice part,
                       size_t count) {
    double sum = 0;
    for (size_t i = part.offset; i < part.offset + count; i++)
        sum += isnan(of_squares[i]) ? 0 : of_squares[i];
    check_within(l->label, what, got->of[GRADIENTS].values + part.offset, want + part.offset, count,
                 1e-5 * sqrt(sum));
}

/* Between the slices there is NaN, as before. */
static void check_gaps(const struct layer *l, const struct results *got, enum result result,
                       const double *want) {
    check_within(l->label, "beside the slices", got->of[result].values, want, got->of[result].count,
                 INFINITY);
}

/* In evaluation z was another one, with a rounding of its own. So where ReLU leaves little of it, y
 * is measured against what there was on both sides of 0. */
static void check_evaluation(const struct layer *l, const struct results *got, double *running,
                             const double *z, const struct row *w) {
    const size_t count = got->of[EVALUATED].count;
    double *y = zeros(count), *below = zeros(count), *negative = zeros(w->count);
    for (size_t i = 0; i < w->count; i++)
        negative[i] = -w->values[i];
    reference_batchnorm_forward(y, running, z, w->values, &l->stage.norm, false, l->n);
    reference_batchnorm_forward(below, running, z, negative, &l->stage.norm, false, l->n);
    check_within(l->label, result_names[EVALUATED], got->of[EVALUATED].values, y, count,
                 2e-6 * hypot(norm_of(y, count), norm_of(below, count)));
}

static void compare_stage(const struct device *d, const struct model *model,
                          const struct results *got, const struct results *alone) {
    const struct layer *l = &model->layers[0];
    const struct conv2d *conv = &l->stage.conv;
    const struct batchnorm *norm = &l->stage.norm;
    const size_t c = (size_t)l->out.c, plane = volume(l->between) / c, count = got->of[Z].count;
    const size_t parameters = model->parameters.count, statistics = model->statistics.count;
    const double *w = model->parameters.values, *made = got->of[DZ].values;
    double *z = zeros(count), *y = zeros(got->of[Y].count), *dz = zeros(count);
    double *dx = zeros(got->of[DX].count), *running = zeros(statistics);
    const bool has_bias = z_has_bias(d, model, got);
    for (size_t i = 0; i < count; i++)
        z[i] = got->of[Z].values[i] + (has_bias ? 0 : w[conv->bias.offset + i / plane % c]);
    memcpy(running, model->statistics.values, statistics * sizeof *running);
    check_evaluation(l, got, running, z, &model->parameters);
    reference_batchnorm_forward(y, running, z, w, norm, true, l->n);
    check_result(l, got, Y, y, 2e-6);
    check_part(l, "running_mean", got, STATISTICS, running, norm->running_mean, c, 2e-6);
    check_part(l, "running_var", got, STATISTICS, running, norm->running_var, c, 2e-6);
    check_gaps(l, got, STATISTICS, running);

    /* The gradients of the convolution are sums of which batch normalisation makes much cancel, of
     * the bias's all. So they are measured against what such a sum comes to where the signs are
     * random: the root of the sum of the squares. */
    double *g = nothing(parameters), *of_squares = nothing(parameters);
    reference_batchnorm_backward(dz, g, got->of[DY].values, z, w, norm, l->n);
    reference_conv2d_backward(dx, g, made, l->x, w, conv, l->n);
    reference_conv2d_backward(NULL, of_squares, squares(made, count),
                              squares(l->x, got->of[DX].count), w, conv, l->n);
    check_result(l, got, DX, dx, 2e-6);
    for (int i = 0; i < 2; i++) {
        const struct results *r = i == 0 ? got : alone;
        check_result(l, r, DZ, dz, 1e-5);
        check_part(l, "dweight of the norm", r, GRADIENTS, g, norm->weight, c, 1e-5);
        check_part(l, "dbias of the norm", r, GRADIENTS, g, norm->bias, c, 1e-5);
        check_sums(l, "dweight", r, g, of_squares, conv->weight, weights_of(l));
        check_sums(l, "dbias", r, g, of_squares, conv->bias, c);
        check_gaps(l, r, GRADIENTS, g);
    }
}

static void compare_head(const struct model *model, const struct results *got) {
    const struct layer *l = &model->layers[0];
    const struct head *head = &l->head;
    const double *w = model->parameters.values;
    const uint8_t *labels = labels_of(&l->images, l->views, l->n);
    double *y = zeros(got->of[Y].count), *dy = zeros(got->of[Y].count);
    double *dx = zeros(got->of[DX].count), *g = nothing(model->parameters.count);
    reference_linear_forward(y, l->x, w, head, l->n);
    check_result(l, got, Y, y, 2e-6);
    check_result(l, got, EVALUATED, y, 2e-6);
    const double loss = reference_cross_entropy(dy, got->of[Y].values, labels, head->out, 0, l->n);
    check_result(l, got, LOSS, &loss, 1e-6);
    check_result(l, got, DY, dy, 1e-6);
    reference_linear_backward(dx, g, l->dy, l->x, w, head, l->n);
    check_result(l, got, DX, dx, 2e-6);
    check_part(l, "dweight", got, GRADIENTS, g, head->weight, weights_of(l), 1e-5);
    check_part(l, "dbias", got, GRADIENTS, g, head->bias, (size_t)head->out, 1e-5);
    check_gaps(l, got, GRADIENTS, g);
}

void model_compare(const struct model *model, struct device *d) {
    const size_t rows = rows_mark();
    struct results alone = {0};
    const struct results got = model_run(model, d, &alone);
    if (model->layers[0].is_head)
        compare_head(model, &got);
    else
        compare_stage(d, model, &got, &alone);
    rows_release(rows);
}

/* ---- whole steps ---- */

const struct shape MODEL_IMAGE = {2, 5, 6};

static struct range between(struct slice first, size_t end) {
    return (struct range){first.offset, end - first.offset};
}

/* With rates that leave a hundred steps within the rounding that is allowed. */
static void share_out(struct model *model) {
    const struct conv2d *first = &model->layers[0].stage.conv, *conv = &model->layers[1].stage.conv;
    struct head *head = &model->layers[2].head;
    const int window = first->in * first->kernel * first->kernel;
    head->label_smoothing = 0.1;
    model->muon = (struct muon){
        .lr = 1,
        .momentum = 0.9,
        .matrices = 1,
        .matrix = {{.offset = first->weight.offset, .rows = first->out, .columns = window}}};
    model->sgd = (struct sgd){.lr = 1,
                              .momentum = 0.8,
                              .weight_decay = 1e-3,
                              .ranges = 1,
                              .range = {between(conv->weight, head->weight.offset)}};
    model->adam = (struct adam){.lr = 0.3,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-3,
                                .weight_decay = 1e-3,
                                .decoupled = true,
                                .ranges = 2,
                                .range = {between(first->bias, conv->weight.offset),
                                          between(head->weight, model->parameters.count)}};
}

struct model model_small(int batch) {
    struct model model = {0};
    model_stage(&model, &(struct stage_case){2, 3, 3, 1, 5, 6, batch, 2, PLAIN, 1e-2F, 0.1F});
    model_stage(&model, &(struct stage_case){3, 4, 2, 1, 2, 3, batch, 1, PLAIN, 1e-2F, 0.1F});
    model_head(&model, &(struct head_case){{4, 3, 4}, MODEL_CLASSES, batch});
    share_out(&model);
    return model;
}

struct step *model_step(const struct model *model, struct pass *pass, bool training, int n) {
    const struct layer *first = &model->layers[0], *last = first + model->count - 1;
    struct op ops[2 * MOST_LAYERS + 5];
    int count = 0;
    ops[count++] = (struct op){OP_LOAD, .images = first->stage.x};
    for (const struct layer *l = first; l < last; l++)
        ops[count++] = (struct op){OP_STAGE, .stage = &l->stage};
    ops[count++] = (struct op){OP_HEAD, .head = &last->head};
    if (training) {
        ops[count++] = (struct op){OP_HEAD_BACKWARD, .head = &last->head};
        for (const struct layer *l = last - 1; l >= first; l--)
            ops[count++] = (struct op){OP_STAGE_BACKWARD, .stage = &l->stage};
        ops[count++] = (struct op){OP_MUON, .muon = &model->muon};
        ops[count++] = (struct op){OP_SGD, .sgd = &model->sgd};
        ops[count++] = (struct op){OP_ADAM, .adam = &model->adam};
        ops[count++] = (struct op){OP_AVERAGE, .average = &model->average};
    }
    const struct step_description description = {ops, count, training, pass, n};
    return model->device->ops->step_new(model->device, &description);
}

double model_twin_step(struct model *model, double *logits, const struct images *images,
                       const struct view *views, int n, bool training, double schedule) {
    const int stages = model->count - 1;
    const struct layer *layers = model->layers;
    const struct head *head = &layers[stages].head;
    double *w = model->parameters.values, *g = model->gradients.values;
    double *z[MOST_LAYERS], *x[MOST_LAYERS] = {pixels_of(images, views, n)};
    for (int i = 0; i < stages; i++) {
        z[i] = zeros((size_t)n * volume(layers[i].between));
        x[i + 1] = zeros((size_t)n * volume(layers[i].out));
        reference_conv2d_forward(z[i], x[i], w, &layers[i].stage.conv, n);
        reference_batchnorm_forward(x[i + 1], model->statistics.values, z[i], w,
                                    &layers[i].stage.norm, training, n);
    }
    double *dlogits = zeros((size_t)(n * head->out)), *dy = zeros((size_t)(n * head->in));
    reference_linear_forward(logits, x[stages], w, head, n);
    const double loss = reference_cross_entropy(dlogits, logits, labels_of(images, views, n),
                                                head->out, training ? head->label_smoothing : 0, n);
    if (!training)
        return loss;
    reference_linear_backward(dy, g, dlogits, x[stages], w, head, n);
    for (int i = stages - 1; i >= 0; i--) {
        double *dz = zeros((size_t)n * volume(layers[i].between));
        reference_batchnorm_backward(dz, g, dy, z[i], w, &layers[i].stage.norm, n);
        dy = zeros((size_t)n * volume(layers[i].in));
        reference_conv2d_backward(dy, g, dz, x[i], w, &layers[i].stage.conv, n);
    }
    model->steps++;
    reference_muon(w, model->exp_avg, g, &model->muon, schedule);
    reference_sgd(w, model->exp_avg, g, &model->sgd, schedule);
    reference_adam(w, model->exp_avg, model->exp_avg_sq, g, &model->adam, schedule, model->steps);
    reference_average(model->averages, w, &model->average, model->steps);
    return loss;
}

void model_check(const struct model *model, const char *label) {
    struct device *d = model->device;
    const struct row averages = {model->averages, model->parameters.count};
    const struct row *rows[] = {&model->parameters, &model->gradients, &model->statistics,
                                &averages};
    struct block *blocks[] = {model->weights, model->gradient_block, model->running,
                              model->average_block};
    static const char *const names[] = {"parameters", "gradients", "statistics", "average"};
    for (size_t i = 0; i < COUNT(rows); i++)
        check(label, names[i], block_row(d, blocks[i], rows[i]->count).values, rows[i]->values,
              rows[i]->count, 1e-5);
}
