/* cuDNN: the graph API, for graphs of one convolution. Five engines are offered; a caller that
 * picks the wrong one, or gives it the wrong workspace, gets wrong results. What the real library
 * was seen to refuse (9.19) is refused with the same status. */
#include "convolution.h"
#include "fake.h"

#include <cudnn.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order in which they are offered: the first three in mode A, the others as a fallback. */
static const struct engine {
    enum arithmetic arithmetic;
    int64_t workspace;
    bool supported;
    int notes_count;
    cudnnBackendNumericalNote_t notes[1];
} engines[] = {
    {.arithmetic = TF32,
     .supported = true,
     .notes_count = 1,
     .notes = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}},
    {.arithmetic = NOISY,
     .supported = true,
     .notes_count = 1,
     .notes = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}},
    {.arithmetic = EXACT, .supported = true, .workspace = INT64_C(4) << 30},
    {.arithmetic = EXACT, .supported = false},
    {.arithmetic = EXACT, .supported = true, .workspace = 100000},
};

enum {
    FIRST_FALLBACK = 3,
    ENGINES = sizeof engines / sizeof engines[0],
    MOST_ELEMENTS = 8,   /* of an attribute that is kept */
    MOST_ATTRIBUTES = 9, /* of a descriptor */
};

/* ---- errors ---- */

static char last_error[512];

__attribute__((format(printf, 2, 3))) static cudnnStatus_t refuse(cudnnStatus_t status,
                                                                  const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

/* Refuses what a capture forbids. */
static cudnnStatus_t refuse_capture(const char *function) {
    fake_spoil_capture(function);
    return refuse(CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER, "%s during a capture", function);
}

void cudnnGetLastErrorString(char *message, size_t size) {
    if (size > 0)
        snprintf(message, size, "%s", last_error);
    last_error[0] = '\0';
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    static const struct {
        cudnnStatus_t status;
        const char *name;
    } names[] = {
#define NAME(status) {status, #status}
        NAME(CUDNN_STATUS_SUCCESS),
        NAME(CUDNN_STATUS_NOT_INITIALIZED),
        NAME(CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED),
        NAME(CUDNN_STATUS_BAD_PARAM),
        NAME(CUDNN_STATUS_BAD_PARAM_NULL_POINTER),
        NAME(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER),
        NAME(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED),
        NAME(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT),
        NAME(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH),
        NAME(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE),
        NAME(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE),
        NAME(CUDNN_STATUS_NOT_SUPPORTED),
        NAME(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE),
        NAME(CUDNN_STATUS_INTERNAL_ERROR),
        NAME(CUDNN_STATUS_EXECUTION_FAILED),
        NAME(CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER),
#undef NAME
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].status == status)
            return names[i].name;
    return "CUDNN_STATUS_UNKNOWN";
}

/* Begins a call. */
#define ENTER(...)                                                                                 \
    do {                                                                                           \
        int status;                                                                                \
        if (fake_call(&status, __VA_ARGS__))                                                       \
            return refuse((cudnnStatus_t)status, "because FAKE_GPU_FAIL says so");                 \
    } while (0)

/* ---- versions and handles ---- */

size_t cudnnGetVersion(void) {
    return fake_setting("FAKE_CUDNN_VERSION", CUDNN_VERSION);
}

struct cudnnContext {
    CUstream stream; /* NULL until it is set */
};

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    ENTER("cudnnCreate");
    if (fake_any_capture())
        return refuse_capture("cudnnCreate");
    *handle = fake_new(sizeof **handle);
    return CUDNN_STATUS_SUCCESS;
}

static void check_descriptors(void);

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    ENTER("cudnnDestroy");
    if (handle == NULL)
        return refuse(CUDNN_STATUS_NOT_INITIALIZED, "no handle");
    if (fake_any_capture())
        return refuse_capture("cudnnDestroy");
    check_descriptors();
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    ENTER("cudnnSetStream stream %d", fake_stream_number(stream));
    if (handle == NULL || fake_stream_number(stream) == 0)
        return refuse(CUDNN_STATUS_BAD_PARAM, "no handle, the default stream, or no stream");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

