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

struct network {
    struct device *device;
    struct block *parameters, *gradients, *statistics, *saved;
    struct tensor *images;
    struct stage stages[NETWORK_STAGES];
    const char *names[NETWORK_STAGES][2]; /* of the convolution and of the normalisation */
    struct head head;
    bool trains; /* it has a step that does */
};

static struct stage stage_of(const struct network *net, int layer) {
    const struct network_plan *plan = network_plan();
    const struct layer *conv = &network_layers[layer], *after = conv + 3;
    const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[layer]];
    const struct network_tensor *norm = &plan->tensors[plan->first_tensor[layer + 1]];
    require(conv[1].kind == BATCHNORM2D && conv[2].kind == RELU);
    return (struct stage){
        .conv = {.in = conv->in,
                 .out = conv->out,
                 .kernel = conv->kernel,
                 .pad = conv->pad,
                 .h = plan->input[layer].h,
                 .w = plan->input[layer].w,
                 .weight = {net->parameters, tensor[0].offset},
                 .bias = {net->parameters, tensor[1].offset},
                 .dweight = {net->gradients, tensor[0].offset},
                 .dbias = {net->gradients, tensor[1].offset}},
        .norm = {.c = conv->out,
                 .h = plan->input[layer + 1].h,
                 .w = plan->input[layer + 1].w,
                 .pool = after->kind == MAXPOOL2D ? after->stride : 1,
                 .eps = NETWORK_EPSILON,
                 .momentum = 0.1F,
                 .weight = {net->parameters, norm[0].offset},
                 .bias = {net->parameters, norm[1].offset},
                 .dweight = {net->gradients, norm[0].offset},
                 .dbias = {net->gradients, norm[1].offset},
                 .running_mean = {net->statistics, norm[2].offset},
                 .running_var = {net->statistics, norm[3].offset},
                 .saved = {net->saved, norm[2].offset}},
    };
}

static struct head head_of(const struct network *net, int layer) {
    const struct network_plan *plan = network_plan();
    const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[layer]];
    return (struct head){.in = network_layers[layer].in,
                         .out = network_layers[layer].out,
                         .weight = {net->parameters, tensor[0].offset},
                         .bias = {net->parameters, tensor[1].offset},
                         .dweight = {net->gradients, tensor[0].offset},
                         .dbias = {net->gradients, tensor[1].offset}};
}

struct network *network_new(struct device *device, int capacity) {
    const struct network_plan *plan = network_plan();
    const struct device_ops *ops = device->ops;
    struct network *net = memory_new(1, sizeof *net);
    net->device = device;
    net->parameters = ops->block_new(device, plan->parameters);
    net->gradients = ops->block_new(device, plan->parameters);
    net->statistics = ops->block_new(device, plan->statistics);
    net->saved = ops->block_new(device, plan->statistics); /* mean and invstd: as many again */
    net->images = ops->tensor_new(device, capacity, NETWORK_CHANNELS, NETWORK_SIDE, NETWORK_SIDE);

