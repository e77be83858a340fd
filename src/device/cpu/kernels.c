/* The table of kernels for one instruction set, with the optimisers, which need nothing but the
 * compiler. */
#include "../optimizers.h"
#include "cpu.h"

const struct host_kernels CPU_SET(cpu_kernels) = {
    HOST_OPTIMIZERS,
    .load = cpu_load,
    .stage = CPU_SET(cpu_stage),
    .stage_backward = CPU_SET(cpu_stage_backward),
    .head = CPU_SET(cpu_head),
    .head_backward = CPU_SET(cpu_head_backward),
};
