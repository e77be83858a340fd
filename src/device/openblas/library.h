/* libopenblas, loaded when the backend is opened: who computes with another needs none, and none of
 * the threads that it starts when it is loaded.
 *
 * A function is called through the table: openblas.cblas_sgemm(...). */
#pragma once

#include "base/error.h"

#include <cblas.h>

/* Exported, but in no header: a buffer to multiply in, out of those that it keeps. */
void *blas_memory_alloc(int position);
void blas_memory_free(void *buffer);

#define OPENBLAS_FUNCTIONS(F)                                                                      \
    F(cblas_sgemm)                                                                                 \
    F(openblas_get_config)                                                                         \
    F(openblas_get_corename)                                                                       \
    F(openblas_set_num_threads)                                                                    \
    F(blas_memory_alloc)                                                                           \
    F(blas_memory_free)

#define LIBRARY_MEMBER(name) __typeof__(&name) name;
extern struct openblas_library { OPENBLAS_FUNCTIONS(LIBRARY_MEMBER) } openblas;
#undef LIBRARY_MEMBER

/* The most threads that may call it at once. */
enum { OPENBLAS_THREADS = 64 };

/* Loads it, to be called by so many threads and to start none. Errors: it is not there or not what
 * it should be (STATUS_DEVICE), or has not enough memory (STATUS_FAILURE). It stays loaded until
 * the program ends. */
bool openblas_load(int threads, struct error *error);
