/* libopenblas, loaded when the backend is opened: who computes with another needs none, and none of
 * the threads that it starts when it is loaded.
 *
 * A function is called through the table: openblas.cblas_sgemm(...). */
#pragma once

#include "base/error.h"

#include <cblas.h>

#define OPENBLAS_FUNCTIONS(F)                                                                      \
    F(cblas_sgemm)                                                                                 \
    F(openblas_get_config)                                                                         \
    F(openblas_get_corename)                                                                       \
    F(openblas_set_num_threads)

#define LIBRARY_MEMBER(name) __typeof__(&name) name;
extern struct openblas_library { OPENBLAS_FUNCTIONS(LIBRARY_MEMBER) } openblas;
#undef LIBRARY_MEMBER

/* Loads it, to start no threads. Errors (STATUS_DEVICE): it is not there or not what it should be.
 * It stays loaded until the program ends. */
bool openblas_load(struct error *error);
