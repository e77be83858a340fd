#include "net/network.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The network of the tutorial; the names are those of its Python attributes. */
/* clang-format off: a row a line */
const struct layer network_layers[NETWORK_LAYERS] = {
    /* 3 x 32 x 32 */
    {.kind = CONV2D, .name = "conv1", .in = 3, .out = 12, .kernel = 5, .pad = 1, .stride = 1},
    {.kind = BATCHNORM2D, .name = "bn1"},
    {.kind = RELU},
    /* 12 x 30 x 30 */
    {.kind = CONV2D, .name = "conv2", .in = 12, .out = 12, .kernel = 5, .pad = 1, .stride = 1},
    {.kind = BATCHNORM2D, .name = "bn2"},
    {.kind = RELU},
    /* 12 x 28 x 28 */
    {.kind = MAXPOOL2D, .kernel = 2, .stride = 2},
    /* 12 x 14 x 14 */
    {.kind = CONV2D, .name = "conv4", .in = 12, .out = 24, .kernel = 5, .pad = 1, .stride = 1},
    {.kind = BATCHNORM2D, .name = "bn4"},
    {.kind = RELU},
    /* 24 x 12 x 12 */
    {.kind = CONV2D, .name = "conv5", .in = 24, .out = 24, .kernel = 5, .pad = 1, .stride = 1},
    {.kind = BATCHNORM2D, .name = "bn5"},
    {.kind = RELU},
    /* 24 x 10 x 10 */
    {.kind = LINEAR, .name = "fc1", .in = 24 * 10 * 10, .out = NETWORK_CLASSES},
};
/* clang-format on */

/* ---- what derives from the table ---- */

static void add_tensor(struct network_plan *plan, int *used, const char *layer, const char *suffix,
                       int kind, int rank, const int shape[]) {
    require(*used < NETWORK_TENSORS);
    struct network_tensor *tensor = &plan->tensors[(*used)++];
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", layer, suffix);
    tensor->kind = kind;
    tensor->rank = rank;
    tensor->count = 1;
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = shape[i];
        tensor->count *= (size_t)shape[i];
    }
    if (kind == COUNTER)
        return;
    size_t *end = kind == PARAMETER ? &plan->parameters : &plan->statistics;
    tensor->offset = *end;
    *end += tensor->count;
}

static void derive(struct network_plan *plan) {
    int c = NETWORK_CHANNELS, h = NETWORK_SIDE, w = NETWORK_SIDE, used = 0;
    for (int i = 0; i < NETWORK_LAYERS; i++) {
        const struct layer *layer = &network_layers[i];
        plan->input[i].c = c, plan->input[i].h = h, plan->input[i].w = w;
        plan->first_tensor[i] = used;
        switch (layer->kind) {
        case CONV2D:
            require(layer->in == c && layer->stride == 1);
            add_tensor(plan, &used, layer->name, "weight", PARAMETER, 4,
                       (int[]){layer->out, layer->in, layer->kernel, layer->kernel});
            add_tensor(plan, &used, layer->name, "bias", PARAMETER, 1, &layer->out);
            c = layer->out;
            h += 2 * layer->pad - layer->kernel + 1;
            w += 2 * layer->pad - layer->kernel + 1;
            break;
        case BATCHNORM2D:
            add_tensor(plan, &used, layer->name, "weight", PARAMETER, 1, &c);
            add_tensor(plan, &used, layer->name, "bias", PARAMETER, 1, &c);
            add_tensor(plan, &used, layer->name, "running_mean", STATISTIC, 1, &c);
            add_tensor(plan, &used, layer->name, "running_var", STATISTIC, 1, &c);
            add_tensor(plan, &used, layer->name, "num_batches_tracked", COUNTER, 0, NULL);
            break;
        case RELU:
            break;
        case MAXPOOL2D:
            require(layer->kernel == layer->stride);
            h /= layer->kernel;
            w /= layer->kernel;
            break;
        case LINEAR:
            require(layer->in == c * h * w);
            add_tensor(plan, &used, layer->name, "weight", PARAMETER, 2,
                       (int[]){layer->out, layer->in});
            add_tensor(plan, &used, layer->name, "bias", PARAMETER, 1, &layer->out);
            c = layer->out;
            h = w = 1;
            break;
        }
    }
    plan->input[NETWORK_LAYERS].c = c, plan->input[NETWORK_LAYERS].h = h;
    plan->input[NETWORK_LAYERS].w = w;
    require(used == NETWORK_TENSORS && c == NETWORK_CLASSES);
}

const struct network_plan *network_plan(void) {
    static struct network_plan plan;
    if (plan.parameters == 0)
        derive(&plan);
    return &plan;
}

/* ---- the state on the host ---- */

void network_state_new(struct network_state *state) {
    state->parameters = memory_new(network_plan()->parameters, sizeof *state->parameters);
    state->statistics = memory_new(network_plan()->statistics, sizeof *state->statistics);
    state->batches = 0;
}

