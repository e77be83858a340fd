/* The safetensors file format (https://github.com/huggingface/safetensors#format):
 *
 *     8 bytes   the header's length, little-endian
 *     header    JSON: {"__metadata__": {"key": "text", ...},
 *                      "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *     data      the tensors' bytes, little-endian and row-major; offsets count from its beginning
 *
 * Tensors lie side by side: they may not overlap and leave no byte over. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SAFETENSORS_NAME = 64,         /* room for a tensor's name and its final zero */
    SAFETENSORS_RANK = 8,          /* most dimensions */
    SAFETENSORS_HEADER = 1 << 20,  /* bytes of the longest header that is read: JSON needs up to
                                    * 80 times as much memory when parsed: 5 GB for 64 MiB */
    SAFETENSORS_LARGEST = 1 << 26, /* bytes of the largest file that is read: 64 MiB */
};

struct safetensors_tensor {
    char name[SAFETENSORS_NAME];
    char dtype[8]; /* "F32", "I64", ... */
    int rank;
    int64_t shape[SAFETENSORS_RANK];
    const void *data; /* may be unaligned in a file that was read */
    size_t size;      /* bytes */
    size_t at;        /* where it begins in the file that was read */
};

/* Text about a file: a few keys and values. */
enum { METADATA_MOST = 24 };
struct metadata {
    int count;
    struct {
        char key[32], value[224];
    } entry[METADATA_MOST];
};

/* Adds a key with a formatted value, or changes it. */
void metadata_set(struct metadata *metadata, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The value of a key, or NULL. */
const char *metadata_get(const struct metadata *metadata, const char *key);

/* Writes a file, all or nothing (file_replace). Errors as file_replace. */
bool safetensors_save(const char *path, const struct safetensors_tensor *tensors, int count,
                      const struct metadata *metadata, struct error *error);

/* A file that was read. */
struct safetensors {
    struct safetensors_tensor *tensors; /* [count], in the order of their data */
    int count;
    struct metadata metadata; /* keys or values that are too long, or too many, are left out */
    uint8_t *bytes;           /* the whole file; tensors point into it */
};

/* Reads a file and checks all that the format demands: that every length and offset lies in the
 * file, every tensor has a known dtype and as many bytes as its shape needs, and the tensors fill
 * the data without gap or overlap. Errors (STATUS_CHECKPOINT) name the byte, what was found and
 * what was expected; nothing is left to free then. */
bool safetensors_load(struct safetensors *file, const char *path, struct error *error);

void safetensors_free(struct safetensors *file);
