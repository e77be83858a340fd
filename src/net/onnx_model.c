/* Builds the model out of protobuf-c's messages and has it packed. Compiled where protobuf-c is. */
#include "base/file.h"
#include "base/memory.h"
#include "net/onnx.h"

#include <math.h>
#include <onnx/onnx.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *onnx_library(void) {
    static char text[64];
    snprintf(text, sizeof text, "protobuf-c %s", protobuf_c_version());
    return text;
}

/* ---- a model: what protobuf-c packs, in one piece of memory ---- */

enum {
    MOST_NODES = NETWORK_LAYERS + 4, /* Sub, Div, Flatten, Softmax */
    MOST_INPUTS = 5,                 /* of BatchNormalization */
    MOST_ATTRIBUTES = 3,
    MOST_TENSORS = NETWORK_TENSORS + 1,
    MOST_RANK = 4,
    NAME = 64,
};

struct node {
    Onnx__NodeProto proto;
    char name[NAME], *input[MOST_INPUTS], *output[1]; /* the name is also its result's */
    Onnx__AttributeProto attribute[MOST_ATTRIBUTES], *attributes[MOST_ATTRIBUTES];
    int64_t numbers[MOST_ATTRIBUTES][MOST_RANK];
};

/* A tensor of the state_dict, or what became of it. */
struct initializer {
    Onnx__TensorProto proto;
    char name[NAME];
    int64_t shape[MOST_RANK];
    float *data; /* owned */
};

/* The model's input or output. */
struct value {
    Onnx__ValueInfoProto proto, *list[1];
    Onnx__TypeProto type;
    Onnx__TypeProto__Tensor tensor;
    Onnx__TensorShapeProto shape;
    Onnx__TensorShapeProto__Dimension dimension[MOST_RANK], *dimensions[MOST_RANK];
};

struct model {
    const struct network_state *state;
    const struct onnx_options *options;
    Onnx__ModelProto proto;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset, *opsets[1];
    struct value input, output;
    struct node node[MOST_NODES];
    Onnx__NodeProto *nodes[MOST_NODES];
    struct initializer initializer[MOST_TENSORS];
    Onnx__TensorProto *initializers[MOST_TENSORS];
    Onnx__StringStringEntryProto entry[METADATA_MOST + 4], *entries[METADATA_MOST + 4];
    char names[NETWORK_CLASSES * (2 * ONNX_CLASS + 8)]; /* of the classes; each byte may take two */
};

/* Texts are pointers to char in protobuf-c's messages, of which packing changes none. */
static char *text(const char *constant) {
    return (char *)constant;
}

/* ---- its nodes ---- */

/* Adds a node that goes on with what the last one made. It is called as PyTorch calls it: by its
 * layer and its type, or by its type and the number of those before it. */
static struct node *add_node(struct model *m, const char *type, const char *layer) {
    const size_t count = m->graph.n_node++;
    struct node *node = &m->node[count];
    int before = 0;
    for (size_t i = 0; i < count; i++)
        before += strcmp(m->node[i].proto.op_type, type) == 0;
    require(count < MOST_NODES);
    if (layer != NULL)
        snprintf(node->name, NAME, "/%s/%s", layer, type);
    else if (before > 0)
        snprintf(node->name, NAME, "/%s_%d", type, before);
    else
        snprintf(node->name, NAME, "/%s", type);
    node->proto = (Onnx__NodeProto)ONNX__NODE_PROTO__INIT;
    node->proto.op_type = text(type);
    node->proto.name = node->name;
    node->proto.input = node->input;
    node->proto.n_input = 1;
    node->input[0] = count == 0 ? text(ONNX_INPUT) : m->node[count - 1].name;
    node->proto.output = node->output;
    node->proto.n_output = 1;
    node->output[0] = node->name;
    node->proto.attribute = node->attributes;
    m->nodes[count] = &node->proto;
    return node;
}

static Onnx__AttributeProto *add_attribute(struct node *node, const char *name,
                                           Onnx__AttributeProto__AttributeType type) {
    const size_t i = node->proto.n_attribute++;
    require(i < MOST_ATTRIBUTES);
    node->attribute[i] = (Onnx__AttributeProto)ONNX__ATTRIBUTE_PROTO__INIT;
    node->attribute[i].name = text(name);
    node->attribute[i].has_type = true;
    node->attribute[i].type = type;
    node->attributes[i] = &node->attribute[i];
    return &node->attribute[i];
}