void network_state_free(struct network_state *state) {
    free(state->parameters);
    free(state->statistics);
    *state = (struct network_state){0};
}

void network_state_copy(struct network_state *to, const struct network_state *from) {
    const struct network_plan *plan = network_plan();
    memcpy(to->parameters, from->parameters, plan->parameters * sizeof *to->parameters);
    memcpy(to->statistics, from->statistics, plan->statistics * sizeof *to->statistics);
    to->batches = from->batches;
}

float *network_tensor_data(const struct network_state *state, const struct network_tensor *tensor) {
    switch (tensor->kind) {
    case PARAMETER:
        return state->parameters + tensor->offset;
    case STATISTIC:
        return state->statistics + tensor->offset;
    case COUNTER:
        break;
    }
    return NULL;
}

static void fill(const struct network_state *state, const struct network_tensor *tensor,
                 float value) {
    float *data = network_tensor_data(state, tensor);
    for (size_t i = 0; i < tensor->count; i++)
        data[i] = value;
}

static void draw(const struct network_state *state, const struct network_tensor *tensor,
                 struct random *random, double bound) {
    float *data = network_tensor_data(state, tensor);
    for (size_t i = 0; i < tensor->count; i++)
        data[i] = random_uniform(random, (float)-bound, (float)bound);
}

void network_init(struct network_state *state, struct random *random) {
    const struct network_plan *plan = network_plan();
    for (int i = 0; i < NETWORK_LAYERS; i++) {
        const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[i]];
        switch (network_layers[i].kind) {
        case CONV2D:
        case LINEAR: {
            /* step by step as torch.nn.init does, for the same rounding */
            const double fan_in = (double)(tensor->count / (size_t)tensor->shape[0]);
            const double gain = sqrt(2.0 / (1 + sqrt(5.0) * sqrt(5.0)));
            draw(state, &tensor[0], random, sqrt(3.0) * (gain / sqrt(fan_in)));
            draw(state, &tensor[1], random, 1 / sqrt(fan_in));
            break;
        }
        case BATCHNORM2D:
            fill(state, &tensor[0], 1); /* weight */
            fill(state, &tensor[1], 0); /* bias */
            fill(state, &tensor[2], 0); /* running_mean */
            fill(state, &tensor[3], 1); /* running_var */
            break;
        case RELU:
        case MAXPOOL2D:
            break;
        }
    }
    state->batches = 0;
}

/* ---- the network on a device ---- */

/* A layer with the arguments of its op. A batch normalisation's op includes the ReLU and the
 * max-pool behind it, so those rows have none of their own. */
struct row {
    enum layer_kind kind;
    union {
        struct conv2d conv;
        struct batchnorm norm;
        struct linear linear;
    };
    struct tensor *x, *y, *dx, *dy;
    size_t size; /* floats of y an image */
};

struct network {
    struct device *device;
    struct block *parameters, *gradients, *statistics, *saved;
    struct tensor *images, *logits, *dlogits;
    struct row rows[NETWORK_LAYERS];
};

/* How much a batch normalisation's op pools: the stride of the max-pool behind its ReLU, or 1. */
static int pool_behind(int norm) {
    require(norm + 2 < NETWORK_LAYERS && network_layers[norm + 1].kind == RELU);
    const struct layer *layer = &network_layers[norm + 2];
    return layer->kind == MAXPOOL2D ? layer->stride : 1;
}

struct network *network_new(struct device *device, int capacity) {
    const struct network_plan *plan = network_plan();
    const struct device_ops *op = device->ops;
    struct network *net = memory_new(1, sizeof *net);
    net->device = device;
    net->parameters = op->block_new(device, plan->parameters);
    net->gradients = op->block_new(device, plan->parameters);
    net->statistics = op->block_new(device, plan->statistics);
    net->saved = op->block_new(device, plan->statistics); /* mean and invstd: as many again */
    net->images = op->tensor_new(device, capacity, NETWORK_CHANNELS, NETWORK_SIDE, NETWORK_SIDE);

