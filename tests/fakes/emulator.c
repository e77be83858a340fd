/* Threads are fibers: a fiber runs one thread of the block after the other until one of them waits
 * at a barrier, where the fiber must stay and another goes on. So threads that meet no barrier,
 * which are most, cost a function call each.
 *
 * A fiber is started by setcontext() and then switched to by jumps, which are twenty times faster
 * than swapcontext() because they leave the signal mask alone. The C library's check that jumps
 * only go up the stack does not know of other stacks. */
#undef _FORTIFY_SOURCE

#include "emulator.h"

#include "fake.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#if FAKE_SANITIZED
#    include <sanitizer/common_interface_defs.h>
#else
#    define __sanitizer_start_switch_fiber(save, stack, size)  ((void)(stack), (void)(size))
#    define __sanitizer_finish_switch_fiber(save, stack, size) ((void)0)
#endif

/* Of each fiber, in bytes: an odd number of cache lines, or the tops of all stacks, which is where
 * the work is, would compete for the same few lines of the cache. */
enum { STACK = 2049 * 64 };

/* GCC's own jumps cost half of the library's, and under the address sanitizer a tenth. */
#if defined __GNUC__ && !defined __clang__
typedef void *registers[5];
#    define SAVE(registers) __builtin_setjmp(registers)
#    define JUMP(registers) __builtin_longjmp(registers, 1)
#else
typedef jmp_buf registers;
#    define SAVE(registers) _setjmp(registers)
#    define JUMP(registers) _longjmp(registers, 1)
#endif

struct fiber {
    registers registers;
    const void *stack;
    size_t stack_size;
    void *fake_stack; /* the address sanitizer's */
    bool started;
};

struct emulator_index emulator_thread, emulator_block, emulator_grid;

static struct fiber fibers[KERNEL_BLOCK];
static unsigned char *stacks;                      /* of all of them */
static struct fiber scheduler = {.started = true}; /* who calls the kernel */
static struct fiber *current = &scheduler, *previous;

/* The block that runs. */
static const struct emulated *kernel;
static const void *kernel_args;
static unsigned order[KERNEL_BLOCK]; /* of its threads */
static unsigned started;             /* threads, in that order */
static unsigned used;                /* fibers */
static unsigned waiting;             /* threads, all at the barrier of this line */
static int barrier_line;
static struct fiber *parked[KERNEL_BLOCK]; /* where each of those threads is */
static struct fiber *ready[KERNEL_BLOCK];  /* who may go on behind the last barrier */
static unsigned ready_first, ready_count;