/* The attributes that can be set. ALPHA and BETA also take doubles, as the real ones do. */
static const struct rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int least, most; /* elements */
    bool required;
} rules[] = {
#define TENSOR(name, type, least, most, required)                                                  \
    { CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_##name, type, least, most, required }
    TENSOR(DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true),
    TENSOR(DIMENSIONS, CUDNN_TYPE_INT64, 1, 8, true),
    TENSOR(STRIDES, CUDNN_TYPE_INT64, 1, 8, true),
    TENSOR(UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true),
    TENSOR(BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true),
    TENSOR(IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false),
    TENSOR(IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, false),
#undef TENSOR
#define CONVOLUTION(name, type, count)                                                             \
    {                                                                                              \
        CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_##name, type, count, count,   \
            true                                                                                   \
    }
    CONVOLUTION(COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1),
    CONVOLUTION(CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1),
    CONVOLUTION(SPATIAL_DIMS, CUDNN_TYPE_INT64, 1),
    CONVOLUTION(PRE_PADDINGS, CUDNN_TYPE_INT64, 2),
    CONVOLUTION(POST_PADDINGS, CUDNN_TYPE_INT64, 2),
    CONVOLUTION(DILATIONS, CUDNN_TYPE_INT64, 2),
    CONVOLUTION(FILTER_STRIDES, CUDNN_TYPE_INT64, 2),
#undef CONVOLUTION
#define OPERATION(of, name, type)                                                                  \
    {                                                                                              \
        CUDNN_BACKEND_OPERATION_CONVOLUTION_##of##_DESCRIPTOR,                                     \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##name, CUDNN_TYPE_##type, 1, 1, true                 \
    }
    OPERATION(FORWARD, FORWARD_CONV_DESC, BACKEND_DESCRIPTOR),
    OPERATION(FORWARD, FORWARD_X, BACKEND_DESCRIPTOR),
    OPERATION(FORWARD, FORWARD_W, BACKEND_DESCRIPTOR),
    OPERATION(FORWARD, FORWARD_Y, BACKEND_DESCRIPTOR),
    OPERATION(FORWARD, FORWARD_ALPHA, FLOAT),
    OPERATION(FORWARD, FORWARD_BETA, FLOAT),
    OPERATION(BACKWARD_DATA, BWD_DATA_CONV_DESC, BACKEND_DESCRIPTOR),
    OPERATION(BACKWARD_DATA, BWD_DATA_DX, BACKEND_DESCRIPTOR),
    OPERATION(BACKWARD_DATA, BWD_DATA_W, BACKEND_DESCRIPTOR),
    OPERATION(BACKWARD_DATA, BWD_DATA_DY, BACKEND_DESCRIPTOR),
    OPERATION(BACKWARD_DATA, BWD_DATA_ALPHA, FLOAT),
    OPERATION(BACKWARD_DATA, BWD_DATA_BETA, FLOAT),
#undef OPERATION
#define ONE(of, name, type, required)                                                              \
    { CUDNN_BACKEND_##of##_DESCRIPTOR, CUDNN_ATTR_##of##_##name, CUDNN_TYPE_##type, 1, 1, required }
    ONE(OPERATIONGRAPH, HANDLE, HANDLE, false),
    ONE(OPERATIONGRAPH, OPS, BACKEND_DESCRIPTOR, true),
    ONE(ENGINEHEUR, OPERATION_GRAPH, BACKEND_DESCRIPTOR, true),
    ONE(ENGINEHEUR, MODE, HEUR_MODE, true),
    ONE(ENGINE, OPERATION_GRAPH, BACKEND_DESCRIPTOR, true),
    ONE(ENGINE, GLOBAL_INDEX, INT64, true),
    ONE(ENGINECFG, ENGINE, BACKEND_DESCRIPTOR, true),
    ONE(EXECUTION_PLAN, HANDLE, HANDLE, true),
    ONE(EXECUTION_PLAN, ENGINE_CONFIG, BACKEND_DESCRIPTOR, true),
    ONE(VARIANT_PACK, WORKSPACE, VOID_PTR, false),
#undef ONE
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1,
     MOST_ELEMENTS, true},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 1, MOST_ELEMENTS, true},
};

enum { RULES = sizeof rules / sizeof rules[0] };

struct attribute {
    cudnnBackendAttributeName_t name;
    int64_t count;
    union {
        int64_t integers[MOST_ELEMENTS];
        void *pointers[MOST_ELEMENTS];
        int choices[MOST_ELEMENTS]; /* all enumerations */
        bool flags[MOST_ELEMENTS];
        float floats[MOST_ELEMENTS];
        double doubles[MOST_ELEMENTS];
    } values;
};

