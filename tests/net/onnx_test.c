/* Models that are written are read back with protobuf-c. That others understand them, and compute
 * the same, is for scripts/pytorch/onnx_check.py to find. */
#include "net/onnx.h"

#include "base/file.h"
#include "base/memory.h"
#include "scratch.h"

#include <math.h>
#include <onnx/onnx.pb-c.h>

static const char *const CLASSES[NETWORK_CLASSES] = {"a", "it's", "b\\'", "d", "e",
                                                     "f", "g",    "h",    "i", "the last"};
static const struct onnx_options PLAIN = {
    .opset = 9, .classes = CLASSES, .class_count = NETWORK_CLASSES};

static struct network_state new_state(void) {
    const struct network_plan *plan = network_plan();
    struct network_state state;
    struct random random;
    network_state_new(&state);
    random_seed(&random, 1);
    for (size_t i = 0; i < plan->parameters; i++)
        state.parameters[i] = random_uniform(&random, -1, 1);
    for (size_t i = 0; i < plan->statistics; i++) /* also variances that are nearly none */
        state.statistics[i] = i % 7 == 0 ? 1e-6F : random_uniform(&random, 0, 2);
    return state;
}

/* Writes the state as "f" and reads that. */
static Onnx__ModelProto *exported_of(const struct network_state *state,
                                     const struct onnx_options *options,
                                     const struct metadata *about) {
    struct error error;
    struct file file;
    assert_good(onnx_save("f", state, options, about, &error), &error);
    assert_true(onnx_is_file("f"));
    assert_good(file_open(&file, "f", STATUS_FAILURE, &error), &error);
    uint8_t *bytes = memory_take(file.size);
    assert_good(file_read(&file, bytes, file.size, &error), &error);
    file_close(&file);
    Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, file.size, bytes);
    assert_non_null(model);
    free(bytes);
    return model;
}

static Onnx__ModelProto *exported(const struct onnx_options *options) {
    struct network_state state = new_state();
    Onnx__ModelProto *model = exported_of(&state, options, &(struct metadata){0});
    network_state_free(&state);
    return model;
}

static void release(Onnx__ModelProto *model) {
    onnx__model_proto__free_unpacked(model, NULL);
}

static const Onnx__TensorProto *tensor_of(const Onnx__ModelProto *model, const char *name) {
    for (size_t i = 0; i < model->graph->n_initializer; i++)
        if (strcmp(model->graph->initializer[i]->name, name) == 0)
            return model->graph->initializer[i];
    fail_msg("there is no %s", name);
    return NULL;
}

static float element(const Onnx__TensorProto *tensor, size_t i) {
    float value;
    assert_true((i + 1) * sizeof value <= tensor->raw_data.len);
    memcpy(&value, tensor->raw_data.data + i * sizeof value, sizeof value);
    return value;
}

static const struct network_tensor *row_of(const char *name) {
    for (int i = 0; i < NETWORK_TENSORS; i++)
        if (strcmp(network_plan()->tensors[i].name, name) == 0)
            return &network_plan()->tensors[i];
    fail_msg("the network has no %s", name);
    return NULL;
}

/* The number of a state, by the tensor's name. */
static double number_of(const struct network_state *state, const char *layer, const char *suffix,
                        size_t i) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", layer, suffix);
    const struct network_tensor *tensor = row_of(name);
    assert_true(i < tensor->count);
    return (double)network_tensor_data(state, tensor)[i];
}

