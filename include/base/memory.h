/* Memory that is there or ends the program, with a message and status 1: a trainer that cannot get
 * its buffers has nothing useful left to do, so no caller checks for NULL. */
#pragma once

#include <stddef.h>

/* `count` elements of `size` bytes, zeroed, aligned to 64 bytes (a cache line and the widest
 * vector). Free with free(); a count of 0 gives a pointer that may be freed. */
void *memory_new(size_t count, size_t size) __attribute__((returns_nonnull, malloc));

/* As malloc() and realloc(), of a size above 0. */
void *memory_take(size_t size) __attribute__((returns_nonnull, malloc));
void *memory_resize(void *memory, size_t size) __attribute__((returns_nonnull));

/* The end, where somebody else has found that there is no memory. */
_Noreturn void memory_failed(size_t size);