    struct tensor *x = net->images, *dx = NULL; /* nobody needs the gradient of the images */
    for (int i = 0; i < NETWORK_LAYERS; i++) {
        const struct layer *layer = &network_layers[i];
        const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[i]];
        const int c = plan->input[i].c, h = plan->input[i].h, w = plan->input[i].w;
        const struct slice weight = {net->parameters, tensor[0].offset};
        const struct slice bias = {net->parameters, tensor[1].offset};
        const struct slice dweight = {net->gradients, tensor[0].offset};
        const struct slice dbias = {net->gradients, tensor[1].offset};
        struct row *row = &net->rows[i];
        row->kind = layer->kind;
        int output = i + 1; /* plan->input[output] is the shape of the op's result */
        switch (layer->kind) {
        case CONV2D:
            row->conv = (struct conv2d){layer->in, layer->out, layer->kernel, layer->pad, h,
                                        w,         weight,     bias,          dweight,    dbias};
            break;
        case BATCHNORM2D: {
            const int pool = pool_behind(i);
            row->norm = (struct batchnorm){
                .c = c,
                .h = h,
                .w = w,
                .pool = pool,
                .eps = 1e-5F,
                .momentum = 0.1F,
                .weight = weight,
                .bias = bias,
                .dweight = dweight,
                .dbias = dbias,
                .running_mean = {net->statistics, tensor[2].offset},
                .running_var = {net->statistics, tensor[3].offset},
                .saved = {net->saved, tensor[2].offset},
            };
            output = pool == 1 ? i + 2 : i + 3;
            break;
        }
        case RELU:
        case MAXPOOL2D:
            continue;
        case LINEAR:
            row->linear = (struct linear){layer->in, layer->out, weight, bias, dweight, dbias};
            break;
        }
        row->x = x;
        row->dx = dx;
        const int yc = plan->input[output].c, yh = plan->input[output].h;
        const int yw = plan->input[output].w;
        x = row->y = op->tensor_new(device, capacity, yc, yh, yw);
        dx = row->dy = op->tensor_new(device, capacity, yc, yh, yw);
        row->size = (size_t)yc * (size_t)yh * (size_t)yw;
    }
    net->logits = x;
    net->dlogits = dx;
    return net;
}

void network_free(struct network *network) {
    free(network);
}

struct device *network_device(const struct network *network) {
    return network->device;
}

struct block *network_parameters(const struct network *network) {
    return network->parameters;
}

struct block *network_gradients(const struct network *network) {
    return network->gradients;
}

void network_upload(struct network *network, const struct network_state *state) {
    const struct network_plan *plan = network_plan();
    struct device *device = network->device;
    device->ops->upload(device, (struct slice){network->parameters, 0}, state->parameters,
                        plan->parameters);
    device->ops->upload(device, (struct slice){network->statistics, 0}, state->statistics,
                        plan->statistics);
}

bool network_download(const struct network *network, struct network_state *state,
                      struct error *error) {
    const struct network_plan *plan = network_plan();
    struct device *device = network->device;
    return device->ops->download(device, state->parameters, (struct slice){network->parameters, 0},
                                 plan->parameters, error) &&
           device->ops->download(device, state->statistics, (struct slice){network->statistics, 0},
                                 plan->statistics, error);
}

void network_forward(struct network *network, struct loader *loader, bool training, int n) {
    struct device *d = network->device;
    const struct device_ops *op = d->ops;
    op->load_batch(d, network->images, loader, n);
    for (int i = 0; i < NETWORK_LAYERS; i++) {
        const struct row *row = &network->rows[i];
        switch (row->kind) {
        case CONV2D:
            op->conv2d_forward(d, row->y, row->x, &row->conv, n);
            break;
        case BATCHNORM2D:
            op->batchnorm_forward(d, row->y, row->x, &row->norm, training, n);
            break;
        case RELU:
        case MAXPOOL2D:
            break; /* done by the batch normalisation before them */
        case LINEAR:
            op->linear_forward(d, row->y, row->x, &row->linear, n);
            break;
        }
    }
    op->cross_entropy(d, training ? network->dlogits : NULL, network->logits, loader, n);
}

void network_backward(struct network *network, int n) {
    struct device *d = network->device;
    const struct device_ops *op = d->ops;
    for (int i = NETWORK_LAYERS - 1; i >= 0; i--) {
        const struct row *row = &network->rows[i];
        switch (row->kind) {
        case CONV2D:
            op->conv2d_backward(d, row->dx, row->dy, row->x, &row->conv, n);
            break;
        case BATCHNORM2D:
            op->batchnorm_backward(d, row->dx, row->dy, row->x, &row->norm, n);
            break;
        case RELU:
        case MAXPOOL2D:
            break;
        case LINEAR:
            op->linear_backward(d, row->dx, row->dy, row->x, &row->linear, n);
            break;
        }
    }
}

bool network_find_infinite(const struct network *network, int n, const char **name, double *value,
                           struct error *error) {
    struct device *device = network->device;
    bool good = true;
    *name = "";
    for (int i = 0; good && (*name)[0] == '\0' && i < NETWORK_LAYERS; i++) {
        const struct row *row = &network->rows[i];
        const size_t count = (size_t)n * row->size;
        float *y = memory_new(count, sizeof *y);
        good = row->y == NULL || device->ops->tensor_download(device, y, row->y, n, error);
        for (size_t j = 0; good && j < count; j++)
            if (!isfinite(y[j])) {
                *name = network_layers[i].name;
                *value = (double)y[j];
                break;
            }
        free(y);
    }
    return good;
}

bool network_logits(const struct network *network, float *logits, int n, struct error *error) {
    struct device *device = network->device;
    return device->ops->tensor_download(device, logits, network->logits, n, error);
}