/* The file's tensor has the network's name and shape, but for `rows`, and the state's numbers. */
static void assert_tensor(const Onnx__ModelProto *model, const struct network_state *state,
                          const char *name, int rows) {
    const Onnx__TensorProto *found = tensor_of(model, name);
    const struct network_tensor *expected = row_of(name);
    const size_t row = expected->count / (size_t)expected->shape[0];
    assert_int_equal(found->data_type, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
    assert_int_equal(found->n_dims, expected->rank);
    assert_int_equal(found->dims[0], rows);
    for (int i = 1; i < expected->rank; i++)
        assert_int_equal(found->dims[i], expected->shape[i]);
    assert_int_equal(found->raw_data.len, (size_t)rows * row * sizeof(float));
    if (state != NULL)
        assert_memory_equal(found->raw_data.data, network_tensor_data(state, expected),
                            found->raw_data.len);
}

/* What each node is and takes, a word each: type:first number of each list or number, and a
 * line for all. */
static void describe_nodes(const Onnx__GraphProto *graph, char *text) {
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        text += sprintf(text, "%s%s", i > 0 ? " " : "", node->op_type);
        for (size_t j = 0; j < node->n_attribute; j++) {
            const Onnx__AttributeProto *a = node->attribute[j];
            switch (a->type) {
            case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT:
                text += sprintf(text, ":%s=%d", a->name, (int)a->i);
                break;
            case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS:
                text += sprintf(text, ":%s=", a->name);
                for (size_t k = 0; k < a->n_ints; k++)
                    text += sprintf(text, "%d", (int)a->ints[k]);
                break;
            case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT:
                text += sprintf(text, ":%s=%g", a->name, (double)a->f);
                break;
            default:
                fail_msg("attribute %s is of another type", a->name);
            }
        }
    }
}

/* Each node goes on with what the one before has made, and all else that it takes is in the file.
 */
static void assert_chain(const Onnx__ModelProto *model) {
    const char *before = ONNX_INPUT;
    size_t taken = 0;
    for (size_t i = 0; i < model->graph->n_node; i++) {
        const Onnx__NodeProto *node = model->graph->node[i];
        assert_string_equal(node->input[0], before);
        assert_int_equal(node->n_output, 1);
        for (size_t j = 1; j < node->n_input; j++, taken++)
            tensor_of(model, node->input[j]);
        before = node->output[0];
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(model->graph->node[j]->name, node->name);
    }
    assert_string_equal(before, ONNX_OUTPUT);
    assert_int_equal(taken, model->graph->n_initializer);
}