static void set_number(struct node *node, const char *name, int64_t number) {
    Onnx__AttributeProto *attribute =
        add_attribute(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    attribute->has_i = true;
    attribute->i = number;
}

/* `count` times the same number, for all sides. */
static void set_numbers(struct node *node, const char *name, size_t count, int64_t number) {
    int64_t *numbers = node->numbers[node->proto.n_attribute];
    Onnx__AttributeProto *attribute =
        add_attribute(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    for (size_t i = 0; i < count; i++)
        numbers[i] = number;
    attribute->n_ints = count;
    attribute->ints = numbers;
}

/* Adds a tensor as the node's next input, and answers where its numbers go. */
static float *add_tensor(struct model *m, struct node *node, const char *name, int rank,
                         const int *shape) {
    struct initializer *tensor = &m->initializer[m->graph.n_initializer];
    size_t count = 1;
    require(m->graph.n_initializer < MOST_TENSORS && node->proto.n_input < MOST_INPUTS);
    snprintf(tensor->name, NAME, "%s", name);
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = shape[i];
        count *= (size_t)shape[i];
    }
    tensor->data = memory_new(count, sizeof *tensor->data);
    tensor->proto = (Onnx__TensorProto)ONNX__TENSOR_PROTO__INIT;
    tensor->proto.name = tensor->name;
    tensor->proto.dims = tensor->shape;
    tensor->proto.n_dims = (size_t)rank;
    tensor->proto.has_data_type = true;
    tensor->proto.data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor->proto.has_raw_data = true;
    tensor->proto.raw_data.data = (uint8_t *)tensor->data;
    tensor->proto.raw_data.len = count * sizeof *tensor->data;
    m->initializers[m->graph.n_initializer++] = &tensor->proto;
    node->input[node->proto.n_input++] = tensor->name;
    return tensor->data;
}

/* As that, of the state; of its rows only the first `rows`, if that is not 0. */
static float *copy_tensor(struct model *m, struct node *node, const struct network_tensor *tensor,
                          int rows) {
    int shape[MOST_RANK];
    memcpy(shape, tensor->shape, sizeof shape);
    const size_t row = tensor->count / (size_t)shape[0];
    if (rows > 0)
        shape[0] = rows;
    float *data = add_tensor(m, node, tensor->name, tensor->rank, shape);
    memcpy(data, network_tensor_data(m->state, tensor), row * (size_t)shape[0] * sizeof *data);
    return data;
}

/* Pixels of 0 to 255 become what the network was trained on. Not part of the first convolution,
 * which pads with zeros behind that. */
static void add_normalization(struct model *m) {
    add_tensor(m, add_node(m, "Sub", NULL), "pixel_mean", 0, NULL)[0] = 127.5F;
    add_tensor(m, add_node(m, "Div", NULL), "pixel_scale", 0, NULL)[0] = 127.5F;
}

/* The weights' planes of red and of blue change places. */
static void swap_red_and_blue(float *weight, const struct layer *conv) {
    const size_t plane = (size_t)conv->kernel * (size_t)conv->kernel;
    for (int i = 0; i < conv->out; i++)
        for (size_t j = 0; j < plane; j++) {
            float *red = weight + (size_t)(i * conv->in) * plane + j, *blue = red + 2 * plane;
            const float kept = *red;
            *red = *blue;
            *blue = kept;
        }
}

/* Makes a convolution's parameters those of it and the normalisation behind it. */
static void fold(const struct model *m, int layer, float *weight, float *bias) {
    const struct network_plan *plan = network_plan();
    const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[layer]];
    const struct network_tensor *norm = &plan->tensors[plan->first_tensor[layer + 1]];
    const float *gamma = network_tensor_data(m->state, &norm[0]),
                *beta = network_tensor_data(m->state, &norm[1]),
                *mean = network_tensor_data(m->state, &norm[2]),
                *variance = network_tensor_data(m->state, &norm[3]);
    const size_t row = tensor->count / (size_t)tensor->shape[0];
    require(network_layers[layer + 1].kind == BATCHNORM2D);
    for (int i = 0; i < tensor->shape[0]; i++) {
        const double scale = (double)gamma[i] / sqrt((double)variance[i] + (double)NETWORK_EPSILON);
        for (size_t j = 0; j < row; j++) {
            float *w = &weight[(size_t)i * row + j];
            *w = (float)((double)*w * scale);
        }
        bias[i] = (float)(((double)bias[i] - (double)mean[i]) * scale + (double)beta[i]);
    }
}

