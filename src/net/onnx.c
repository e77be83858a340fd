#include "net/onnx.h"

#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

int onnx_ir_version(int opset) {
    static const int VERSIONS[] = {4, 4, 4, 5, 6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 10};
    return VERSIONS[opset - ONNX_OPSET_LEAST];
}

const char *onnx_preparation(const struct onnx_options *options) {
    static const char *const TEXTS[2][2] = {
        {"planes red, green, blue; a pixel p of 0 to 255 as (p - 127.5) / 127.5",
         "planes blue, green, red; a pixel p of 0 to 255 as (p - 127.5) / 127.5"},
        {"planes red, green, blue; pixels as they are, 0 to 255",
         "planes blue, green, red; pixels as they are, 0 to 255"}};
    return TEXTS[options->pixels][options->bgr];
}

/* ---- whether a file is a model ---- */

/* The bytes of a number have 7 bits each, the lowest first, and all but the last a mark. */
static bool read_number(FILE *file, uint64_t *number) {
    int byte = 0x80;
    *number = 0;
    for (int shift = 0; (byte & 0x80) != 0; shift += 7) {
        byte = shift < 64 ? getc(file) : EOF;
        if (byte == EOF)
            return false;
        *number |= (uint64_t)(byte & 0x7f) << shift;
    }
    return true;
}

/* The fields of a ModelProto must fill the file, which has a version, a graph and opsets. Not what
 * is in them: protobuf-c follows messages within messages as deep as a file has them, until the
 * stack ends. */
bool onnx_is_file(const char *path) {
    enum { VERSION = 1 << 3 | 0, GRAPH = 7 << 3 | 2, OPSET = 8 << 3 | 2 }; /* field, wire type */
    enum { MOST = 10000 }; /* fields: no model has near as many, and a large file is left soon */
    bool version = false, graph = false, opset = false, good = true;
    uint64_t tag, value;
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (file == NULL && errno == ENOMEM)
        memory_failed(BUFSIZ);
    if (file == NULL)
        return false;
    const off_t size = fstat(fileno(file), &info) == 0 ? info.st_size : 0;
    for (int fields = 0; good && ftello(file) < size; fields++) {
        good = fields < MOST && read_number(file, &tag) && read_number(file, &value) &&
               ((tag & 7) == 0 || (tag & 7) == 2);
        if (good && (tag & 7) == 2)
            good = value <= (uint64_t)(size - ftello(file)) &&
                   fseeko(file, (off_t)value, SEEK_CUR) == 0;
        version = version || tag == VERSION;
        graph = graph || tag == GRAPH;
        opset = opset || tag == OPSET;
    }
    fclose(file);
    return good && version && graph && opset;
}

#ifndef CIFAR_ONNX /* else onnx_model.c has them */

const char *onnx_library(void) {
    return "not built in";
}

bool onnx_save(const char *path, const struct network_state *state,
               const struct onnx_options *options, const struct metadata *about,
               struct error *error) {
    (void)state, (void)options, (void)about;
    return error_set_file(error, STATUS_FAILURE, path,
                          "this build writes no ONNX models; install libprotobuf-c-dev, "
                          "protobuf-c-compiler and libonnx-dev (Debian's names), and build the "
                          "program again with -DCIFAR_ONNX=ON");
}

#endif
