#include "app/options.h"

#include "data/cifar10.h"
#include "device/device.h"
#include "net/onnx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN   COMMAND_TRAIN
#define TEST    COMMAND_TEST
#define CLASSES COMMAND_CLASSES
#define PREDICT COMMAND_PREDICT
#define EXPORT  COMMAND_EXPORT
#define IMPORT  COMMAND_IMPORT
#define SYNTH   COMMAND_SYNTH
#define VERIFY  COMMAND_VERIFY
#define JUDGE   (TEST | CLASSES)
#define RUN     (TRAIN | JUDGE)
#define COMPUTE (RUN | PREDICT)
#define EVERY   (COMPUTE | EXPORT | IMPORT | SYNTH | VERIFY)

const char option_true[] = "true", option_false[] = "false";

const struct option_row options[] = {
    {RUN | FREE, "data", "DIR", TEXT, AT(data), 1, 0, NULL, "$CIFAR10_DIR, else data",
     "folder of the batches, or the one that holds cifar-10-batches-bin"},
    {TRAIN | ADDED, "recipe", "tutorial|best", CHOICE, AT(recipe_number), 0, 0, "tutorial", NULL,
     "what the settings below are that are not given: those of PyTorch's tutorial, or the best "
     "that we found for this network"},
    {TRAIN | RESULT, "epochs", "N", WHOLE, AT(recipe.epochs), 1, 1e6, NULL, NULL,
     "passes over the training images"},
    {TRAIN | RESULT, "batch", "N", WHOLE, AT(recipe.batch), 1, 1e6, NULL, NULL,
     "images in a training step"},
    {JUDGE, "batch", "N", WHOLE, AT(batch), 1, 1e6, "10", NULL,
     "images that are evaluated, and shown, at once"},
    {TRAIN | ADDED, "optimizer", "adam|sgd|muon", CHOICE, AT(recipe.optimizer), 0, 0, NULL, NULL,
     "Adam, SGD with Nesterov's momentum, or Muon for the convolutions and Adam for the rest"},
    {TRAIN | RESULT, "lr", "X", REAL, AT(recipe.lr), 0, 1e30, NULL, NULL,
     "learning rate of Adam and SGD"},
    {TRAIN | RESULT, "weight-decay", "X", REAL, AT(recipe.weight_decay), 0, 1e30, NULL, NULL,
     "of Adam and SGD: factor of the weights that is added to their gradient, or taken off them"},
    {TRAIN | ADDED, "decoupled", NULL, FLAG, AT(recipe.decoupled), 0, 0, NULL, NULL,
     "Adam takes the decay off the weights themselves, as AdamW does"},
    {TRAIN | ADDED, "muon-lr", "X", REAL, AT(recipe.muon_lr), 0, 1e30, NULL, NULL,
     "learning rate of Muon"},
    {TRAIN | ADDED, "momentum", "X", REAL, AT(recipe.momentum), 0, 1, NULL, NULL,
     "momentum of SGD and Muon"},
    {TRAIN | ADDED, "schedule", "constant|linear|cosine", CHOICE, AT(recipe.schedule), 0, 0, NULL,
     NULL, "how the learning rates fall from the warm-up to the last step"},
    {TRAIN | ADDED, "warmup", "FRACTION", REAL, AT(recipe.warmup), 0, 1, NULL, NULL,
     "part of all steps in which the learning rates rise"},
    {TRAIN | ADDED, "final-lr", "FRACTION", REAL, AT(recipe.final_lr), 0, 1, NULL, NULL,
     "part of the learning rates that the schedule leaves"},
    {TRAIN | ADDED, "flip", "none|random|alternating", CHOICE, AT(recipe.flip), 0, 0, NULL, NULL,
     "mirrors images: each by chance, or in every other epoch"},
    {TRAIN | ADDED, "shift", "PIXELS", WHOLE, AT(recipe.shift), 0, NETWORK_SIDE - 1, NULL, NULL,
     "moves images by up to so many pixels each way"},
    {TRAIN | ADDED, "border", "zero|reflect", CHOICE, AT(recipe.border), 0, 0, NULL, NULL,
     "what comes in then: black, or the image reflected"},
    {TRAIN | ADDED, "label-smoothing", "X", REAL, AT(recipe.label_smoothing), 0, 1, NULL, NULL,
     "part of each label that is spread over all classes"},
    {TRAIN | ADDED, "average", "none|ema", CHOICE, AT(recipe.average), 0, 0, NULL, NULL,
     "ema: judges and saves the exponential moving average of the network"},
    {TRAIN | ADDED, "average-decay", "X", REAL, AT(recipe.average_decay), 0, 1, NULL, NULL,
     "part of the average that stays in each step"},
    {TRAIN | ADDED, "select", "best|last", CHOICE, AT(recipe.select), 0, 0, NULL, NULL,
     "the run results in the network of its best epoch or of its last one; with --validation of "
     "the best one unless this says otherwise"},
    {TRAIN | ADDED, "validation", "N", WHOLE, AT(validation), 0, 1e9, "0", "none",
     "holds out N training images and selects the best epoch on them instead of on the test "
     "images, which are looked at in the end only"},
    {TRAIN, "init", "FILE", TEXT, AT(init), 1, 0, NULL, "drawn weights",
     "begins with the network of a checkpoint, for fine-tuning"},
    {TRAIN | RESULT, "seed", "S", WHOLE, AT(seed), 0, 0x1p63, "0", NULL,
     "draws weights and order as torch.manual_seed(S) does"},
    {SYNTH, "seed", "S", WHOLE, AT(seed), 0, 0x1p63, "0", NULL, "draws other images"},
    {COMPUTE | RESULT, "device", "NAME", TEXT, AT(device), 1, 0, "auto", NULL,
     "what computes: auto"}, /* the help adds the backends */
    {COMPUTE | RESULT, "precision", "float32|tf32", CHOICE, AT(precision), 0, 0, "float32", NULL,
     "tf32: a GPU may round factors to 10 bits"},
    {COMPUTE | IMPORT, "threads", "N", WHOLE, AT(threads), 1, 1024, "0", "all cores",
     "CPU threads; results do not depend on them"},
    {RUN | FREE, "model", "FILE", TEXT, AT(model), 1, 0, "best.ckpt", NULL,
     "the checkpoint (safetensors, PyTorch's state_dict)"},
    {PREDICT | EXPORT, "model", "FILE", TEXT, AT(model), 1, 0, "best.ckpt", NULL,
     "the checkpoint (safetensors, PyTorch's state_dict)"},
    {VERIFY | FREE, "model", "FILE", TEXT, AT(model), 1, 0, NULL, "where the state says",
     "the run's checkpoint"},
    {JUDGE, "state", "FILE", TEXT, AT(state), 1, 0, NULL, NULL,
     "takes the model and the data of the run of a training state"},
    {TRAIN, "last", "FILE", TEXT, AT(last), 1, 0, NULL, "last.ckpt beside the model",
     "the training state, to go on from with --resume"},
    {TRAIN | FREE, "save-every", "N", WHOLE, AT(save_every), 1, 1e9, "0", "each epoch",
     "writes the training state also every N steps"},
    {TRAIN | FREE, "keep", "N", WHOLE, AT(keep), 1, 10, "1", NULL,
     "keeps the last N training states: last.ckpt, last.1.ckpt, ..."},
    {TRAIN, "stop-if-unsaved", NULL, FLAG, AT(stop_if_unsaved), 0, 0, NULL, NULL,
     "ends the run when the training state could not be written three times in a row"},
    {TRAIN, "resume", "FILE", TEXT, AT(state), 1, 0, NULL, NULL,
     "goes on with the run of a training state, with its settings, as if it had never stopped; "
     "--epochs may be raised where the learning rates are constant"},
    {TRAIN, "overwrite", NULL, FLAG, AT(overwrite), 0, 0, NULL, NULL,
     "writes over another run's files, or, with --resume, over what is further than the state"},
    {TRAIN | FREE, "log", "FILE", TEXT, AT(log), 1, 0, NULL, "none",
     "writes a record of the run, a JSON object a line"},
    {VERIFY | FREE, "log", "FILE", TEXT, AT(log), 1, 0, NULL, "where the state says",
     "the run's log"},
    {TRAIN | REPORT, "log-every", "N", WHOLE, AT(log_every), 1, 1e9, "1000", NULL,
     "steps between two reports of the loss"},
    {TRAIN | RESULT, "limit", "N", WHOLE, AT(limit), 1, 1e9, "0", "all",
     "trains on the first N training images only"},
    {TRAIN, "quiet", NULL, FLAG, AT(quiet), 0, 0, NULL, NULL, "prints nothing but errors"},
    {TEST, "grid", "FILE", TEXT, AT(grid), 0, 0, "predictions.png", NULL,
     "PNG of the first batch, right and wrong ones framed; '' for none"},
    {PREDICT, "top", "N", WHOLE, AT(top), 1, CIFAR10_CLASSES, "3", NULL,
     "classes that are shown of each picture, the most probable first"},
    {PREDICT | IMPORT, "crop", "center|squash", CHOICE, AT(crop), 0, 0, "center", NULL,
     "what becomes of a picture that is no square: its middle is taken, or all of it is squashed"},
    {PREDICT, "grid", "FILE", TEXT, AT(grid), 1, 0, NULL, "none",
     "PNG of the pictures, of the first 1000, as the network sees them"},
    {EXPORT, "onnx", "FILE", TEXT, AT(onnx), 1, 0, "ImageClassifier.onnx", NULL, "the ONNX model"},
    {EXPORT, "opset", "N", WHOLE, AT(opset), ONNX_OPSET_LEAST, ONNX_OPSET_MOST, "9", NULL,
     "version of ONNX's operators; 9 is the newest that Windows 10 takes by itself"},
    {EXPORT, "keep-batchnorm", NULL, FLAG, AT(keep_batchnorm), 0, 0, NULL, NULL,
     "leaves the batch normalisation as it is, instead of folding it into the convolutions"},
    {EXPORT, "softmax", NULL, FLAG, AT(softmax), 0, 0, NULL, NULL,
     "the model's output is probabilities instead of logits"},
    {EXPORT, "pixels", NULL, FLAG, AT(pixels), 0, 0, NULL, NULL,
     "the model takes pixels from 0 to 255 instead of -1 to 1"},
    {EXPORT, "bgr", NULL, FLAG, AT(bgr), 0, 0, NULL, NULL,
     "the model takes blue, green, red instead of red, green, blue"},
    {IMPORT, "test", "X", REAL, AT(test_share), 0.001, 0.9, "0.15", NULL,
     "share of each class's pictures that become test images, one of two at least"},
    {IMPORT, "seed", "S", WHOLE, AT(seed), 0, 0x1p63, "0", NULL,
     "draws which become test images, and their order"},
    {CLASSES, "confusion", NULL, FLAG, AT(confusion), 0, 0, NULL, NULL,
     "adds the matrix of real against predicted classes"},
    {JUDGE, "json", NULL, FLAG, AT(json), 0, 0, NULL, NULL,
     "prints one JSON object and nothing else"},
    {PREDICT, "json", NULL, FLAG, AT(json), 0, 0, NULL, NULL,
     "prints a JSON object a line, for each picture, and nothing else"},
    {PREDICT, "csv", NULL, FLAG, AT(csv), 0, 0, NULL, NULL,
     "prints comma-separated values, a line for each picture, and nothing else"},
    {SYNTH, "train", "N", WHOLE, AT(synth_train), 5, 5 * CIFAR10_MOST, "50000", NULL,
     "training images"},
    {SYNTH, "test", "N", WHOLE, AT(synth_test), 1, CIFAR10_MOST, "10000", NULL, "test images"},
    {EVERY, "help", NULL, FLAG, AT(help), 0, 0, NULL, NULL, "shows this text"},
    {EVERY, "version", NULL, FLAG, AT(version), 0, 0, NULL, NULL,
     "shows the versions of the program and its libraries, and the devices built in"},
    {.name = NULL},
};
_Static_assert(sizeof options / sizeof *options <= OPTION_MOST + 1, "settings.given has each");

