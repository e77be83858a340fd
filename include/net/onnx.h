/* The network as an ONNX model (https://onnx.ai), for other programs to run. */
#pragma once

#include "base/error.h"
#include "base/metadata.h"
#include "net/network.h"

/* The versions of the operators that a model can be written in. */
enum { ONNX_OPSET_LEAST = 7, ONNX_OPSET_MOST = 21 };

enum { ONNX_CLASS = 31 }; /* bytes of the longest name of a class */

#define ONNX_INPUT  "modelInput"  /* float [batch_size, 3, 32, 32] */
#define ONNX_OUTPUT "modelOutput" /* float [batch_size, class_count] */

struct onnx_options {
    int opset;
    const char *const *classes; /* their names, by label: UTF-8 without control characters */
    int class_count;            /* the outputs that there are; more of the network's are left out */
    bool keep_batchnorm;        /* else it is folded into the convolutions, in double */
    bool softmax;               /* probabilities instead of logits */
    bool pixels;                /* takes 0 to 255 instead of -1 to 1 */
    bool bgr;                   /* takes blue, green, red instead of red, green, blue */
};

/* The version of the format that goes with an opset: the official one, but at least 4, the first in
 * which weights need not be inputs, too. */
int onnx_ir_version(int opset);

/* What writes models, with its version; or that this build has none. */
const char *onnx_library(void);

/* How pictures must be prepared, in words. */
const char *onnx_preparation(const struct onnx_options *options);

/* Writes the model, all or nothing, and into its metadata what a program needs to prepare pictures
 * (Image.BitmapPixelFormat and others of ONNX's MetadataProps.md), the classes (names, as
 * Ultralytics writes them: {0: 'airplane', ...}) and `about`. The same input gives the same bytes.
 * Errors: as file_replace; STATUS_FAILURE: this build has no protobuf-c; STATUS_CHECKPOINT: a
 * number would not be finite. */
bool onnx_save(const char *path, const struct network_state *state,
               const struct onnx_options *options, const struct metadata *about,
               struct error *error);

/* Whether a file is an ONNX model, anybody's. Known in every build. */
bool onnx_is_file(const char *path);
