#include "plan.h"

#include "base/memory.h"

#include <stdlib.h>

/* The unique ids of the three tensors. */
enum { X = 1, W, Y };

/* A plan being built. The first call that fails fills the error, and those after it do nothing. */
struct builder {
    const struct planner *planner;
    struct plan *plan;
    bool failed;
    struct error *error;
};

static void check(struct builder *b, cudnnStatus_t status, const char *what) {
    char why[512] = "";
    if (status == CUDNN_STATUS_SUCCESS)
        return;
    b->failed = true;
    b->planner->cudnn->cudnnGetLastErrorString(why, sizeof why);
    error_set(b->error, STATUS_DEVICE, "cuDNN: %s: %s: %s", what,
              b->planner->cudnn->cudnnGetErrorString(status), why);
}

static cudnnBackendDescriptor_t make(struct builder *b, cudnnBackendDescriptorType_t type) {
    struct plan *plan = b->plan;
    cudnnBackendDescriptor_t descriptor = NULL;
    if (b->failed)
        return NULL;
    check(b, b->planner->cudnn->cudnnBackendCreateDescriptor(type, &descriptor), "a descriptor");
    require(plan->made_count < PLAN_DESCRIPTORS);
    if (!b->failed)
        plan->made[plan->made_count++] = descriptor;
    return descriptor;
}

static void set(struct builder *b, cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (!b->failed)
        check(b, b->planner->cudnn->cudnnBackendSetAttribute(of, name, type, count, values),
              "an attribute");
}

