#include "layer.h"

#include "reference.h"

#include <stdio.h>
#include <string.h>

/* ---- the layers of a table's rows ---- */

size_t inputs(const struct layer *l) {
    return (size_t)l->n * volume(l->in);
}

size_t outputs(const struct layer *l) {
    return (size_t)l->n * volume(l->out);
}

static void draw(struct layer *l) {
    l->x = uniform(inputs(l), -1, 1);
    l->weight = uniform(l->weights, -1, 1);
    l->bias = uniform(l->biases, -1, 1);
    l->dy = uniform(outputs(l), -1, 1);
}

struct layer conv_layer(const struct conv_case *t) {
    struct layer l = {.kind = CONV, .n = t->n, .in = {t->in, t->h, t->w}};
    l.conv = (struct conv2d){
        .in = t->in, .out = t->out, .kernel = t->kernel, .pad = t->pad, .h = t->h, .w = t->w};
    l.out.c = t->out;
    l.out.h = t->h + 2 * t->pad - t->kernel + 1;
    l.out.w = t->w + 2 * t->pad - t->kernel + 1;
    l.weights = (size_t)(t->out * t->in * t->kernel * t->kernel);
    l.biases = (size_t)t->out;
    snprintf(l.label, sizeof l.label, "convolution %d > %d, kernel %d, pad %d, of %d x %d x %d",
             t->in, t->out, t->kernel, t->pad, t->n, t->h, t->w);
    draw(&l);
    return l;
}

struct layer linear_layer(const struct linear_case *t) {
    struct layer l = {.kind = LINEAR, .n = t->n, .in = t->in, .out = {t->out, 1, 1}};
    l.linear = (struct linear){.in = (int)volume(t->in), .out = t->out};
    l.weights = volume(t->in) * (size_t)t->out;
    l.biases = (size_t)t->out;
    snprintf(l.label, sizeof l.label, "linear %zu > %d, of %d", volume(t->in), t->out, t->n);
    draw(&l);
    return l;
}

struct layer norm_layer(const struct norm_case *t) {
    static const char *const names[] = {[PLAIN] = "",
                                        [FAR] = ", mean far from 0",
                                        [DEAD] = ", all 0 after ReLU",
                                        [CONSTANT] = ", variance 0",
                                        [FLAT] = ", weight 0"};
    struct layer l = {.kind = NORM, .n = t->n, .in = {t->c, t->h, t->w}};
    l.norm = (struct batchnorm){
        .c = t->c, .h = t->h, .w = t->w, .pool = t->pool, .eps = t->eps, .momentum = t->momentum};
    l.out = (struct shape){t->c, t->h / t->pool, t->w / t->pool};
    l.weights = l.biases = (size_t)t->c;
    snprintf(l.label, sizeof l.label, "batchnorm, pool %d, of %d x %d x %d x %d%s", t->pool, t->n,
             t->c, t->h, t->w, names[t->data]);
    draw(&l);
    l.running_mean = uniform(l.biases, -1, 1);
    l.running_var = uniform(l.biases, 0.5F, 2);
    /* on a grid there are ties in most windows; off it sums are rounded, and cancel if they are far
     * from 0 */
    l.x = t->data == FAR ? uniform(inputs(&l), 5, 7) : grid(inputs(&l), -2, 0.125, 32);
    for (int c = 0; c < t->c; c++) {
        for (int i = 0; i < t->n; i++)
            for (int j = 0; j < t->h * t->w; j++) {
                double *x = &l.x[(i * t->c + c) * t->h * t->w + j];
                *x = t->data == CONSTANT ? 0.25 * c : t->data == FAR ? *x : *x + c % 3;
            }
        l.weight[c] += l.weight[c] > 0 ? 0.5 : -0.5; /* of both signs */
        if (t->data == FLAT)
            l.weight[c] = 0;
        if ((t->data == FLAT || t->data == CONSTANT) && c % 3 == 0)
            l.bias[c] = 0; /* at the kink of ReLU */
        if (t->data == DEAD)
            l.bias[c] = -9;
    }
    return l;
}

/* ---- a layer by the reference and on a device ---- */

static const struct tolerance {
    double y, dx, dweight, dbias, running;
} TOLERANCE[] = {
    [CONV] = {2e-6, 2e-6, 1e-5, 1e-5, 0},
    [NORM] = {2e-6, 1e-5, 1e-5, 1e-5, 2e-6},
    [LINEAR] = {2e-6, 2e-6, 1e-5, 1e-5, 0},
};

void forward_by_reference(const struct layer *l, bool training, struct results *r) {
    switch (l->kind) {
    case CONV:
        reference_conv2d_forward(r->y, l->x, l->weight, l->bias, &l->conv, l->n);
        break;
    case NORM:
        memcpy(r->running_mean, l->running_mean, l->biases * sizeof(double));
        memcpy(r->running_var, l->running_var, l->biases * sizeof(double));
        reference_batchnorm_forward(r->y, r->running_mean, r->running_var, l->x, l->weight, l->bias,
                                    &l->norm, training, l->n);
        break;
    case LINEAR:
        reference_linear_forward(r->y, l->x, l->weight, l->bias, &l->linear, l->n);
        break;
    }
}

