/* How cuDNN computes a convolution: the choice of an engine through its graph API.
 *
 * cuDNN offers engines best first; the first one is taken that computes in true float32 (TF32 only
 * if that is allowed), gives the same bits each time, and keeps within the workspace. Choosing
 * needs no GPU, only a description of one, so the tests do it on any machine. */
#pragma once

#include "libraries.h"

#include <stddef.h>
#include <stdint.h>

enum {
    PLAN_WORKSPACE =
        256 << 20,     /* bytes that an engine may ask for; smaller ones of before are kept */
    PLAN_ENGINES = 64, /* that are looked at in each of two lists */
    PLAN_DESCRIPTORS = 3 * 2 * PLAN_ENGINES + 16,
};

/* Two of a convolution's three products. For x [n][in][h][w], weight [out][in][kernel][kernel] and
 * y [n][out][..][..], as in PyTorch: y of x and weight; dx of dy and weight. */
struct convolution {
    enum { CONV_FORWARD, CONV_BACKWARD_DATA } kind;
    int n, in, out, kernel, pad, h, w;
    const float *x, *weight, *y; /* the device's memory; of the two, x or y is written */
};

/* For whom is planned. */
struct planner {
    const struct cudnn_library *cudnn;
    cudnnHandle_t handle;               /* of the device; or NULL, and then */
    cudnnBackendDescriptor_t described; /* what a device is like */
    bool tf32;
};

struct plan {
    struct convolution convolution;
    cudnnBackendDescriptor_t execution, pack;
    size_t workspace;                                /* bytes */
    int rank;                                        /* how many engines were offered before it */
    cudnnBackendDescriptor_t made[PLAN_DESCRIPTORS]; /* all that it consists of */
    int made_count;
};

/* Answers NULL with an error (STATUS_DEVICE) if cuDNN has no such engine. */
struct plan *plan_new(const struct planner *planner, const struct convolution *convolution,
                      struct error *error);
void plan_free(struct plan *plan, const struct planner *planner);

/* Gives it its workspace, before it is executed. Errors: cuDNN refuses. */
bool plan_bind(struct plan *plan, const struct planner *planner, void *workspace,
               struct error *error);

/* Queues it on the handle's stream. Errors: cuDNN refuses. */
bool plan_execute(const struct plan *plan, const struct planner *planner, struct error *error);