bool option_of(const struct settings *settings, const struct option_row *row) {
    return (row->roles & (int)settings->command) != 0;
}

bool option_is_path(const struct option_row *row) {
    return row->type == TEXT && (row->roles & FREE);
}

bool option_is_recipe(const struct option_row *row) {
    return row->at >= AT(recipe) && row->at < AT(recipe) + sizeof(struct recipe);
}

static bool wrong_value(const struct option_row *row, const char *text, struct error *error) {
    text = text[0] != '\0' ? text : "''";
    if (row->type == WHOLE && row->most >= 0x1p63)
        return error_set(error, STATUS_USAGE,
                         "--%s %s: a whole number from %.0f to 9223372036854775807 is expected",
                         row->name, text, row->least);
    return error_set(error, STATUS_USAGE, "--%s %s: a %snumber from %.9g to %.*g is expected",
                     row->name, text, row->type == WHOLE ? "whole " : "", row->least,
                     row->type == WHOLE ? 17 : 9, row->most);
}

/* The next word of "a|b|c", and its length; NULL behind the last. */
static const char *next_word(const char *at, size_t *length) {
    if (at != NULL && at[*length] == '\0')
        return NULL;
    at += *length + (*length > 0);
    *length = strcspn(at, "|");
    return at;
}

static bool parse_choice(int *place, const struct option_row *row, const char *text,
                         struct error *error) {
    char values[128] = "";
    size_t length = 0;
    int number = 0;
    for (const char *at = row->metavar; (at = next_word(at, &length)) != NULL; number++) {
        if (strlen(text) == length && strncmp(at, text, length) == 0) {
            *place = number;
            return true;
        }
        const size_t used = strlen(values);
        snprintf(values + used, sizeof values - used, "%s%.*s",
                 used == 0            ? ""
                 : at[length] == '\0' ? " or "
                                      : ", ",
                 (int)length, at);
    }
    return error_set(error, STATUS_USAGE, "--%s %s: %s is expected", row->name,
                     text[0] != '\0' ? text : "''", values);
}

