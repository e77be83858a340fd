/* Steps: the first time one is run as it is, which loads all that a recording may not; then it is
 * recorded into a CUDA graph, once, and replayed. Where steps are short, a second graph has many of
 * them, since starting a graph takes the time of several kernels.
 *
 * From the environment: with CIFAR_CUDA_GRAPH=0 every step is run as it is; CIFAR_CUDA_DOT=FILE has
 * the first recording written as a Graphviz file. */
#include "gpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A graph holds at most so many steps, of at most so many images together. */
enum { MANY_STEPS = 32, MANY_IMAGES = 1024 };

static void destroy_graphs(struct gpu *d, void *thing) {
    const struct step *step = thing;
    if (step->one != NULL)
        d->cuda.cuGraphExecDestroy(step->one);
    if (step->many != NULL)
        d->cuda.cuGraphExecDestroy(step->many);
}

void gpu_step_init(struct gpu *d, struct step *step, const struct step_description *description,
                   void (*queue)(struct gpu *d, struct step *step)) {
    step->queue = queue;
    step->pass = description->pass;
    for (int i = 0; i < description->count; i++) {
        const struct op *op = &description->ops[i];
        step->images = op->kind == OP_LOAD ? description->n : step->images;
        step->has_loss = op->kind == OP_HEAD || step->has_loss;
        step->needs_schedule = op->kind == OP_ADAM || op->kind == OP_SGD || op->kind == OP_MUON ||
                               step->needs_schedule;
    }
    step->many_steps =
        step->images * MANY_STEPS > MANY_IMAGES ? MANY_IMAGES / step->images : MANY_STEPS;
    gpu_own(d, destroy_graphs, step);
}

/* The driver would not say why it cannot write. */
static void draw(struct gpu *d, CUgraph graph, const char *name) {
    struct error error;
    FILE *file = fopen(name, "w");
    d->drawn = true;
    if (file != NULL && fclose(file) == 0) {
        CUDA(d, cuGraphDebugDotPrint, graph, name, 0);
        return;
    }
    error_set(&error, STATUS_FAILURE, "CIFAR_CUDA_DOT=%s: cannot be written: %s", name,
              strerror(errno));
    gpu_failed(d, &error);
}

/* A graph of `steps` steps. */
static CUgraphExec record(struct gpu *d, struct step *step, int steps) {
    const char *file = getenv("CIFAR_CUDA_DOT");
    CUgraph graph = NULL;
    CUgraphExec executable = NULL;
    if (!CUDA(d, cuStreamBeginCapture, d->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        return NULL;
    d->recording = true;
    for (int i = 0; i < steps; i++)
        step->queue(d, step);
    d->recording = false;
    /* even after a failure, so that the stream can be used to close the device */
    const CUresult result = d->cuda.cuStreamEndCapture(d->stream, &graph);
    if (!d->failed && cuda_went_well(d, result, "cuStreamEndCapture")) {
        if (file != NULL && !d->drawn)
            draw(d, graph, file);
        CUDA(d, cuGraphInstantiateWithFlags, &executable, graph, 0);
        CUDA(d, cuGraphUpload, executable, d->stream);
    }
    if (graph != NULL)
        d->cuda.cuGraphDestroy(graph);
    return executable;
}

void gpu_step_run(struct device *device, struct step *step, int64_t times) {
    struct gpu *d = gpu_of(device);
    struct pass *pass = step->pass;
    if (times <= 0 || d->failed)
        return;
    if (step->images > 0) {
        pass->queued.images += times * step->images;
        pass->queued.steps += times;
        require(pass->queued.images <= pass->script.images &&
                pass->queued.steps <= pass->script.steps);
        require(!step->needs_schedule || pass->has_schedule);
    }
    for (; times > 0 && (!step->prepared || !d->use_graphs); times--) {
        step->queue(d, step);
        step->prepared = true;
    }
    if (times > 0 && step->one == NULL)
        step->one = record(d, step, 1);
    if (step->many_steps > 1 && times >= step->many_steps && step->many == NULL)
        step->many = record(d, step, step->many_steps);
    for (; times >= step->many_steps && step->many != NULL; times -= step->many_steps)
        CUDA(d, cuGraphLaunch, step->many, d->stream);
    for (; times > 0; times--)
        CUDA(d, cuGraphLaunch, step->one, d->stream);
    if (step->has_loss)
        gpu_publish(d, pass);
}