static void assert_shape(const Onnx__ValueInfoProto *value, const char *name, const char *shape) {
    char text[256] = "", *at = text;
    const Onnx__TypeProto__Tensor *tensor = value->type->tensor_type;
    assert_string_equal(value->name, name);
    assert_int_equal(value->type->value_case, ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE);
    assert_int_equal(tensor->elem_type, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
    for (size_t i = 0; i < tensor->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = tensor->shape->dim[i];
        if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
            at += sprintf(at, "%s %s, ", d->dim_param, d->denotation);
        else
            at += sprintf(at, "%d %s, ", (int)d->dim_value, d->denotation);
    }
    assert_string_equal(text, shape);
}

static const char *entry_of(const Onnx__ModelProto *model, const char *key) {
    const char *found = NULL;
    for (size_t i = 0; i < model->n_metadata_props; i++)
        if (strcmp(model->metadata_props[i]->key, key) == 0) {
            assert_null(found); /* twice */
            found = model->metadata_props[i]->value;
        }
    return found != NULL ? found : "none";
}

/* ---- structure ---- */

#define CONV(n)   "Conv:kernel_shape=55:pads=" #n #n #n #n ":strides=11"
#define CONV_RELU CONV(1) " Relu"
#define POOL      " MaxPool:kernel_shape=22:strides=22 "
#define LAST      " Flatten:axis=1 Gemm:transB=1"
#define NORM_RELU CONV(1) " BatchNormalization:epsilon=1e-05 Relu"
#define TWO(x)    x " " x

static void the_graph_is_the_network(void **unused) {
    static const struct {
        struct onnx_options options;
        const char *nodes;
        size_t tensors;
    } cases[] = {
        {{.softmax = false}, TWO(CONV_RELU) POOL TWO(CONV_RELU) LAST, 10},
        {{.keep_batchnorm = true}, TWO(NORM_RELU) POOL TWO(NORM_RELU) LAST, 26},
        {{.softmax = true}, TWO(CONV_RELU) POOL TWO(CONV_RELU) LAST " Softmax:axis=1", 10},
        {{.pixels = true, .bgr = true}, "Sub Div " TWO(CONV_RELU) POOL TWO(CONV_RELU) LAST, 12},
        {{.pixels = true, .softmax = true, .keep_batchnorm = true},
         "Sub Div " TWO(NORM_RELU) POOL TWO(NORM_RELU) LAST " Softmax:axis=1",
         28},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char nodes[4096];
        struct onnx_options options = cases[i].options;
        options.opset = 9;
        options.classes = CLASSES;
        options.class_count = NETWORK_CLASSES;
        Onnx__ModelProto *model = exported(&options);
        describe_nodes(model->graph, nodes);
        assert_string_equal(nodes, cases[i].nodes);
        assert_chain(model);
        assert_int_equal(model->graph->n_initializer, cases[i].tensors);
        assert_int_equal(model->graph->n_input, 1); /* no weights among them */
        assert_int_equal(model->graph->n_output, 1);
        assert_shape(model->graph->input[0], "modelInput",
                     "batch_size DATA_BATCH, 3 DATA_CHANNEL, 32 DATA_FEATURE, 32 DATA_FEATURE, ");
        assert_shape(model->graph->output[0], "modelOutput",
                     "batch_size DATA_BATCH, 10 DATA_FEATURE, ");
        assert_string_equal(model->graph->input[0]->type->denotation, "IMAGE");
        if (options.pixels)
            for (size_t j = 0; j < 2; j++) {
                assert_int_equal(model->graph->initializer[j]->n_dims, 0);
                assert_float_equal(element(model->graph->initializer[j], 0), 127.5F, 0);
            }
        release(model);
    }
}

static void nodes_have_telling_names(void **unused) {
    Onnx__ModelProto *model = exported(&PLAIN);
    char names[512] = "";
    (void)unused;
    for (size_t i = 0; i < model->graph->n_node; i++)
        sprintf(names + strlen(names), "%s ", model->graph->node[i]->name);
    assert_string_equal(names, "/conv1/Conv /Relu /conv2/Conv /Relu_1 /MaxPool /conv4/Conv /Relu_2 "
                               "/conv5/Conv /Relu_3 /Flatten /fc1/Gemm ");
    release(model);
}

static void versions_go_together(void **unused) {
    (void)unused;
    for (int opset = ONNX_OPSET_LEAST; opset <= ONNX_OPSET_MOST; opset++) {
        struct onnx_options options = PLAIN;
        options.opset = opset;
        Onnx__ModelProto *model = exported(&options);
        assert_int_equal(model->ir_version, onnx_ir_version(opset));
        assert_int_equal(model->n_opset_import, 1);
        assert_int_equal(model->opset_import[0]->version, opset);
        assert_string_equal(model->opset_import[0]->domain, "");
        assert_string_equal(model->producer_name, "cifar");
        assert_string_equal(model->producer_version, CIFAR_VERSION);
        release(model);
    }
}

static void the_file_says_how_to_use_it(void **unused) {
    struct network_state state = new_state();
    struct metadata about = {0};
    (void)unused;
    for (int i = 0; i < METADATA_MOST; i++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        metadata_set(&about, key, "value %d", i);
    }
    Onnx__ModelProto *model = exported_of(&state, &PLAIN, &about);
    assert_string_equal(entry_of(model, "Image.BitmapPixelFormat"), "Rgb8");
    assert_string_equal(entry_of(model, "Image.ColorSpaceGamma"), "SRGB");
    assert_string_equal(entry_of(model, "Image.NominalPixelRange"), "Normalized_1_1");
    assert_string_equal(entry_of(model, "names"),
                        "{0: 'a', 1: 'it\\'s', 2: 'b\\\\\\'', 3: 'd', 4: 'e', 5: 'f', 6: 'g', "
                        "7: 'h', 8: 'i', 9: 'the last'}");
    assert_string_equal(entry_of(model, "key 31"), "value 31");
    assert_int_equal(model->n_metadata_props, 4 + METADATA_MOST);
    release(model);

    struct onnx_options options = PLAIN;
    options.pixels = options.bgr = true;
    model = exported_of(&state, &options, &(struct metadata){0});
    assert_string_equal(entry_of(model, "Image.BitmapPixelFormat"), "Bgr8");
    assert_string_equal(entry_of(model, "Image.NominalPixelRange"), "NominalRange_0_255");
    release(model);
    network_state_free(&state);
}

/* ---- weights ---- */

static void unfolded_weights_are_the_state(void **unused) {
    struct network_state state = new_state();
    struct onnx_options options = PLAIN;
    (void)unused;
    options.keep_batchnorm = true;
    Onnx__ModelProto *model = exported_of(&state, &options, &(struct metadata){0});
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *tensor = &network_plan()->tensors[i];
        if (tensor->kind != COUNTER)
            assert_tensor(model, &state, tensor->name, tensor->shape[0]);
    }
    release(model);
    network_state_free(&state);
}

