/* What the user asked for: the commands, the values of their options (options.h), and the reading
 * of a command line. */
#pragma once

#include "base/error.h"
#include "train/recipe.h"

#include <stddef.h>
#include <stdint.h>

/* The commands, as bits, so that an option can name those that have it. */
enum command {
    COMMAND_TRAIN = 1,
    COMMAND_TEST = 2,
    COMMAND_CLASSES = 4,
    COMMAND_PREDICT = 8,
    COMMAND_EXPORT = 16,
    COMMAND_IMPORT = 32,
    COMMAND_SYNTH = 64,
    COMMAND_VERIFY = 128,
};

enum { PRECISION_FLOAT32, PRECISION_TF32 };

enum { OPTION_MOST = 80 }; /* rows of the table of options */

struct settings {
    enum command command;
    const char *program; /* what the user called: "cifar-train" */
    bool help, version;
    bool given[OPTION_MOST]; /* whether row i of the table of options was on the command line */
    const char *data;        /* NULL: where the data usually is */
    const char *device, *model, *last;
    const char *state;      /* of the run to go on with, to judge or to verify; NULL: a new one */
    const char *init;       /* the checkpoint that a new run begins with; NULL: none */
    const char *log, *grid; /* NULL: none */
    const char *onnx;
    int precision, crop; /* PRECISION_..., enum picture_crop */
    int recipe_number;   /* in `recipes` */
    struct recipe recipe;
    char *const *words; /* that are no options */
    int word_count;
    int64_t batch; /* images that are judged at once */
    int64_t seed, log_every;
    int64_t save_every;              /* 0: after each epoch only */
    int64_t keep;                    /* training states, 1 or more */
    int64_t threads, limit;          /* 0: all */
    int64_t validation;              /* images; 0: none */
    int64_t synth_train, synth_test; /* images to draw */
    int64_t top, opset;
    double test_share;  /* of the pictures of each class */
    bool model_adopted; /* its name is the one that the state gives it */
    bool quiet, json, csv, confusion, overwrite, stop_if_unsaved;
    bool keep_batchnorm, softmax, pixels, bgr;
};

/* Reads the command from the program's name (cifar-train) or else its first word (cifar train),
 * then the options. All values are checked. Errors: STATUS_USAGE. settings->help and ->version are
 * set without a look at what stands behind them. Texts are borrowed from argv. */
bool settings_parse(struct settings *settings, int argc, char **argv, struct error *error);

/* Prints the help of the command, or of the whole program if settings->command is 0. */
void settings_help(const struct settings *settings);
