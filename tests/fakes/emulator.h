/* Runs our kernels on the CPU. This file is included before kernels.cu, which is compiled as C; a
 * kernel's blocks run one after the other, the threads of a block in turn, each until it ends or
 * waits at a barrier. */
#pragma once

#include "device/cudnn/kernels.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what the kernels see ---- */

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

/* In a section of its own, to be poisoned before each block. */
#define __shared__ static __attribute__((section("shared_memory")))

struct emulator_index {
    unsigned x, y, z;
};

extern struct emulator_index emulator_thread, emulator_block, emulator_grid;

#define threadIdx emulator_thread
#define blockIdx  emulator_block
#define gridDim   emulator_grid
#define blockDim  ((struct emulator_index){KERNEL_BLOCK, 1, 1})

/* All threads of a block must be at the same barrier, or the program stops. */
void emulator_barrier(int line);
#define __syncthreads() emulator_barrier(__LINE__)
#define __threadfence() ((void)0)

static inline unsigned atomicAdd(unsigned *address, unsigned value) {
    const unsigned before = *address;
    *address += value;
    return before;
}

#define DECLARE(name, args) void name(struct args##_args);
KERNELS(DECLARE)
#undef DECLARE

/* ---- what the driver sees ---- */

struct emulated {
    const char *name;
    size_t args_size;
    void (*run)(const void *args); /* one thread */
};

/* In the order of KERNELS. */
extern const struct emulated emulator_kernels[KERNEL_COUNT];

/* Runs the kernel with a grid of x * y blocks, in the order that FAKE_GPU_ORDER says. */
void emulator_launch(const struct emulated *kernel, unsigned x, unsigned y, const void *args);
