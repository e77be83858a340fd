#include "library.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static const char FILE_NAME[] = "libopenblas.so.0";

#define NAME(name) #name,
static const char *const NAMES[] = {OPENBLAS_FUNCTIONS(NAME)};
enum { FUNCTIONS = sizeof NAMES / sizeof *NAMES };

struct openblas_library openblas;

bool openblas_load(struct error *error) {
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
        if ((functions[i] = dlsym(library, NAMES[i])) == NULL)
            return error_set(error, STATUS_DEVICE,
                             "%s has no function %s, so it is not what its name says; install "
                             "OpenBLAS",
                             FILE_NAME, NAMES[i]);
    memcpy(&openblas, functions, sizeof openblas);
    openblas.openblas_set_num_threads(1); /* should something else have loaded it before */
    return true;
}
