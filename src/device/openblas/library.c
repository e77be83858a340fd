#include "library.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char FILE_NAME[] = "libopenblas.so.0";

#define NAME(name) #name,
static const char *const NAMES[] = {OPENBLAS_FUNCTIONS(NAME)};
enum { FUNCTIONS = sizeof NAMES / sizeof *NAMES, NEEDED = 4 }; /* the first ones */

enum { BUFFER = 1 << 27 }; /* bytes, in the largest of OpenBLAS's builds */

struct openblas_library openblas;

/* Each thread that multiplies takes a buffer, and where OpenBLAS gets no memory for one, it asks
 * again for ever. So all are taken once here, each after as much could be had, and given back. */
static bool has_buffers(int threads) {
    void *taken[OPENBLAS_THREADS];
    int count = 0;
    if (openblas.blas_memory_alloc == NULL || openblas.blas_memory_free == NULL)
        return true; /* as a build that hides them may have it */
    for (; count < threads; count++) {
        void *trial =
            mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (trial == MAP_FAILED)
            break;
        munmap(trial, BUFFER);
        taken[count] = openblas.blas_memory_alloc(0);
    }
    for (int i = 0; i < count; i++)
        openblas.blas_memory_free(taken[i]);
    return count == threads;
}

bool openblas_load(int threads, struct error *error) {
    void *functions[FUNCTIONS];
    _Static_assert(sizeof functions == sizeof openblas, "as POSIX has it for dlsym");
    setenv("OPENBLAS_NUM_THREADS", "1", 1); /* the threads are ours */
    void *library = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(error, STATUS_DEVICE,
                         "OpenBLAS cannot be loaded (%s); install it (the package libopenblas0 of "
                         "Debian and Ubuntu), or name its folder in LD_LIBRARY_PATH",
                         dlerror());
    for (int i = 0; i < FUNCTIONS; i++)
        if ((functions[i] = dlsym(library, NAMES[i])) == NULL && i < NEEDED)
            return error_set(error, STATUS_DEVICE,
                             "%s has no function %s, so it is not what its name says; install "
                             "OpenBLAS",
                             FILE_NAME, NAMES[i]);
    memcpy(&openblas, functions, sizeof openblas);
    openblas.openblas_set_num_threads(1); /* should something else have loaded it before */
    return has_buffers(threads) ||
           error_set(error, STATUS_FAILURE,
                     "out of memory: OpenBLAS needs %d MB for each thread (%d); use fewer "
                     "--threads, or --device cpu, which needs less",
                     BUFFER / 1000000, threads);
}