#define RUN(name, type)                                                                            \
    static void run_##name(const void *args) {                                                     \
        name(*(const struct type##_args *)args);                                                   \
    }
KERNELS(RUN)
#define ENTRY(name, type) {#name, sizeof(struct type##_args), run_##name},
const struct emulated emulator_kernels[KERNEL_COUNT] = {KERNELS(ENTRY)};

/* A permutation of 0 ... count - 1. */
static void arrange(unsigned *numbers, unsigned count) {
    static uint32_t seed = 12345;
    const char *wanted = getenv("FAKE_GPU_ORDER");
    const bool reverse = wanted != NULL && strcmp(wanted, "reverse") == 0;
    for (unsigned i = 0; i < count; i++)
        numbers[i] = reverse ? count - 1 - i : i;
    if (wanted == NULL || strcmp(wanted, "random") != 0)
        return;
    for (unsigned i = count - 1; i > 0; i--) {
        seed = seed * 1664525 + 1013904223;
        const unsigned j = (unsigned)((uint64_t)seed * (i + 1) >> 32), number = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = number;
    }
}

/* ---- fibers ---- */

/* Who runs when the current fiber cannot go on. */
static struct fiber *next_fiber(void) {
    if (started < KERNEL_BLOCK)
        return &fibers[used++];
    return ready_first < ready_count ? ready[ready_first++] : &scheduler;
}

static void arrive(void) {
    __sanitizer_finish_switch_fiber(current->fake_stack, &previous->stack, &previous->stack_size);
}

static _Noreturn void start(struct fiber *fiber);

/* What the sanitizer would do before a jump is of no use here. */
__attribute__((no_sanitize("address"), noinline)) static _Noreturn void
leave_for(struct fiber *fiber) {
    __sanitizer_start_switch_fiber(&previous->fake_stack, fiber->stack, fiber->stack_size);
    if (fiber->started)
        JUMP(fiber->registers);
    start(fiber);
}

/* Until somebody switches back. */
__attribute__((no_sanitize("address"))) static void switch_to(struct fiber *fiber) {
    previous = current;
    current = fiber;
    if (SAVE(previous->registers) == 0)
        leave_for(fiber);
    arrive();
}

static void run_threads(void) {
    arrive();
    for (;;) {
        while (started < KERNEL_BLOCK) {
            emulator_thread.x = order[started++];
            kernel->run(kernel_args);
        }
        switch_to(next_fiber());
    }
}

/* The first switch to a fiber. */
static void start(struct fiber *fiber) {
    static ucontext_t context; /* not on a stack frame that is never left */
    fiber->started = true;
    getcontext(&context);
    context.uc_stack.ss_sp = (void *)(uintptr_t)fiber->stack;
    context.uc_stack.ss_size = fiber->stack_size;
    context.uc_link = NULL;
    makecontext(&context, run_threads, 0);
    setcontext(&context);
    abort();
}

/* ---- blocks ---- */

void emulator_barrier(int line) {
    const unsigned thread = emulator_thread.x;
    if (waiting > 0 && line != barrier_line)
        fake_stop("kernel %s: threads of block (%u, %u) wait at the barriers of lines %d and %d",
                  kernel->name, emulator_block.x, emulator_block.y, barrier_line, line);
    barrier_line = line;
    parked[thread] = current;
    if (++waiting == KERNEL_BLOCK) {
        arrange(order, KERNEL_BLOCK);
        for (int i = 0; i < KERNEL_BLOCK; i++)
            ready[i] = parked[order[i]];
        ready_first = waiting = 0;
        ready_count = KERNEL_BLOCK;
    }
    switch_to(next_fiber());
    emulator_thread.x = thread;
}

/* NaN as float and as double. The section has the sanitizer's poisoned gaps, so it has no say. It
 * is aligned to 16 bytes and made of whole words but for its end. */
extern unsigned char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

__attribute__((no_sanitize("address"))) static void poison_shared_memory(void) {
    volatile unsigned char *byte = __start_shared_memory;
    for (; __stop_shared_memory - byte >= (ptrdiff_t)sizeof(uint64_t); byte += sizeof(uint64_t))
        *(volatile uint64_t *)(volatile void *)byte = UINT64_MAX;
    for (; byte < __stop_shared_memory; byte++)
        *byte = 0xFF;
}

static void run_block(void) {
    poison_shared_memory();
    arrange(order, KERNEL_BLOCK);
    started = used = ready_count = ready_first = 0;
    switch_to(next_fiber());
    if (waiting > 0)
        fake_stop("kernel %s: only %u of the %d threads of block (%u, %u) came to the barrier of "
                  "line %d",
                  kernel->name, waiting, KERNEL_BLOCK, emulator_block.x, emulator_block.y,
                  barrier_line);
}

static void make_stacks(void) {
    stacks = fake_new((size_t)KERNEL_BLOCK * STACK);
    for (int i = 0; i < KERNEL_BLOCK; i++) {
        fibers[i].stack = stacks + (size_t)i * STACK;
        fibers[i].stack_size = STACK;
    }
}

void emulator_launch(const struct emulated *launched, unsigned x, unsigned y, const void *args) {
    if (stacks == NULL)
        make_stacks();
    unsigned *blocks = fake_new((size_t)x * y * sizeof *blocks);
    arrange(blocks, x * y);
    kernel = launched;
    kernel_args = args;
    emulator_grid = (struct emulator_index){x, y, 1};
    for (size_t i = 0; i < (size_t)x * y; i++) {
        emulator_block = (struct emulator_index){blocks[i] % x, blocks[i] / x, 0};
        run_block();
    }
    free(blocks);
}
