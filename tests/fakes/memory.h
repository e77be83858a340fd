/* The memory of the fake device. Each allocation has pages of its own and a guard before and behind
 * it. Nobody can touch them but work that runs on the device: it is let in where it faults, so a
 * debugger should pass SIGSEGV on. Addresses are never used twice. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Bytes that are all NaN as floats, aligned to 256; NULL if FAKE_GPU_MEMORY is used up. */
void *memory_allocate(size_t size);

/* False if there is no such allocation. */
bool memory_free(void *address);

/* Around works that run one after the other: closes what they have touched. */
void memory_open(void);
void memory_close(void);

/* Around each of them: its name, for messages; whether it kept to the allocations, or else the
 * program stops. */
void memory_begin(const char *what);
void memory_end(void);

/* Stops the program, with a list, if anything is still allocated. */
void memory_check_leaks(void);