static void add_layer(struct model *m, int i) {
    const struct network_plan *plan = network_plan();
    const struct layer *layer = &network_layers[i];
    const struct network_tensor *tensor = &plan->tensors[plan->first_tensor[i]];
    struct node *node;
    float *weight, *bias;
    switch (layer->kind) {
    case CONV2D:
        node = add_node(m, "Conv", layer->name);
        set_numbers(node, "kernel_shape", 2, layer->kernel);
        set_numbers(node, "pads", 4, layer->pad);
        set_numbers(node, "strides", 2, layer->stride);
        weight = copy_tensor(m, node, &tensor[0], 0);
        bias = copy_tensor(m, node, &tensor[1], 0);
        if (m->options->bgr && i == 0)
            swap_red_and_blue(weight, layer);
        if (!m->options->keep_batchnorm)
            fold(m, i, weight, bias);
        break;
    case BATCHNORM2D:
        if (!m->options->keep_batchnorm)
            break;
        node = add_node(m, "BatchNormalization", layer->name);
        Onnx__AttributeProto *epsilon =
            add_attribute(node, "epsilon", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
        epsilon->has_f = true;
        epsilon->f = NETWORK_EPSILON;
        for (int j = 0; j < 4; j++) /* weight, bias, running_mean, running_var */
            copy_tensor(m, node, &tensor[j], 0);
        break;
    case RELU:
        add_node(m, "Relu", NULL);
        break;
    case MAXPOOL2D:
        node = add_node(m, "MaxPool", NULL);
        set_numbers(node, "kernel_shape", 2, layer->kernel);
        set_numbers(node, "strides", 2, layer->stride);
        break;
    case LINEAR:
        set_number(add_node(m, "Flatten", NULL), "axis", 1);
        node = add_node(m, "Gemm", layer->name);
        set_number(node, "transB", 1);
        copy_tensor(m, node, &tensor[0], m->options->class_count);
        copy_tensor(m, node, &tensor[1], m->options->class_count);
        break;
    }
}

/* ---- what it says of itself ---- */

/* The batch is the first dimension, and of any size. */
static void describe_value(struct value *v, const char *name, int rank, const int *shape) {
    v->list[0] = &v->proto;
    v->proto = (Onnx__ValueInfoProto)ONNX__VALUE_INFO_PROTO__INIT;
    v->proto.name = text(name);
    v->proto.type = &v->type;
    v->type = (Onnx__TypeProto)ONNX__TYPE_PROTO__INIT;
    v->type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    v->type.tensor_type = &v->tensor;
    v->tensor = (Onnx__TypeProto__Tensor)ONNX__TYPE_PROTO__TENSOR__INIT;
    v->tensor.has_elem_type = true;
    v->tensor.elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    v->tensor.shape = &v->shape;
    v->shape = (Onnx__TensorShapeProto)ONNX__TENSOR_SHAPE_PROTO__INIT;
    v->shape.n_dim = (size_t)rank;
    v->shape.dim = v->dimensions;
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *dimension = v->dimensions[i] = &v->dimension[i];
        *dimension = (Onnx__TensorShapeProto__Dimension)ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT;
        dimension->denotation = text(i == 0                ? "DATA_BATCH"
                                     : i == 1 && rank == 4 ? "DATA_CHANNEL"
                                                           : "DATA_FEATURE");
        if (i == 0) {
            dimension->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dimension->dim_param = text("batch_size");
        } else {
            dimension->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dimension->dim_value = shape[i];
        }
    }
}

/* Borrows both texts. */
static void add_entry(struct model *m, const char *key, const char *value) {
    Onnx__StringStringEntryProto *entry = &m->entry[m->proto.n_metadata_props];
    *entry = (Onnx__StringStringEntryProto)ONNX__STRING_STRING_ENTRY_PROTO__INIT;
    entry->key = text(key);
    entry->value = text(value);
    m->entries[m->proto.n_metadata_props++] = entry;
}

/* The classes as Python writes them: {0: 'airplane', 1: 'automobile', ...} */
static void write_names(struct model *m) {
    char *at = m->names;
    for (int i = 0; i < m->options->class_count; i++) {
        require(strlen(m->options->classes[i]) <= ONNX_CLASS);
        at += sprintf(at, "%s%d: '", i == 0 ? "{" : ", ", i);
        for (const char *c = m->options->classes[i]; *c != '\0'; c++) {
            if (*c == '\'' || *c == '\\')
                *at++ = '\\';
            *at++ = *c;
        }
        *at++ = '\'';
    }
    strcpy(at, "}");
}