struct results by_reference(const struct layer *l, bool training) {
    struct results r = {zeros(outputs(l)), zeros(inputs(l)), zeros(l->weights),
                        zeros(l->biases),  zeros(l->biases), zeros(l->biases)};
    forward_by_reference(l, training, &r);
    if (!training)
        return r;
    switch (l->kind) {
    case CONV:
        reference_conv2d_backward(r.dx, r.dweight, r.dbias, l->dy, l->x, l->weight, &l->conv, l->n);
        break;
    case NORM:
        reference_batchnorm_backward(r.dx, r.dweight, r.dbias, l->dy, l->x, l->weight, l->bias,
                                     &l->norm, l->n);
        break;
    case LINEAR:
        reference_linear_backward(r.dx, r.dweight, r.dbias, l->dy, l->x, l->weight, &l->linear,
                                  l->n);
        break;
    }
    return r;
}

struct results on_device(struct device *d, const struct layer *l, bool training) {
    const struct device_ops *op = d->ops;
    const int n = l->n, capacity = n + l->spare;
    struct tensor *x = tensor_of(d, l->x, n, capacity, l->in);
    struct tensor *dx = tensor_of(d, NULL, n, capacity, l->in);
    struct tensor *y = tensor_of(d, NULL, n, capacity, l->out);
    struct tensor *dy = tensor_of(d, l->dy, n, capacity, l->out);
    const struct slice weight = slice_of(d, l->weight, l->weights);
    const struct slice bias = slice_of(d, l->bias, l->biases);
    const struct slice dweight = slice_of(d, NULL, l->weights);
    const struct slice dbias = slice_of(d, NULL, l->biases);
    struct results r = {0};
    switch (l->kind) {
    case CONV: {
        struct conv2d conv = l->conv;
        conv.weight = weight, conv.bias = bias, conv.dweight = dweight, conv.dbias = dbias;
        op->conv2d_forward(d, y, x, &conv, n);
        op->conv2d_backward(d, NULL, dy, x, &conv, n);
        const double *alone = slice_values(d, dweight, l->weights);
        const double *bias_alone = slice_values(d, dbias, l->biases);
        op->conv2d_backward(d, dx, dy, x, &conv, n);
        check(l->label, "dweight without dx", alone, slice_values(d, dweight, l->weights),
              l->weights, TOLERANCE[CONV].dweight);
        check(l->label, "dbias without dx", bias_alone, slice_values(d, dbias, l->biases),
              l->biases, TOLERANCE[CONV].dbias);
        break;
    }
    case NORM: {
        struct batchnorm norm = l->norm;
        norm.running_mean = slice_of(d, l->running_mean, l->biases);
        norm.running_var = slice_of(d, l->running_var, l->biases);
        norm.saved = slice_of(d, NULL, 2 * l->biases);
        norm.weight = weight, norm.bias = bias, norm.dweight = dweight, norm.dbias = dbias;
        op->batchnorm_forward(d, y, x, &norm, training, n);
        if (training)
            op->batchnorm_backward(d, dx, dy, x, &norm, n);
        r.running_mean = slice_values(d, norm.running_mean, l->biases);
        r.running_var = slice_values(d, norm.running_var, l->biases);
        slice_values(d, norm.saved, 2 * l->biases); /* for its guards */
        break;
    }
    case LINEAR: {
        struct linear linear = l->linear;
        linear.weight = weight, linear.bias = bias, linear.dweight = dweight, linear.dbias = dbias;
        op->linear_forward(d, y, x, &linear, n);
        op->linear_backward(d, dx, dy, x, &linear, n);
        break;
    }
    }
    r.y = tensor_values(d, y, n, l->out);
    r.dx = tensor_values(d, dx, n, l->in);
    r.dweight = slice_values(d, dweight, l->weights);
    r.dbias = slice_values(d, dbias, l->biases);
    check(l->label, "x (an input)", tensor_values(d, x, n, l->in), l->x, inputs(l), 0);
    check(l->label, "weight (an input)", slice_values(d, weight, l->weights), l->weight, l->weights,
          0);
    check(l->label, "bias (an input)", slice_values(d, bias, l->biases), l->bias, l->biases, 0);
    return r;
}

void compare_layer(struct device *d, const struct layer *l, bool training) {
    const struct tolerance *allowed = &TOLERANCE[l->kind];
    const struct results got = on_device(d, l, training), want = by_reference(l, training);
    check(l->label, "y", got.y, want.y, outputs(l), allowed->y);
    if (l->kind == NORM) { /* evaluation leaves the statistics as they are */
        const double tolerance = training ? allowed->running : 0;
        check(l->label, "running_mean", got.running_mean, want.running_mean, l->biases, tolerance);
        check(l->label, "running_var", got.running_var, want.running_var, l->biases, tolerance);
    }
    if (!training)
        return;
    check(l->label, "dx", got.dx, want.dx, inputs(l), allowed->dx);
    check(l->label, "dweight", got.dweight, want.dweight, l->weights, allowed->dweight);
    check(l->label, "dbias", got.dbias, want.dbias, l->biases, allowed->dbias);
}
