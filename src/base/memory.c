#include "base/memory.h"

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

void *memory_new(size_t count, size_t size) {
    require(size > 0 && count <= (SIZE_MAX - ALIGNMENT) / size);
    size_t bytes = (count * size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, bytes);
    if (memory == NULL) {
        fprintf(stderr, "cifar: out of memory: %.1f MB more are needed; try a smaller --batch\n",
                (double)bytes / 1e6);
        exit(STATUS_FAILURE);
    }
    return memset(memory, 0, bytes);
}
