/* A pass over a data set as the kernels see it; read as C and as CUDA C++. All of it is in the
 * device's memory, so that a recorded step, which is the same each time, reads the next batch. */
#pragma once

#include "device/device.h"

/* Where the pass stands. */
struct cursor {
    int64_t next;         /* images loaded so far */
    int64_t steps;        /* that have loaded theirs so far */
    int64_t steps_before; /* the pass */
    unsigned blocks;      /* that have read `next`; 0 between kernels */
};

struct pass_data {
    const uint8_t *records; /* [][1 + c*h*w] of the data set: label and pixels */
    int classes, c, h, w;
    struct cursor *cursor;
    struct view *views; /* [images] */
    double *schedule;   /* [steps] */
    float *losses;      /* [steps] */
    float *logits;      /* [images][classes] */
};
