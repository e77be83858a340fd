/* Steps: the first one is run as it is, which loads and chooses all that a recording may not; then
 * a step is recorded into a CUDA graph, once, and replayed. Where steps are short, a second graph
 * has many of them, since starting a graph takes the time of several kernels.
 *
 * From the environment: with CIFAR_CUDA_GRAPH=0 every step is run as it is; CIFAR_CUDA_DOT=FILE has
 * the first recording written as a Graphviz file. */
#include "gpu.h"

#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A graph holds at most so many steps, of at most so many images together. */
enum { MANY_STEPS = 32, MANY_IMAGES = 1024 };

static void run_body(struct gpu *d, struct recording *r, const struct program *program,
                     bool capturing) {
    d->running = r;
    d->capturing = capturing;
    program->body(program->context);
    settle_gradients(d);
    d->running = NULL;
    d->capturing = false;
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
static CUgraphExec record(struct gpu *d, struct recording *r, const struct program *program,
                          int steps) {
    const char *file = getenv("CIFAR_CUDA_DOT");
    CUgraph graph = NULL;
    CUgraphExec executable = NULL;
    if (!CUDA(d, cuStreamBeginCapture, d->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        return NULL;
    for (int i = 0; i < steps; i++) {
        r->images = r->steps = 0;
        run_body(d, r, program, true);
    }
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

static void replay(struct gpu *d, struct recording *r, CUgraphExec graph, int steps) {
    CUDA(d, cuGraphLaunch, graph, d->stream);
    if (r->loader != NULL) {
        r->loader->next += steps * r->images;
        r->loader->steps += steps * r->steps;
    }
}

void cudnn_repeat(struct device *device, struct program *program, int64_t times) {
    struct gpu *d = gpu_of(device);
    struct recording *r = program->recording;
    if (times <= 0 || d->failed)
        return;
    if (r == NULL) {
        r = program->recording = memory_new(1, sizeof *r);
        r->next = d->recordings;
        d->recordings = r;
    }
    for (; times > 0 && (!r->prepared || !d->use_graphs); times--) {
        run_body(d, r, program, false);
        r->prepared = true;
    }
    if (times > 0 && r->one == NULL) {
        r->one = record(d, r, program, 1);
        const int64_t fit = r->images > 0 ? MANY_IMAGES / r->images : MANY_STEPS;
        r->many_steps = (int)(fit < MANY_STEPS ? fit : MANY_STEPS);
    }
    require(r->loader == NULL || r->loader->next + times * r->images <= r->loader->length);
    if (r->many_steps > 1 && times >= r->many_steps && r->many == NULL)
        r->many = record(d, r, program, r->many_steps);
    for (; r->many != NULL && times >= r->many_steps && !d->failed; times -= r->many_steps)
        replay(d, r, r->many, r->many_steps);
    for (; times > 0 && !d->failed; times--)
        replay(d, r, r->one, 1);
    if (r->loader != NULL)
        cudnn_publish(d, r->loader);
}

void cudnn_recordings_free(struct gpu *d) {
    for (struct recording *r = d->recordings, *next; r != NULL; r = next) {
        next = r->next;
        if (r->one != NULL)
            d->cuda.cuGraphExecDestroy(r->one);
        if (r->many != NULL)
            d->cuda.cuGraphExecDestroy(r->many);
        free(r);
    }
}
