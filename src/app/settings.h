/* What the user asked for: the commands, their options, and the reading of a command line. One
 * table holds every option with its type, range, default and help; parsing, checking and --help all
 * come from it. */
#pragma once

#include "base/error.h"
#include "base/metadata.h"
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

struct settings {
    enum command command;
    const char *program; /* what the user called: "cifar-train" */
    bool help, version;
    uint64_t given;   /* bit i: row i of the table of options was on the command line */
    const char *data; /* NULL: where the data usually is */
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

/* Writes the settings that a run keeps as texts, under the options' names with _ for -: those that
 * decide its result, or (`all`) also those that say how it reports and where its files are, as they
 * are called in the folder of settings->last. A recipe's settings, but for the four that there have
 * always been (epochs, batch, lr, weight_decay), are called recipe.NAME, and of the tutorial's
 * recipe those are not written that nobody has changed. Errors: STATUS_USAGE: a file's name that
 * the metadata cannot hold. */
bool settings_record(const struct settings *settings, bool all, struct metadata *about,
                     struct error *error);

/* Makes the settings those of the run that the metadata of the training state settings->state tells
 * of, or, in another command than train, takes from there what files that has: its texts are
 * borrowed, and files' names made paths. What was given on the command line must be the same, or
 * else the error (STATUS_USAGE) names both values, but --epochs may be larger, --device auto is any
 * device, and how often to save and where files are may be anything. STATUS_CHECKPOINT: the file
 * does not tell, or nothing possible, or names a file to be written that lies neither in its own
 * folder nor below. */
bool settings_adopt(struct settings *settings, struct metadata *about, struct error *error);

/* One of a recipe's settings, as a text. */
struct recipe_setting {
    char name[40]; /* the option's, with _ for - */
    char text[64];
    bool is_word; /* else a number, or true or false */
    bool is_kept; /* under recipe.NAME: see settings_record() */
};

/* The settings->recipe's setting number i; false: there are no more. */
bool settings_recipe(const struct settings *settings, int i, struct recipe_setting *setting);

/* Prints the help of the command, or of the whole program if settings->command is 0. */
void settings_help(const struct settings *settings);
