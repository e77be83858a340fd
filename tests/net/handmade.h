/* Safetensors files made by hand, from texts and numbers. */
#pragma once

#include "net/safetensors.h"

#include "scratch.h"

/* Writes the file "f": what it says is its header's length, its header, in which ' stands for ",
 * and data, zeros if NULL. Answers the byte where the data begins. */
static inline size_t make_safetensors(uint64_t length, const char *header, const char *data,
                                      size_t size) {
    const size_t begin = sizeof length + strlen(header);
    char *bytes = calloc(begin + size, 1);
    assert_non_null(bytes);
    memcpy(bytes, &length, sizeof length);
    for (size_t i = 0; header[i] != '\0'; i++)
        bytes[sizeof length + i] = header[i] == '\'' ? '"' : header[i];
    if (data != NULL)
        memcpy(bytes + begin, data, size);
    make_file("f", bytes, begin + size);
    free(bytes);
    return begin;
}

/* The same, of zeros, with the header's true length. */
static inline size_t make_header(const char *header, size_t size) {
    return make_safetensors(strlen(header), header, NULL, size);
}

/* An entry of a header. */
#define ENTRY(name, dtype, shape, offsets)                                                         \
    "'" name "':{'dtype':" dtype ",'shape':" shape ",'data_offsets':" offsets "}"