/* Each weight is what it is in exact arithmetic, rounded once; so is each bias, but for what the
 * doubles on the way lose. */
static void folding_is_exact(void **unused) {
    struct network_state state = new_state();
    Onnx__ModelProto *model = exported_of(&state, &PLAIN, &(struct metadata){0});
    (void)unused;
    for (int i = 0; i < NETWORK_LAYERS - 1; i++) {
        const char *conv = network_layers[i].name, *norm = network_layers[i + 1].name;
        char name[2][64];
        if (network_layers[i].kind != CONV2D)
            continue;
        snprintf(name[0], sizeof name[0], "%s.weight", conv);
        snprintf(name[1], sizeof name[1], "%s.bias", conv);
        assert_tensor(model, NULL, name[0], network_layers[i].out);
        assert_tensor(model, NULL, name[1], network_layers[i].out);
        const size_t row = row_of(name[0])->count / (size_t)network_layers[i].out;
        for (size_t c = 0; c < (size_t)network_layers[i].out; c++) {
            const long double scale =
                (long double)number_of(&state, norm, "weight", c) /
                sqrtl((long double)number_of(&state, norm, "running_var", c) + (long double)1e-5F);
            for (size_t j = c * row; j < (c + 1) * row; j++) {
                const long double exact = (long double)number_of(&state, conv, "weight", j) * scale;
                const long double found = (long double)element(tensor_of(model, name[0]), j);
                assert_true(fabsl(found - exact) <= fabsl(exact) * 0x1.001p-24L + 1e-30L);
            }
            const long double exact = ((long double)number_of(&state, conv, "bias", c) -
                                       (long double)number_of(&state, norm, "running_mean", c)) *
                                          scale +
                                      (long double)number_of(&state, norm, "bias", c);
            const long double found = (long double)element(tensor_of(model, name[1]), c);
            assert_true(fabsl(found - exact) <=
                        fabsl(exact) * 0x1.001p-24L + fabsl(scale) * 1e-12L);
        }
    }
    assert_tensor(model, &state, "fc1.weight", NETWORK_CLASSES);
    assert_tensor(model, &state, "fc1.bias", NETWORK_CLASSES);
    release(model);
    network_state_free(&state);
}

static void bgr_is_the_order_of_the_first_channels(void **unused) {
    struct onnx_options options = PLAIN;
    (void)unused;
    for (int kept = 0; kept < 2; kept++) {
        options.keep_batchnorm = kept == 1;
        options.bgr = false;
        Onnx__ModelProto *rgb = exported(&options);
        options.bgr = true;
        Onnx__ModelProto *bgr = exported(&options);
        for (size_t t = 0; t < rgb->graph->n_initializer; t++) {
            const Onnx__TensorProto *a = rgb->graph->initializer[t],
                                    *b = bgr->graph->initializer[t];
            const bool first = strcmp(a->name, "conv1.weight") == 0;
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->raw_data.len, b->raw_data.len);
            if (!first)
                assert_memory_equal(a->raw_data.data, b->raw_data.data, a->raw_data.len);
            for (size_t i = 0; first && i < row_of(a->name)->count; i++) {
                const size_t filter = i / 75, channel = i / 25 % 3, rest = i % 25;
                assert_float_equal(element(a, i),
                                   element(b, filter * 75 + (2 - channel) * 25 + rest), 0);
            }
        }
        release(rgb);
        release(bgr);
    }
}

static void outputs_without_a_class_are_left_out(void **unused) {
    struct network_state state = new_state();
    (void)unused;
    for (int count = 1; count < NETWORK_CLASSES; count += 2) {
        struct onnx_options options = PLAIN;
        char shape[64];
        options.class_count = count;
        Onnx__ModelProto *model = exported_of(&state, &options, &(struct metadata){0});
        assert_tensor(model, &state, "fc1.weight", count);
        assert_tensor(model, &state, "fc1.bias", count);
        snprintf(shape, sizeof shape, "batch_size DATA_BATCH, %d DATA_FEATURE, ", count);
        assert_shape(model->graph->output[0], "modelOutput", shape);
        if (count == 3)
            assert_string_equal(entry_of(model, "names"), "{0: 'a', 1: 'it\\'s', 2: 'b\\\\\\''}");
        release(model);
    }
    network_state_free(&state);
}

