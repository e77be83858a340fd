#include "base/memory.h"

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

void *memory_new(size_t count, size_t size) {
    require(size > 0 && count <= (SIZE_MAX - ALIGNMENT) / size);
    size_t bytes = (count * size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, bytes);
    if (memory == NULL)
        memory_failed(bytes);
    return memset(memory, 0, bytes);
}

void *memory_take(size_t size) {
    return memory_resize(NULL, size);
}

void *memory_resize(void *memory, size_t size) {
    void *resized = realloc(memory, size);
    if (resized == NULL)
        memory_failed(size);
    return resized;
}

void memory_failed(size_t size) {
    fflush(stdout);
    fprintf(stderr,
            "cifar: out of memory: %zu more bytes are needed; free some, or have it use less "
            "(--batch, --threads)\n",
            size);
    _exit(STATUS_FAILURE); /* what libraries do at exit may need memory, too */
}