bool option_read(struct settings *settings, const struct option_row *row, const char *text,
                 struct error *error) {
    void *place = (char *)settings + row->at;
    char *end;
    errno = 0;
    switch (row->type) {
    case FLAG:
        *(bool *)place = strcmp(text, option_true) == 0;
        return *(bool *)place || strcmp(text, option_false) == 0 ||
               error_set(error, STATUS_USAGE, "--%s %s: %s or %s is expected", row->name, text,
                         option_true, option_false);
    case CHOICE:
        return parse_choice(place, row, text, error);
    case TEXT:
        if ((double)strlen(text) < row->least)
            return error_set(error, STATUS_USAGE, "--%s '': a name is expected", row->name);
        *(const char **)place = text;
        return true;
    case WHOLE: {
        const long long value = *(int64_t *)place = strtoll(text, &end, 10);
        return (end != text && *end == '\0' && errno == 0 && (double)value >= row->least &&
                (double)value <= row->most) ||
               wrong_value(row, text, error);
    }
    case REAL: {
        /* an underflow (ERANGE) to a number that is as good as 0 is no error */
        const double value = *(double *)place = strtod(text, &end);
        return (end != text && *end == '\0' && value >= row->least && value <= row->most) ||
               wrong_value(row, text, error);
    }
    }
    return false;
}