/* ---- files ---- */

static void the_same_state_gives_the_same_bytes(void **unused) {
    static char first[400000], second[400000];
    (void)unused;
    release(exported(&PLAIN));
    const size_t size = read_file("f", first, sizeof first);
    release(exported(&PLAIN)); /* over the first */
    assert_int_equal(read_file("f", second, sizeof second), size);
    assert_true(size > 200000 && size < sizeof first);
    assert_memory_equal(first, second, size);
}

static void saving_reports_what_file_replace_does(void **unused) {
    struct network_state state = new_state();
    struct error error;
    (void)unused;
    assert_false(onnx_save("nowhere/f", &state, &PLAIN, &(struct metadata){0}, &error));
    assert_says(&error, STATUS_FAILURE, "nowhere/f: cannot be written");
    network_state_free(&state);
}

static void other_files_are_no_models(void **unused) {
    static const struct {
        const char *bytes;
        size_t size;
        bool model;
    } cases[] = {
#define FILE_OF(text) text, sizeof text - 1
        {FILE_OF("\x08\x04\x3a\x00\x42\x00"), true}, /* version, graph, opsets: empty, but there */
        {FILE_OF("\x3a\x02xy\x42\x00\x08\x04"), true}, /* in another order */
        {FILE_OF("\x08\x04\x3a\x00"), false},          /* no opset */
        {FILE_OF("\x08\x04\x42\x00"), false},          /* no graph */
        {FILE_OF("\x3a\x00\x42\x00"), false},          /* no version */
        {FILE_OF("\x08\x04\x42\x00\x3a\x01"), false},  /* a graph that is cut short */
        {FILE_OF("\x08\x04\x42\x00\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},
        {FILE_OF("\x08\x04\x3a\x00\x42\x00\x0d\x00\x00\x00\x00"), false}, /* four bytes: type 5 */
        {FILE_OF("\x08\x04\x3a\x00\x42\x00\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"),
         false}, /* a number of 77 bits */
        {FILE_OF("\x08\x04\x3a\x00\x42\x00\x80"), false},
        {FILE_OF(""), false},
        {FILE_OF("{\"event\":\"start\"}\n"), false},
    };
    (void)unused;
    assert_false(onnx_is_file("missing"));
    assert_false(onnx_is_file("."));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_file("f", cases[i].bytes, cases[i].size);
        if (onnx_is_file("f") != cases[i].model)
            fail_msg("case %zu", i);
    }
    static char many[40000]; /* empty graphs */
    for (size_t i = 0; i < sizeof many; i += 2)
        memcpy(many + i, "\x3a", 2);
    memcpy(many, "\x08\x04\x42", 4);
    make_file("f", many, sizeof many / 2);
    assert_true(onnx_is_file("f"));
    make_file("f", many, sizeof many);
    assert_false(onnx_is_file("f"));
    release(exported(&PLAIN));
    struct stat info;
    assert_int_equal(stat("f", &info), 0);
    for (off_t size = info.st_size - 1200; size >= 0; size -= 997) { /* within the graph */
        cut_file("f", size);
        assert_false(onnx_is_file("f"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(the_graph_is_the_network),
        IN_SCRATCH(nodes_have_telling_names),
        IN_SCRATCH(versions_go_together),
        IN_SCRATCH(the_file_says_how_to_use_it),
        IN_SCRATCH(unfolded_weights_are_the_state),
        IN_SCRATCH(folding_is_exact),
        IN_SCRATCH(bgr_is_the_order_of_the_first_channels),
        IN_SCRATCH(outputs_without_a_class_are_left_out),
        IN_SCRATCH(the_same_state_gives_the_same_bytes),
        IN_SCRATCH(saving_reports_what_file_replace_does),
        IN_SCRATCH(other_files_are_no_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