static void describe(struct model *m, const struct metadata *about) {
    const struct onnx_options *options = m->options;
    describe_value(&m->input, ONNX_INPUT, 4,
                   (int[]){0, NETWORK_CHANNELS, NETWORK_SIDE, NETWORK_SIDE});
    m->input.type.denotation = text("IMAGE");
    m->input.proto.doc_string = text(onnx_preparation(options));
    describe_value(&m->output, ONNX_OUTPUT, 2, (int[]){0, options->class_count});
    m->output.proto.doc_string =
        text(options->softmax ? "probabilities of the classes" : "logits of the classes");
    write_names(m);
    add_entry(m, "Image.BitmapPixelFormat", options->bgr ? "Bgr8" : "Rgb8");
    add_entry(m, "Image.ColorSpaceGamma", "SRGB");
    add_entry(m, "Image.NominalPixelRange",
              options->pixels ? "NominalRange_0_255" : "Normalized_1_1");
    add_entry(m, "names", m->names);
    for (int i = 0; i < about->count; i++)
        add_entry(m, about->entry[i].key, about->entry[i].value);
}

static void build(struct model *m) {
    m->proto = (Onnx__ModelProto)ONNX__MODEL_PROTO__INIT;
    m->proto.has_ir_version = true;
    m->proto.ir_version = onnx_ir_version(m->options->opset);
    m->proto.doc_string =
        text("Of a picture of another size the shorter side is resized to 32, the "
             "triangle filter as wide as it takes (antialiasing), and the middle "
             "is taken, as by torchvision's Resize(32) and CenterCrop(32).");
    m->proto.producer_name = text("cifar");
    m->proto.producer_version = text(CIFAR_VERSION);
    m->proto.graph = &m->graph;
    m->proto.n_opset_import = 1;
    m->proto.opset_import = m->opsets;
    m->proto.metadata_props = m->entries;
    m->opsets[0] = &m->opset;
    m->opset = (Onnx__OperatorSetIdProto)ONNX__OPERATOR_SET_ID_PROTO__INIT;
    m->opset.domain = text("");
    m->opset.has_version = true;
    m->opset.version = m->options->opset;
    m->graph = (Onnx__GraphProto)ONNX__GRAPH_PROTO__INIT;
    m->graph.name = text("Network");
    m->graph.node = m->nodes;
    m->graph.initializer = m->initializers;
    m->graph.n_input = m->graph.n_output = 1;
    m->graph.input = m->input.list;
    m->graph.output = m->output.list;
    if (m->options->pixels)
        add_normalization(m);
    for (int i = 0; i < NETWORK_LAYERS; i++)
        add_layer(m, i);
    if (m->options->softmax)
        set_number(add_node(m, "Softmax", NULL), "axis", 1);
    m->node[m->graph.n_node - 1].output[0] = text(ONNX_OUTPUT);
}

/* Finite numbers may be so large that folding makes them infinite. */
static bool check_numbers(const struct model *m, const char *path, struct error *error) {
    for (size_t i = 0; i < m->graph.n_initializer && !m->options->keep_batchnorm; i++) {
        const struct initializer *tensor = &m->initializer[i];
        for (size_t j = 0; j < tensor->proto.raw_data.len / sizeof *tensor->data; j++)
            if (!isfinite(tensor->data[j]))
                return error_set_file(error, STATUS_CHECKPOINT, path,
                                      "is not written: %s would not be finite with the batch "
                                      "normalisation folded in; leave it with --keep-batchnorm",
                                      tensor->name);
    }
    return true;
}

static bool write_file(const struct model *m, const char *path, struct error *error) {
    const size_t size = onnx__model_proto__get_packed_size(&m->proto);
    uint8_t *bytes = memory_take(size);
    onnx__model_proto__pack(&m->proto, bytes);
    const bool good = file_replace(path, bytes, size, error);
    free(bytes);
    return good;
}

bool onnx_save(const char *path, const struct network_state *state,
               const struct onnx_options *options, const struct metadata *about,
               struct error *error) {
    struct model *m = memory_new(1, sizeof *m);
    require(options->opset >= ONNX_OPSET_LEAST && options->opset <= ONNX_OPSET_MOST);
    require(options->class_count >= 1 && options->class_count <= NETWORK_CLASSES);
    m->state = state;
    m->options = options;
    build(m);
    describe(m, about);
    const bool good = check_numbers(m, path, error) && write_file(m, path, error);
    for (size_t i = 0; i < m->graph.n_initializer; i++)
        free(m->initializer[i].data);
    free(m);
    return good;
}
