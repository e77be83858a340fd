/* The table of kernels for one instruction set, with Adam, which needs nothing but the compiler. */
#include "cpu.h"

static void adam(struct host *host, const struct adam *of, const struct pass *pass) {
    host_adam(host, of, pass);
}

const struct host_kernels CPU_SET(cpu_kernels) = {
    .load = cpu_load,
    .stage = CPU_SET(cpu_stage),
    .stage_backward = CPU_SET(cpu_stage_backward),
    .head = CPU_SET(cpu_head),
    .head_backward = CPU_SET(cpu_head_backward),
    .adam = adam,
};