void options_set_initial(struct settings *settings) {
    struct error error;
    settings->recipe = recipes[RECIPE_TUTORIAL];
    for (const struct option_row *row = options; row->name != NULL; row++)
        if (option_of(settings, row) && row->initial != NULL)
            option_read(settings, row, row->initial, &error);
}

bool option_write(const struct settings *settings, const struct option_row *row, char *text,
                  size_t size) {
    const void *place = (const char *)settings + row->at;
    const char *const *name = place;
    switch (row->type) {
    case FLAG:
        return (size_t)snprintf(text, size, "%s",
                                *(const bool *)place ? option_true : option_false) < size;
    case CHOICE: {
        size_t length = 0;
        const char *at = row->metavar;
        for (int i = *(const int *)place; (at = next_word(at, &length)) != NULL && i > 0;)
            i--;
        return (size_t)snprintf(text, size, "%.*s", (int)length, at) < size;
    }
    case TEXT:
        return *name != NULL && (size_t)snprintf(text, size, "%s", *name) < size;
    case WHOLE:
        snprintf(text, size, "%lld", (long long)*(const int64_t *)place);
        return true;
    case REAL: {
        const double value = *(const double *)place;
        snprintf(text, size, "%.15g", value);
        if (strtod(text, NULL) != value) /* so few digits are not always enough */
            snprintf(text, size, "%.17g", value);
        return true;
    }
    }
    return false;
}

bool option_write_initial(const struct settings *settings, const struct option_row *row, char *text,
                          size_t size) {
    struct settings initial = {.command = settings->command};
    options_set_initial(&initial);
    return option_write(&initial, row, text, size);
}

void option_copy(struct settings *settings, const struct option_row *row,
                 const struct settings *from) {
    static const size_t SIZES[] = {[FLAG] = sizeof(bool),
                                   [TEXT] = sizeof(const char *),
                                   [CHOICE] = sizeof(int),
                                   [WHOLE] = sizeof(int64_t),
                                   [REAL] = sizeof(double)};
    memcpy((char *)settings + row->at, (const char *)from + row->at, SIZES[row->type]);
}