static void set_descriptor(struct builder *b, cudnnBackendDescriptor_t of,
                           cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    set(b, of, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_integers(struct builder *b, cudnnBackendDescriptor_t of,
                         cudnnBackendAttributeName_t name, int64_t count, const int64_t *values) {
    set(b, of, name, CUDNN_TYPE_INT64, count, values);
}

static void set_integer(struct builder *b, cudnnBackendDescriptor_t of,
                        cudnnBackendAttributeName_t name, int64_t value) {
    set_integers(b, of, name, 1, &value);
}

static void finalize(struct builder *b, cudnnBackendDescriptor_t descriptor, const char *what) {
    if (!b->failed)
        check(b, b->planner->cudnn->cudnnBackendFinalize(descriptor), what);
}

/* Reads up to `room` values; answers how many it has read or, with room 0, how many there are. */
static int64_t get(struct builder *b, cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                   cudnnBackendAttributeType_t type, int64_t room, void *values) {
    int64_t count = 0;
    if (!b->failed)
        check(b, b->planner->cudnn->cudnnBackendGetAttribute(of, name, type, room, &count, values),
              "an attribute");
    return b->failed ? 0 : room > 0 && count > room ? room : count;
}

/* ---- the convolution, in cuDNN's words ---- */

/* Bytes, the largest power of two up to 16 that divides the three addresses. */
static int64_t alignment_of(const struct convolution *c) {
    const uintptr_t all = (uintptr_t)c->x | (uintptr_t)c->weight | (uintptr_t)c->y | 16;
    return (int64_t)(all & (~all + 1));
}

static cudnnBackendDescriptor_t make_tensor(struct builder *b, int id, int n, int c, int h, int w) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const int64_t dimensions[] = {n, c, h, w};
    const int64_t strides[] = {(int64_t)c * h * w, (int64_t)h * w, w, 1};
    cudnnBackendDescriptor_t tensor = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(b, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set_integers(b, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, dimensions);
    set_integers(b, tensor, CUDNN_ATTR_TENSOR_STRIDES, 4, strides);
    set_integer(b, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set_integer(b, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment_of(&b->plan->convolution));
    finalize(b, tensor, "a tensor");
    return tensor;
}

/* PyTorch's convolution is a cross-correlation. */
static cudnnBackendDescriptor_t make_convolution(struct builder *b) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t ones[] = {1, 1};
    const int64_t pads[] = {b->plan->convolution.pad, b->plan->convolution.pad};
    cudnnBackendDescriptor_t conv = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(b, conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_integer(b, conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
    set_integers(b, conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, pads);
    set_integers(b, conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, pads);
    set_integers(b, conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, ones);
    set_integers(b, conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2, ones);
    finalize(b, conv, "a convolution");
    return conv;
}

/* What the two kinds call their descriptor and its attributes. */
static const struct operation_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t conv, x, w, y, alpha, beta;
} OPERATIONS[] = {
    [CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [CONV_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
};

/* A graph of this one operation. */
static cudnnBackendDescriptor_t make_graph(struct builder *b) {
    const struct convolution *c = &b->plan->convolution;
    const struct operation_names *names = &OPERATIONS[c->kind];
    const int edge = 2 * c->pad - c->kernel + 1; /* how much larger y is than x */
    const float one = 1, zero = 0;               /* the result overwrites what was there */
    cudnnBackendDescriptor_t x = make_tensor(b, X, c->n, c->in, c->h, c->w);
    cudnnBackendDescriptor_t w = make_tensor(b, W, c->out, c->in, c->kernel, c->kernel);
    cudnnBackendDescriptor_t y = make_tensor(b, Y, c->n, c->out, c->h + edge, c->w + edge);
    cudnnBackendDescriptor_t conv = make_convolution(b), operation = make(b, names->type);
    set_descriptor(b, operation, names->x, x);
    set_descriptor(b, operation, names->w, w);
    set_descriptor(b, operation, names->y, y);
    set_descriptor(b, operation, names->conv, conv);
    set(b, operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(b, operation, names->beta, CUDNN_TYPE_FLOAT, 1, &zero);
    finalize(b, operation, "an operation");

    cudnnBackendDescriptor_t graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set_descriptor(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    if (b->planner->handle != NULL)
        set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->planner->handle);
    finalize(b, graph, "a graph");
    return graph;
}

/* ---- the choice ---- */

static bool is_welcome(struct builder *b, cudnnBackendDescriptor_t engine) {
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    const int64_t count = get(b, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                              CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, notes);
    for (int64_t i = 0; i < count; i++)
        switch (notes[i]) {
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE: /* for floats that is TF32 */
            if (!b->planner->tf32)
                return false;
            break;
        case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP:
            break;
        default: /* not the same bits each time, or not float32 in other ways */
            return false;
        }
    return !b->failed;
}

/* Makes the plan of one engine, if it is welcome and can be used. */
static bool try_engine(struct builder *b, cudnnBackendDescriptor_t config) {
    const struct planner *planner = b->planner;
    struct plan *plan = b->plan;
    cudnnBackendDescriptor_t engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR), execution;
    int64_t workspace = 0;
    get(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    if (!is_welcome(b, engine))
        return false;
    execution = make(b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set_descriptor(b, execution, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (planner->handle != NULL)
        set(b, execution, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &planner->handle);
    else
        set_descriptor(b, execution, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, planner->described);
    finalize(b, execution, "an engine that was offered");
    get(b, execution, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace);
    plan->execution = execution;
    plan->workspace = (size_t)workspace;
    return !b->failed && workspace <= PLAN_WORKSPACE;
}

/* Tries the engines that cuDNN's heuristics offer in one of their modes. What fails here is one way
 * of several: its error stays for the case that all do. */
static bool choose(struct builder *b, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode) {
    cudnnBackendDescriptor_t configs[PLAN_ENGINES];
    cudnnBackendDescriptor_t heuristics = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (b->planner->handle == NULL)
        set_descriptor(b, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->planner->described);
    finalize(b, heuristics, "the heuristics");
    int64_t offered =
        get(b, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, NULL);
    offered = offered < PLAN_ENGINES ? offered : PLAN_ENGINES;
    for (int64_t i = 0; i < offered; i++)
        configs[i] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    offered = get(b, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                  offered, configs);
    for (int64_t i = 0; i < offered; i++, b->plan->rank++) {
        if (try_engine(b, configs[i]))
            return true;
        b->failed = false;
    }
    b->failed = false;
    return false;
}

static const char *const KINDS[] = {
    [CONV_FORWARD] = "forward",
    [CONV_BACKWARD_DATA] = "data gradient",
};

struct plan *plan_new(const struct planner *planner, const struct convolution *convolution,
                      struct error *error) {
    struct plan *plan = memory_new(1, sizeof *plan);
    struct error refusal = {STATUS_DEVICE, "none was refused"};
    struct builder b = {.planner = planner, .plan = plan, .error = &refusal};
    plan->convolution = *convolution;
    cudnnBackendDescriptor_t graph = make_graph(&b);
    if (!b.failed &&
        (choose(&b, graph, CUDNN_HEUR_MODE_A) || choose(&b, graph, CUDNN_HEUR_MODE_FALLBACK)))
        return plan;
    error_set(error, STATUS_DEVICE,
              "cuDNN has no engine for a convolution (%s, %d > %d channels, kernel %d, batch %d) "
              "that computes in %s, gives the same bits each time and needs at most %d MB of "
              "workspace; another --batch or version of cuDNN may help (the last refusal: %.1000s)",
              KINDS[convolution->kind], convolution->in, convolution->out, convolution->kernel,
              convolution->n, planner->tf32 ? "float32 or TF32" : "float32", PLAN_WORKSPACE >> 20,
              refusal.text);
    plan_free(plan, planner);
    return NULL;
}

void plan_free(struct plan *plan, const struct planner *planner) {
    while (plan->made_count > 0)
        planner->cudnn->cudnnBackendDestroyDescriptor(plan->made[--plan->made_count]);
    free(plan);
}

bool plan_bind(struct plan *plan, const struct planner *planner, void *workspace,
               struct error *error) {
    static const int64_t ids[] = {X, W, Y};
    const struct convolution *c = &plan->convolution;
    const void *pointers[] = {c->x, c->weight, c->y};
    struct builder b = {.planner = planner, .plan = plan, .error = error};
    plan->pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set_integers(&b, plan->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 3, ids);
    set(&b, plan->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
    set(&b, plan->pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(&b, plan->pack, "a variant pack");
    return !b.failed;
}

bool plan_execute(const struct plan *plan, const struct planner *planner, struct error *error) {
    struct builder b = {.planner = planner, .error = error};
    check(&b, planner->cudnn->cudnnBackendExecute(planner->handle, plan->execution, plan->pack),
          "a convolution");
    return !b.failed;
}
