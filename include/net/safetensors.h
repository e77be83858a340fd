/* The safetensors file format (https://github.com/huggingface/safetensors#format):
 *
 *     8 bytes   the header's length, little-endian
 *     header    JSON: {"__metadata__": {"key": "text", ...},
 *                      "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *     data      the tensors' bytes, little-endian and row-major; offsets count from its beginning
 *
 * Tensors lie side by side: they may not overlap and leave no byte over.
 *
 * Files written here carry two checksums of the whole file in their metadata, as hexadecimal
 * digits: "xxh3_128", XXH3 of 128 bits with '0' in the place of each digit of both, and "crc32",
 * zlib's crc32 with '0' in the place of its own, which is all that older files have. */
#pragma once

#include "base/error.h"
#include "base/metadata.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SAFETENSORS_NAME = 64,         /* room for a tensor's name and its final zero */
    SAFETENSORS_RANK = 8,          /* most dimensions */
    SAFETENSORS_HEADER = 1 << 17,  /* bytes of the longest header that is read: JSON needs up to
                                    * 100 times as much memory when parsed; ours have 12,000 */
    SAFETENSORS_LARGEST = 1 << 26, /* bytes of the largest file that is read: 64 MiB */
};

struct safetensors_tensor {
    char name[SAFETENSORS_NAME];
    char dtype[8]; /* "F32", "I64", ... */
    int rank;
    int64_t shape[SAFETENSORS_RANK];
    void *data;  /* may be unaligned in a file that was read */
    size_t size; /* bytes */
    size_t at;   /* where it begins in the file that was read */
};

/* Bytes of an element; 0: the format has no such dtype. */
size_t safetensors_size(const char *dtype);

/* Writes a file, all or nothing (file_replace), tensors with larger elements first, so that all are
 * aligned. Metadata that is no UTF-8 is left out, the checksums added. Errors as file_replace. */
bool safetensors_save(const char *path, const struct safetensors_tensor *tensors, int count,
                      const struct metadata *metadata, struct error *error);

/* A file that was read. */
struct safetensors {
    const char *path;                   /* borrowed, for messages */
    struct safetensors_tensor *tensors; /* [count], in the order of their data */
    int count;
    struct metadata metadata; /* without checksums; what is too long, or too much, is left out */
    uint8_t *bytes;           /* the whole file; tensors point into it */
};

/* Reads a file and checks all that the format demands: that every length and offset lies in the
 * file, every tensor has a known dtype and as many bytes as its shape needs, and the tensors fill
 * the data without gap or overlap. Checksums must be right; only a file that names no "program" of
 * ours in its metadata, PyTorch's, say, may have none. Errors (STATUS_CHECKPOINT) name the byte,
 * what was found and what was expected; nothing is left to free then. */
bool safetensors_load(struct safetensors *file, const char *path, struct error *error);

/* The tensor of that name, or NULL. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* Copies a tensor out of a file: wanted->data receives the one of that name, which must have that
 * dtype and shape; wanted->at becomes its place in the file. Errors (STATUS_CHECKPOINT) name the
 * tensor, what was found and what was expected; nothing is copied then. */
bool safetensors_take(const struct safetensors *file, struct safetensors_tensor *wanted,
                      struct error *error);

/* The error of a file: (file, error, format, ...). */
#define safetensors_refuse(file, error, ...)                                                       \
    error_set_file(error, STATUS_CHECKPOINT, (file)->path, __VA_ARGS__)

void safetensors_free(struct safetensors *file);