/* A descriptor that is set as an attribute is copied, so it may be destroyed afterwards. */
struct descriptor {
    struct descriptor *next;
    cudnnBackendDescriptorType_t type;
    int number; /* in the log: 1, 2, ... */
    bool finalized;
    int attributes_count;
    struct attribute attributes[MOST_ATTRIBUTES];
    /* and what was made of them, or came with other descriptors: */
    struct tensor4 tensor;
    struct convolution convolution;
    bool has_handle;
    int engine;
    bool has_run; /* a plan, outside of captures */
};

static struct descriptor *descriptors; /* all that were not destroyed */

/* Of a program with one handle, all descriptors are gone when the handle goes. */
static void check_descriptors(void) {
    if (descriptors != NULL)
        fake_stop("cuDNN: descriptor %d was never destroyed", descriptors->number);
}

static struct descriptor *find(const void *address) {
    struct descriptor *d = descriptors;
    while (d != NULL && d != address)
        d = d->next;
    return d;
}

static int number_of(const void *address) {
    const struct descriptor *d = find(address);
    return d == NULL ? 0 : d->number;
}

static struct attribute *attribute_of(struct descriptor *d, cudnnBackendAttributeName_t name) {
    for (int i = 0; i < d->attributes_count; i++)
        if (d->attributes[i].name == name)
            return &d->attributes[i];
    return NULL;
}

static int64_t integer(struct descriptor *d, cudnnBackendAttributeName_t name) {
    return attribute_of(d, name)->values.integers[0];
}

static int choice(struct descriptor *d, cudnnBackendAttributeName_t name) {
    return attribute_of(d, name)->values.choices[0];
}

static bool flag(struct descriptor *d, cudnnBackendAttributeName_t name) {
    const struct attribute *attribute = attribute_of(d, name);
    return attribute != NULL && attribute->values.flags[0];
}