    struct tensor *x = net->images, *dx = NULL; /* nobody needs the gradient of the images */
    int stages = 0;
    for (int i = 0; i < NETWORK_LAYERS; i++) {
        if (network_layers[i].kind != CONV2D)
            continue;
        struct stage *s = &net->stages[stages];
        *s = stage_of(net, i);
        net->names[stages][0] = network_layers[i].name;
        net->names[stages++][1] = network_layers[i + 1].name;
        const int c = s->norm.c, h = s->norm.h, w = s->norm.w, pool = s->norm.pool;
        s->x = x;
        s->dx = dx;
        s->z = ops->tensor_new(device, capacity, c, h, w);
        s->dz = ops->tensor_new(device, capacity, c, h, w);
        x = s->y = ops->tensor_new(device, capacity, c, h / pool, w / pool);
        dx = s->dy = ops->tensor_new(device, capacity, c, h / pool, w / pool);
    }
    require(stages == NETWORK_STAGES);
    net->head = head_of(net, NETWORK_LAYERS - 1);
    net->head.x = x;
    net->head.dx = dx;
    net->head.y = ops->tensor_new(device, capacity, NETWORK_CLASSES, 1, 1);
    net->head.dy = ops->tensor_new(device, capacity, NETWORK_CLASSES, 1, 1);
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

void network_upload_parameters(struct network *network, const float *parameters) {
    struct device *device = network->device;
    device->ops->upload(device, (struct slice){network->parameters, 0}, parameters,
                        network_plan()->parameters);
}

void network_upload(struct network *network, const struct network_state *state) {
    const struct network_plan *plan = network_plan();
    struct device *device = network->device;
    network_upload_parameters(network, state->parameters);
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

/* ---- steps ---- */

/* The ops of the forward pass; answers how many. */
enum { FORWARD = 1 + NETWORK_STAGES + 1 };
static void forward_ops(const struct network *net, struct op ops[FORWARD]) {
    ops[0] = (struct op){.kind = OP_LOAD, .images = net->images};
    for (int i = 0; i < NETWORK_STAGES; i++)
        ops[1 + i] = (struct op){.kind = OP_STAGE, .stage = &net->stages[i]};
    ops[FORWARD - 1] = (struct op){.kind = OP_HEAD, .head = &net->head};
}

struct step *network_step(struct network *net, struct pass *pass,
                          const struct network_training *training, int n) {
    struct op ops[2 * FORWARD + NETWORK_UPDATES];
    int count = FORWARD;
    forward_ops(net, ops);
    if (training != NULL) {
        require(!net->trains || net->head.label_smoothing == training->label_smoothing);
        net->head.label_smoothing = training->label_smoothing;
        net->trains = true;
        ops[count++] = (struct op){.kind = OP_HEAD_BACKWARD, .head = &net->head};
        for (int i = NETWORK_STAGES - 1; i >= 0; i--)
            ops[count++] = (struct op){.kind = OP_STAGE_BACKWARD, .stage = &net->stages[i]};
        for (int i = 0; i < training->count; i++)
            ops[count++] = training->updates[i];
    }
    const struct step_description description = {
        .ops = ops, .count = count, .training = training != NULL, .pass = pass, .n = n};
    return net->device->ops->step_new(net->device, &description);
}

struct step *network_statistics_step(struct network *net, struct pass *pass, int n) {
    struct op ops[FORWARD];
    forward_ops(net, ops);
    const struct step_description description = {ops, FORWARD - 1, true, pass, n};
    return net->device->ops->step_new(net->device, &description);
}

/* What an op of the forward pass makes, by the name of its layer. */
struct output {
    const char *name;
    const struct tensor *tensor;
    int size; /* floats an image */
};

/* Answers how many; z need not be there but in training. */
static int outputs_of(const struct network *net, const struct op *op, bool training,
                      struct output outputs[2]) {
    int count = 0;
    if (op->kind == OP_STAGE) {
        const struct batchnorm *norm = &op->stage->norm;
        const char *const *names = net->names[op->stage - net->stages];
        if (training)
            outputs[count++] = (struct output){names[0], op->stage->z, norm->c * norm->h * norm->w};
        outputs[count++] = (struct output){
            names[1], op->stage->y, norm->c * (norm->h / norm->pool) * (norm->w / norm->pool)};
    } else if (op->kind == OP_HEAD) {
        outputs[count++] =
            (struct output){network_layers[NETWORK_LAYERS - 1].name, op->head->y, op->head->out};
    }
    return count;
}

bool network_find_infinite(struct network *net, struct pass *pass, bool training, int n,
                           const char **name, double *value, struct error *error) {
    struct device *device = net->device;
    void *mark = device->ops->mark(device);
    struct op ops[FORWARD];
    struct output outputs[2];
    bool good = true;
    *name = "";
    forward_ops(net, ops);
    for (int i = 0; good && (*name)[0] == '\0' && i < FORWARD; i++) {
        const struct step_description alone = {&ops[i], 1, training, pass, n};
        device->ops->step_run(device, device->ops->step_new(device, &alone), 1);
        const int count = outputs_of(net, &ops[i], training, outputs);
        for (int j = 0; good && (*name)[0] == '\0' && j < count; j++) {
            const size_t floats = (size_t)n * (size_t)outputs[j].size;
            float *y = memory_new(floats, sizeof *y);
            good = device->ops->tensor_download(device, y, outputs[j].tensor, n, error);
            for (size_t k = 0; good && k < floats; k++)
                if (!isfinite(y[k])) {
                    *name = outputs[j].name;
                    *value = (double)y[k];
                    break;
                }
            free(y);
        }
    }
    device->ops->release(device, mark);
    return good;
}