static size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_FLOAT:
        return sizeof(float);
    case CUDNN_TYPE_DOUBLE:
        return sizeof(double);
    case CUDNN_TYPE_INT64:
        return sizeof(int64_t);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return sizeof(void *);
    default: /* an enumeration */
        return sizeof(int);
    }
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor) {
    static int number;
    ENTER("cudnnBackendCreateDescriptor %d", (int)type);
    for (int i = 0; i < RULES; i++)
        if (rules[i].of == type) {
            struct descriptor *d = fake_new(sizeof *d);
            d->type = type;
            d->number = ++number;
            d->next = descriptors;
            *descriptor = descriptors = d;
            return CUDNN_STATUS_SUCCESS;
        }
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "descriptors of type %d are not faked", (int)type);
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    ENTER("cudnnBackendDestroyDescriptor descriptor %d", number_of(descriptor));
    struct descriptor **link = &descriptors;
    if (descriptor == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
    while (*link != NULL && *link != descriptor)
        link = &(*link)->next;
    if (*link == NULL)
        fake_stop("cudnnBackendDestroyDescriptor of what is no descriptor, or no more");
    *link = (*link)->next;
    free(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

/* Where a tensor goes that is set as the attribute `name` of an operation; NULL: no tensor does. */
static struct tensor4 *tensor_place(struct descriptor *d, cudnnBackendAttributeName_t name) {
    switch (name) {
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX:
        return &d->convolution.x;
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W:
        return &d->convolution.w;
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY:
        return &d->convolution.y;
    default:
        return NULL;
    }
}

static bool is_operation(cudnnBackendDescriptorType_t type) {
    return type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
           type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
}

/* Whether a descriptor of this type can be what `name` asks for. */
static bool fits(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type) {
    switch (name) {
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC:
        return type == CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR;
    case CUDNN_ATTR_OPERATIONGRAPH_OPS:
        return is_operation(type);
    case CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH:
    case CUDNN_ATTR_ENGINE_OPERATION_GRAPH:
        return type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        return type == CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
        return type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    default: /* of an operation */
        return type == CUDNN_BACKEND_TENSOR_DESCRIPTOR;
    }
}

/* The attribute `name` of d becomes a copy of what `from` says. */
static cudnnStatus_t take(struct descriptor *d, cudnnBackendAttributeName_t name,
                          const struct descriptor *from) {
    struct tensor4 *tensor = tensor_place(d, name);
    if (from == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d: no descriptor", (int)name);
    if (!fits(name, from->type))
        return refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                      "attribute %d cannot be a descriptor of type %d", (int)name, (int)from->type);
    if (!from->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                      "attribute %d: the descriptor is not finalized", (int)name);
    if (tensor != NULL) {
        *tensor = from->tensor;
    } else if (from->type == CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR) {
        const struct convolution own = d->convolution;
        d->convolution = from->convolution;
        d->convolution.x = own.x;
        d->convolution.w = own.w;
        d->convolution.y = own.y;
    } else {
        d->convolution = from->convolution;
        d->engine = from->engine;
        d->has_handle = from->has_handle;
    }
    return CUDNN_STATUS_SUCCESS;
}

static bool is_scale(const struct rule *rule) {
    return rule->type == CUDNN_TYPE_FLOAT;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values) {
    struct descriptor *d = find(descriptor);
    const struct rule *rule = rules, *end = rules + RULES;
    ENTER("cudnnBackendSetAttribute descriptor %d %d count %lld", number_of(descriptor), (int)name,
          (long long)count);
    if (descriptor == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
    if (d == NULL)
        fake_stop("cudnnBackendSetAttribute of what is no descriptor, or no more");
    if (d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d: already finalized", (int)name);
    while (rule < end && (rule->of != d->type || rule->name != name))
        rule++;
    if (rule == end)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptors of type %d have no attribute %d",
                      (int)d->type, (int)name);
    if (type != rule->type && !(is_scale(rule) && type == CUDNN_TYPE_DOUBLE))
        return refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d is of type %d, not %d",
                      (int)name, (int)rule->type, (int)type);
    if (count < rule->least || count > rule->most || values == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d cannot have %lld elements at %s",
                      (int)name, (long long)count, values == NULL ? "NULL" : "an address");
    struct attribute *attribute = attribute_of(d, name);
    if (attribute == NULL) {
        attribute = &d->attributes[d->attributes_count++];
        attribute->name = name;
    }
    attribute->count = count;
    memcpy(&attribute->values, values, (size_t)count * size_of(type));
    if (is_scale(rule) && type == CUDNN_TYPE_FLOAT)
        attribute->values.doubles[0] = (double)attribute->values.floats[0];
    if (rule->type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return take(d, name, find(attribute->values.pointers[0]));
    if (rule->type == CUDNN_TYPE_HANDLE && attribute->values.pointers[0] == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d: no handle", (int)name);
    return CUDNN_STATUS_SUCCESS;
}

/* ---- finalizing ---- */

static cudnnStatus_t finalize_tensor(struct descriptor *d) {
    const struct attribute *sizes = attribute_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS);
    const struct attribute *strides = attribute_of(d, CUDNN_ATTR_TENSOR_STRIDES);
    struct tensor4 *t = &d->tensor;
    t->id = integer(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    t->alignment = integer(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    if (choice(d, CUDNN_ATTR_TENSOR_DATA_TYPE) != CUDNN_DATA_FLOAT)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "a tensor that is not of floats");
    if (flag(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL) || flag(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE))
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a tensor that is virtual or a value");
    if (sizes->count != strides->count)
        return refuse(CUDNN_STATUS_BAD_PARAM, "%d dimensions but %d strides", (int)sizes->count,
                      (int)strides->count);
    if (sizes->count != TENSOR_DIMENSIONS)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a tensor of %d dimensions", (int)sizes->count);
    if (t->alignment < (int64_t)sizeof(float) || (t->alignment & (t->alignment - 1)) != 0)
        return refuse(CUDNN_STATUS_BAD_PARAM, "an alignment of %d bytes", (int)t->alignment);
    for (int i = 0; i < TENSOR_DIMENSIONS; i++) {
        t->sizes[i] = sizes->values.integers[i];
        t->strides[i] = strides->values.integers[i];
        if (t->sizes[i] < 1 || t->strides[i] < 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "dimension %d: size %d, stride %d", i,
                          (int)t->sizes[i], (int)t->strides[i]);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize_convolution(struct descriptor *d) {
    struct convolution *c = &d->convolution;
    const int mode = choice(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE);
    if (choice(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "a convolution not in floats");
    if (integer(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a convolution in other than 2 dimensions");
    if (mode != CUDNN_CONVOLUTION && mode != CUDNN_CROSS_CORRELATION)
        return refuse(CUDNN_STATUS_BAD_PARAM, "convolution mode %d", mode);
    c->mirrored = mode == CUDNN_CONVOLUTION;
    for (int i = 0; i < 2; i++) {
        c->pad[i] = attribute_of(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->values.integers[i];
        c->pad_after[i] = attribute_of(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS)->values.integers[i];
        c->stride[i] = attribute_of(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->values.integers[i];
        c->dilation[i] = attribute_of(d, CUDNN_ATTR_CONVOLUTION_DILATIONS)->values.integers[i];
        if (c->pad[i] < 0 || c->pad_after[i] < 0 || c->stride[i] < 1 || c->dilation[i] < 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "a padding, stride or dilation is too small");
    }
    return CUDNN_STATUS_SUCCESS;
}

/* The two kinds' names of alpha and beta. */
static double scale(struct descriptor *d, cudnnBackendAttributeName_t forward,
                    cudnnBackendAttributeName_t data) {
    return attribute_of(d, d->convolution.kind == FORWARD ? forward : data)->values.doubles[0];
}

static cudnnStatus_t finalize_operation(struct descriptor *d) {
    struct convolution *c = &d->convolution;
    const int64_t *x = c->x.sizes, *w = c->w.sizes, *y = c->y.sizes;
    c->kind =
        d->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ? FORWARD : BACKWARD_DATA;
    c->alpha = scale(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA);
    c->beta = scale(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
    if (c->x.id == c->w.id || c->x.id == c->y.id || c->w.id == c->y.id)
        return refuse(CUDNN_STATUS_BAD_PARAM, "two tensors of an operation have the same id");
    if (x[0] != y[0] || x[1] != w[1] || y[1] != w[0])
        return refuse(CUDNN_STATUS_BAD_PARAM, "the images or channels of x, w and y differ");
    for (int i = 0; i < 2; i++) {
        const int64_t covered = (w[2 + i] - 1) * c->dilation[i] + 1;
        const int64_t space = x[2 + i] + c->pad[i] + c->pad_after[i] - covered;
        if (space < 0 || y[2 + i] != space / c->stride[i] + 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "y has %d rows or columns where %d belong",
                          (int)y[2 + i], (int)(space / c->stride[i] + 1));
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize_engine(struct descriptor *d) {
    const int64_t index = integer(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
    if (index < 0 || index >= ENGINES)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "there is no engine %d", (int)index);
    d->engine = (int)index;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize_heuristics(struct descriptor *d) {
    const int mode = choice(d, CUDNN_ATTR_ENGINEHEUR_MODE);
    if (mode != CUDNN_HEUR_MODE_A && mode != CUDNN_HEUR_MODE_FALLBACK)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "heuristics of mode %d are not faked", mode);
    if (!d->has_handle)
        return refuse(CUDNN_STATUS_BAD_PARAM, "the operation graph has no handle");
    return CUDNN_STATUS_SUCCESS;
}

/* The real one may load code into the GPU here. */
static cudnnStatus_t finalize_plan(struct descriptor *d) {
    if (fake_any_capture())
        return refuse_capture("finalizing a plan");
    if (!engines[d->engine].supported)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "engine %d does not fit after all", d->engine);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize_pack(struct descriptor *d) {
    if (attribute_of(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)->count !=
        attribute_of(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->count)
        return refuse(CUDNN_STATUS_BAD_PARAM, "not as many ids as pointers");
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize(struct descriptor *d) {
    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return finalize_tensor(d);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        return finalize_convolution(d);
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
        return finalize_engine(d);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        return finalize_heuristics(d);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        return finalize_plan(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        return finalize_pack(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        d->has_handle = attribute_of(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE) != NULL;
        return CUDNN_STATUS_SUCCESS;
    default:
        return is_operation(d->type) ? finalize_operation(d) : CUDNN_STATUS_SUCCESS;
    }
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    struct descriptor *d = find(descriptor);
    ENTER("cudnnBackendFinalize descriptor %d", number_of(descriptor));
    if (descriptor == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
    if (d == NULL)
        fake_stop("cudnnBackendFinalize of what is no descriptor, or no more");
    if (d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "already finalized");
    for (int i = 0; i < RULES; i++)
        if (rules[i].of == d->type && rules[i].required && attribute_of(d, rules[i].name) == NULL)
            return refuse(CUDNN_STATUS_BAD_PARAM,
                          "attribute %d of a descriptor of type %d is missing", (int)rules[i].name,
                          (int)d->type);
    const cudnnStatus_t status = finalize(d);
    d->finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

/* ---- reading ---- */

/* Makes a descriptor of the caller's, which must be new, one of an engine or of its configuration.
 */
static cudnnStatus_t give(const struct descriptor *from, int engine,
                          cudnnBackendDescriptorType_t type, void *address) {
    struct descriptor *d = find(address);
    if (d == NULL || d->type != type || d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "results need new descriptors of type %d", (int)type);
    d->convolution = from->convolution;
    d->has_handle = from->has_handle;
    d->engine = engine;
    d->finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t get_results(struct descriptor *d, int64_t room, int64_t *count,
                                 void *const *results) {
    const bool fallback = choice(d, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK;
    const int offered = (int)fake_setting("FAKE_CUDNN_ENGINES", ENGINES);
    const int first = fallback ? FIRST_FALLBACK : 0, end = fallback ? ENGINES : FIRST_FALLBACK;
    const int there = offered <= first ? 0 : (offered < end ? offered : end) - first;
    *count = room == 0 || room > there ? there : room;
    for (int i = 0; i < there && i < room; i++) {
        const cudnnStatus_t status =
            give(d, first + i, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, results[i]);
        if (status != CUDNN_STATUS_SUCCESS)
            return status;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* What can be read. */
static const struct readable {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
} readables[] = {
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_RESULTS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR},
    {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE,
     CUDNN_TYPE_BACKEND_DESCRIPTOR},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
     CUDNN_TYPE_INT64},
};

/* `count` values at `from`; nobody may have less room. */
static cudnnStatus_t copy_out(void *to, int64_t room, int64_t *count, const void *from,
                              int64_t there, size_t size) {
    *count = there;
    if (room > 0)
        memcpy(to, from, (size_t)(room < there ? room : there) * size);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room,
                                       int64_t *count, void *values) {
    struct descriptor *d = find(descriptor);
    const struct readable *readable = readables;
    const struct readable *end = readables + sizeof readables / sizeof readables[0];
    ENTER("cudnnBackendGetAttribute descriptor %d %d", number_of(descriptor), (int)name);
    if (descriptor == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
    if (d == NULL)
        fake_stop("cudnnBackendGetAttribute of what is no descriptor, or no more");
    if (!d->finalized)
        return refuse(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is not finalized");
    while (readable < end && (readable->of != d->type || readable->name != name))
        readable++;
    if (readable == end)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "reading attribute %d of type %d is not faked",
                      (int)name, (int)d->type);
    if (type != readable->type)
        return refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d is of type %d, not %d",
                      (int)name, (int)readable->type, (int)type);
    if (count == NULL || room < 0 || (room > 0 && values == NULL))
        return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d: no place to write to", (int)name);
    const struct engine *engine = &engines[d->engine];
    const int64_t index = d->engine;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        return get_results(d, room, count, values);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        *count = 1;
        return room == 0 ? CUDNN_STATUS_SUCCESS
                         : give(d, d->engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR, *(void **)values);
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        return copy_out(values, room, count, &index, 1, sizeof index);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        return copy_out(values, room, count, engine->notes, engine->notes_count,
                        sizeof engine->notes[0]);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        return copy_out(values, room, count, &engine->workspace, 1, sizeof engine->workspace);
    default: /* notes on behaviour: there are none */
        *count = 0;
        return CUDNN_STATUS_SUCCESS;
    }
}

/* ---- executing ---- */

struct execution {
    struct convolution convolution;
    enum arithmetic arithmetic;
    float *x, *w, *y;
    void *workspace;
    size_t workspace_size;
};

static void run_execution(const void *data) {
    const struct execution *e = data;
    if (e->workspace_size > 0)
        memset(e->workspace, 0xFF, e->workspace_size); /* NaN: it is nobody else's */
    convolution_run(&e->convolution, e->arithmetic, e->x, e->w, e->y);
}

/* Bytes from the first to the last element. */
static size_t extent(const struct tensor4 *t) {
    int64_t last = 0;
    for (int i = 0; i < TENSOR_DIMENSIONS; i++)
        last += (t->sizes[i] - 1) * t->strides[i];
    return (size_t)(last + 1) * sizeof(float);
}

/* The pointer of the tensor in the pack, checked. */
static cudnnStatus_t find_tensor(struct descriptor *pack, const struct tensor4 *t, float **data) {
    const struct attribute *ids = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const struct attribute *pointers = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    int64_t i = 0;
    while (i < ids->count && ids->values.integers[i] != t->id)
        i++;
    if (i == ids->count)
        return refuse(CUDNN_STATUS_BAD_PARAM, "the pack has no tensor %d", (int)t->id);
    *data = pointers->values.pointers[i];
    if (*data == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "tensor %d is NULL", (int)t->id);
    if ((uintptr_t)*data % (uintptr_t)t->alignment != 0)
        return refuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
                      "tensor %d is not aligned to %d bytes", (int)t->id, (int)t->alignment);
    if (!fake_is_device(*data, extent(t)))
        return refuse(CUDNN_STATUS_BAD_PARAM,
                      "tensor %d: its %zu bytes are not in one allocation of the device",
                      (int)t->id, extent(t));
    return CUDNN_STATUS_SUCCESS;
}

static bool overlap(const void *a, size_t a_size, const void *b, size_t b_size) {
    return (uintptr_t)a < (uintptr_t)b + b_size && (uintptr_t)b < (uintptr_t)a + a_size;
}

static cudnnStatus_t check_sharing(const struct execution *e) {
    const struct convolution *c = &e->convolution;
    const size_t x = extent(&c->x), w = extent(&c->w), y = extent(&c->y);
    if (overlap(e->x, x, e->w, w) || overlap(e->x, x, e->y, y) || overlap(e->w, w, e->y, y))
        return refuse(CUDNN_STATUS_BAD_PARAM, "two tensors share memory");
    if (e->workspace_size == 0)
        return CUDNN_STATUS_SUCCESS;
    if (e->workspace == NULL || (uintptr_t)e->workspace % 256 != 0)
        return refuse(CUDNN_STATUS_BAD_PARAM, "a workspace that is NULL or not aligned to 256");
    if (!fake_is_device(e->workspace, e->workspace_size))
        return refuse(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT,
                      "the workspace's %zu bytes are not in one allocation of the device",
                      e->workspace_size);
    if (overlap(e->workspace, e->workspace_size, e->x, x) ||
        overlap(e->workspace, e->workspace_size, e->w, w) ||
        overlap(e->workspace, e->workspace_size, e->y, y))
        return refuse(CUDNN_STATUS_BAD_PARAM, "the workspace shares memory with a tensor");
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_address,
                                  cudnnBackendDescriptor_t pack_address) {
    static const char *const kinds[] = {[FORWARD] = "forward", [BACKWARD_DATA] = "data"};
    struct descriptor *plan = find(plan_address), *pack = find(pack_address);
    const bool plan_fits = plan != NULL && plan->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
    const struct convolution *c = plan_fits ? &plan->convolution : &(struct convolution){0};
    ENTER("cudnnBackendExecute %s n=%d %d>%d engine %d stream %d", kinds[c->kind],
          (int)c->x.sizes[0], (int)c->w.sizes[1], (int)c->w.sizes[0], plan_fits ? plan->engine : -1,
          fake_stream_number(handle == NULL ? NULL : handle->stream));
    if (handle == NULL || handle->stream == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM, "the handle has no stream");
    if (!plan_fits || pack == NULL || pack->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
        return refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "no plan or no variant pack");
    if (!plan->finalized || !pack->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "plan or variant pack");
    if (fake_capturing(handle->stream) && !plan->has_run)
        return refuse_capture("the first execution of a plan");

    const struct attribute *workspace = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    struct execution e = {.convolution = *c, .arithmetic = engines[plan->engine].arithmetic};
    e.workspace = workspace == NULL ? NULL : workspace->values.pointers[0];
    e.workspace_size = (size_t)engines[plan->engine].workspace;
    cudnnStatus_t status = find_tensor(pack, &c->x, &e.x);
    if (status == CUDNN_STATUS_SUCCESS)
        status = find_tensor(pack, &c->w, &e.w);
    if (status == CUDNN_STATUS_SUCCESS)
        status = find_tensor(pack, &c->y, &e.y);
    if (status == CUDNN_STATUS_SUCCESS)
        status = check_sharing(&e);
    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    plan->has_run = plan->has_run || !fake_capturing(handle->stream);
    if (fake_enqueue(handle->stream, run_execution, &e, sizeof e, "convolution %s n=%d %d>%d",
                     kinds[c->kind], (int)c->x.sizes[0], (int)c->w.sizes[1],
                     (int)c->w.sizes[0]) != CUDA_SUCCESS)
        return refuse(CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER, "the stream takes no work");
    return CUDNN_STATUS_SUCCESS;
}
