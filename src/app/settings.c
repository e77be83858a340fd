#include "app/settings.h"

#include "base/file.h"
#include "base/text.h"
#include "data/cifar10.h"
#include "device/device.h"
#include "net/onnx.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
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

/* What a run keeps in its files, beside the commands that have an option: its result depends on the
 * option; its reports do; or it is free to change when the run goes on. Of those that are free, the
 * texts are names of files, which the state keeps as they are called in its own folder. */
enum { RESULT = 256, REPORT = 512, FREE = 1024, KEPT = RESULT | REPORT | FREE };

/* A result's option that a run keeps only where it is not the tutorial's: earlier versions did not
 * have it. */
enum { ADDED = 2048 | RESULT };

static const struct command_row {
    enum command command;
    const char *name, *words;
    int least, most; /* words; `meaning`: what they are */
    const char *meaning, *summary;
} COMMANDS[] = {
    {TRAIN, "train", "", 0, 0, NULL,
     "Trains the network on CIFAR-10 and keeps the checkpoint of its best epoch."},
    {TEST, "test", "", 0, 0, NULL,
     "Judges a checkpoint on the test images and shows its predictions for the first batch."},
    {CLASSES, "classes", "", 0, 0, NULL, "Reports how a checkpoint does on each of the classes."},
    {PREDICT, "predict", " PICTURE|FOLDER|-...", 1, INT_MAX, "a picture, a folder of them, or -",
     "Tells what is on pictures, PNG or JPEG of any size; - is one on standard input."},
    {EXPORT, "export", "", 0, 0, NULL,
     "Writes a checkpoint's network as an ONNX model, for other programs to run."},
    {IMPORT, "import", " DIR DEST", 2, 2,
     "a folder with a folder of pictures for each class, and a name for the data set",
     "Makes a data set in CIFAR-10's format, folder DEST, of the pictures in DIR/CLASS/."},
    {SYNTH, "synth", " DIR", 1, 1, "the folder to draw the data set into",
     "Draws a stand-in for CIFAR-10, ten kinds of object in the same format, into folder DIR."},
    {VERIFY, "verify", " [FILE]", 0, 1, "the name of a training state",
     "Checks a training state (else last.ckpt), its run's checkpoint and its log together."},
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

/* A CHOICE is a text of which `metavar` lists the values: a|b. */
enum type { FLAG, TEXT, CHOICE, WHOLE, REAL };

#define AT(field) offsetof(struct settings, field)

/* Every option. `roles` are the commands that have it and what a run keeps of it. `initial` is what
 * it is worth when it is not given (a recipe's setting: what the recipe says), `shown` what the
 * help says of that where the value alone would not say it. */
static const struct option_row {
    int roles;
    const char *name, *metavar;
    enum type type;
    size_t at;          /* of the value in struct settings */
    double least, most; /* of a number; of a text, `least` is its least length */
    const char *initial, *shown, *help;
} OPTIONS[] = {
    {RUN | FREE, "data", "DIR", TEXT, AT(data), 1, 0, NULL, "$CIFAR10_DIR, else data",
     "folder of the batches, or the one that holds cifar-10-batches-bin"},
    {TRAIN | ADDED, "recipe", "tutorial|best", CHOICE, AT(recipe_number), 0, 0, "tutorial", NULL,
     "what the settings below are that are not given: those of PyTorch's tutorial, or the best "
     "that "
     "we found for this network"},
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
     "factor of the weights that is added to their gradient, or taken off them"},
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
     "--epochs may be raised"},
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
};
enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };
_Static_assert(OPTION_COUNT <= 64, "settings.given has a bit for each");

/* ---- values ---- */

static bool is_path(const struct option_row *row) {
    return row->type == TEXT && (row->roles & FREE);
}

static bool has(const struct settings *settings, const struct option_row *row) {
    return (row->roles & (int)settings->command) != 0;
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

static const char TRUE[] = "true", FALSE[] = "false";

/* A number is set even where it is refused: what is `initial` may lie beyond what a user can give
 * ("0" for all). */
static bool parse_value(struct settings *settings, const struct option_row *row, const char *text,
                        struct error *error) {
    void *place = (char *)settings + row->at;
    char *end;
    errno = 0;
    switch (row->type) {
    case FLAG:
        *(bool *)place = strcmp(text, TRUE) == 0;
        return *(bool *)place || strcmp(text, FALSE) == 0 ||
               error_set(error, STATUS_USAGE, "--%s %s: %s or %s is expected", row->name, text,
                         TRUE, FALSE);
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

static void set_initial(struct settings *settings) {
    struct error error;
    settings->recipe = recipes[0];
    for (int i = 0; i < OPTION_COUNT; i++)
        if (has(settings, &OPTIONS[i]) && OPTIONS[i].initial != NULL)
            parse_value(settings, &OPTIONS[i], OPTIONS[i].initial, &error);
}

/* ---- the settings of a run, as texts ---- */

static bool is_recipe(const struct option_row *row) {
    return row->at >= AT(recipe) && row->at < AT(recipe) + sizeof(struct recipe);
}

static void key_of(char key[32], const struct option_row *row) {
    const bool added = is_recipe(row) && (row->roles & ADDED) == ADDED;
    snprintf(key, 32, "%s%s", added ? "recipe." : "", row->name);
    for (char *at = key; *at != '\0'; at++)
        *at = *at == '-' ? '_' : *at;
}

/* A value as it could be given; false: there is none, or none so short. */
static bool value_text(const struct settings *settings, const struct option_row *row, char *text,
                       size_t size) {
    const void *place = (const char *)settings + row->at;
    const char *const *name = place;
    switch (row->type) {
    case FLAG:
        return (size_t)snprintf(text, size, "%s", *(const bool *)place ? TRUE : FALSE) < size;
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

/* Whether it is what it is when nothing is given; `text` becomes that. */
static bool is_initial(const struct settings *settings, const struct option_row *row,
                       char text[METADATA_VALUE]) {
    char own[METADATA_VALUE];
    struct settings initial = {.command = settings->command};
    set_initial(&initial);
    return value_text(&initial, row, text, METADATA_VALUE) &&
           value_text(settings, row, own, sizeof own) && strcmp(own, text) == 0;
}

/* Whether a run with these settings keeps this one. */
static bool is_kept(const struct settings *settings, const struct option_row *row, int roles) {
    char initial[METADATA_VALUE];
    const bool whole = settings->recipe_number > 0 && is_recipe(row);
    return (row->roles & roles) != 0 &&
           ((row->roles & ADDED) != ADDED || whole || !is_initial(settings, row, initial));
}

bool settings_recipe(const struct settings *settings, int i, struct recipe_setting *setting) {
    const struct option_row *row = OPTIONS;
    for (;; row++) {
        if (row == OPTIONS + OPTION_COUNT)
            return false;
        if (is_recipe(row) && i-- == 0)
            break;
    }
    char key[40];
    key_of(key, row);
    const char *dot = strchr(key, '.');
    snprintf(setting->name, sizeof setting->name, "%s", dot != NULL ? dot + 1 : key);
    setting->is_word = row->type == CHOICE;
    setting->is_kept = dot != NULL && is_kept(settings, row, RESULT);
    return value_text(settings, row, setting->text, sizeof setting->text);
}

bool settings_record(const struct settings *settings, bool all, struct metadata *about,
                     struct error *error) {
    for (const struct option_row *row = OPTIONS; row < OPTIONS + OPTION_COUNT; row++) {
        char key[32], text[METADATA_VALUE];
        if (!has(settings, row) || !is_kept(settings, row, all ? KEPT : RESULT))
            continue;
        const char *const *name = (const void *)((const char *)settings + row->at);
        if (is_path(row) && *name != NULL &&
            (!file_name_beside(text, sizeof text, *name, settings->last) || !metadata_holds(text) ||
             !text_is_clean(text)))
            return error_set(error, STATUS_USAGE,
                             "--%s %.60s: a run must find its files again when it goes on, and its "
                             "state can keep only names in UTF-8 of at most %d bytes, without "
                             "control characters; name it otherwise",
                             row->name, *name, METADATA_VALUE - 1);
        key_of(key, row);
        if (is_path(row) ? *name != NULL : value_text(settings, row, text, sizeof text))
            metadata_set(about, key, "%s", text);
    }
    return true;
}

/* The error of a run's state, whose metadata's `key` is wrong. */
static bool refuse(const char *state, const char *key, const char *what, struct error *error) {
    return error_set(error, STATUS_CHECKPOINT, "%s: its metadata's %s %s; name the file with --%s",
                     state, key, what, key);
}

/* Makes a file's text from the state what the option would have been here. It will be printed, so
 * it must hold nothing that a terminal would act on; and a state may be somebody else's, so that it
 * names no file to be written but near itself. */
static bool adopt_path(const struct option_row *row, struct metadata *about, const char *key,
                       const char *state, struct error *error) {
    const char *name = metadata_get(about, key);
    char path[METADATA_VALUE];
    if (!text_is_clean(name))
        return refuse(state, key, "has control characters in it", error);
    if (!file_path_beside(path, sizeof path, name, state))
        return refuse(state, key, "is too long a name here", error);
    if (row->at != AT(data) && !file_lies_beside(path, state))
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: its metadata names %s as its run's %s, which is no file in the "
                         "folder of the state or below; if it is the right one, say so with --%s",
                         state, path, key, key);
    metadata_set(about, key, "%s", path);
    return true;
}

/* What was given is not what the run has, `kept`. Still well: any device, and a longer run. */
static bool check_given(struct settings *settings, const struct settings *kept,
                        const struct option_row *row, const char *text, struct error *error) {
    char given[METADATA_VALUE] = "", own[METADATA_VALUE] = "";
    const bool longer = row->at == AT(recipe.epochs);
    if (value_text(settings, row, given, sizeof given) && value_text(kept, row, own, sizeof own) &&
        strcmp(given, own) == 0)
        return true;
    if (longer && settings->recipe.epochs > kept->recipe.epochs)
        return true;
    const bool all = row->type == WHOLE && row->shown != NULL && strcmp(text, row->initial) == 0;
    return error_set(error, STATUS_USAGE, "--%s %s: the run in %s has %s%s%s%s; %s", row->name,
                     given, settings->state, text, all ? " (" : "", all ? row->shown : "",
                     all ? ")" : "",
                     longer ? "it may be raised, not lowered"
                            : "leave the option out to go on with that run, or leave --resume out "
                              "to begin another");
}

/* A schedule ends with the run: one that ends later was another one from its beginning. */
static bool check_length(const struct settings *settings, const struct metadata *about,
                         struct error *error) {
    const char *epochs = metadata_get(about, "epochs");
    return settings->recipe.epochs == atoll(epochs) || !recipe_has_end(&settings->recipe) ||
           error_set(
               error, STATUS_USAGE,
               "--epochs %lld: the learning rates of the run in %s are made for %s epochs, so "
               "that it cannot become longer; train its network further in a run of its own, "
               "with --init",
               (long long)settings->recipe.epochs, settings->state, epochs);
}

bool settings_adopt(struct settings *settings, struct metadata *about, struct error *error) {
    const bool train = settings->command == COMMAND_TRAIN;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &OPTIONS[i];
        const bool given = settings->given >> i & 1;
        struct settings kept = *settings;
        struct error wrong;
        char key[32];
        /* who only looks at a run asks where its files are */
        if (!has(settings, row) || !(row->roles & (train ? KEPT : FREE)))
            continue;
        key_of(key, row);
        const char *text = metadata_get(about, key);
        char initial[METADATA_VALUE];
        if (text == NULL && (row->roles & ADDED) == ADDED) {
            is_initial(settings, row, initial);
            text = initial;
        }
        const bool needed = !(row->roles & FREE) || (train && row->at == AT(model));
        if (((row->roles & FREE) && given) || (text == NULL && !needed))
            continue;
        if (text == NULL)
            return error_set(error, STATUS_CHECKPOINT,
                             "%s: does not say what --%s was in its run: the file is damaged or "
                             "comes from another version of this program",
                             settings->state, row->name);
        if (is_path(row) && !adopt_path(row, about, key, settings->state, error))
            return false;
        if (!parse_value(&kept, row, text, &wrong) &&
            (row->initial == NULL || strcmp(text, row->initial) != 0))
            return error_set(error, STATUS_CHECKPOINT, "%s: its metadata is wrong: %s",
                             settings->state, wrong.text);
        kept.model_adopted |= row->at == AT(model);
        if (!given || (row->at == AT(device) && strcmp(settings->device, "auto") == 0))
            *settings = kept;
        else if (!check_given(settings, &kept, row, text, error))
            return false;
    }
    struct error wrong;
    if (train && !recipe_check(&settings->recipe, &wrong))
        return error_set(error, STATUS_CHECKPOINT, "%s: its metadata is wrong: %s", settings->state,
                         wrong.text);
    return !train || check_length(settings, about, error);
}

/* ---- the command line ---- */

static const struct command_row *find_command(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, COMMANDS[i].name) == 0)
            return &COMMANDS[i];
    return NULL;
}

static void list_commands(char *list, size_t size) {
    list[0] = '\0';
    for (int i = 0; i < COMMAND_COUNT; i++)
        snprintf(list + strlen(list), size - strlen(list), "%s%s",
                 i == 0                   ? ""
                 : i == COMMAND_COUNT - 1 ? " or "
                                          : ", ",
                 COMMANDS[i].name);
}

static bool find_which(struct settings *settings, int *argc, char ***argv, struct error *error) {
    static char program[64];
    char names[128];
    const char *path = *argc > 0 ? (*argv)[0] : ""; /* whoever starts a program may leave it out */
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const bool prefixed = strncmp(name, "cifar-", strlen("cifar-")) == 0;
    const struct command_row *row = prefixed ? find_command(name + strlen("cifar-")) : NULL;
    list_commands(names, sizeof names);
    settings->program = "cifar";
    if (row == NULL && *argc > 1) {
        const char *word = (*argv)[1];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
            return settings->help = true;
        if (strcmp(word, "--version") == 0)
            return settings->version = true;
        row = find_command(word);
        (*argc)--;
        (*argv)++;
        if (row == NULL)
            return error_set(error, STATUS_USAGE, "'%s' is no command; %s is expected first", word,
                             names);
    }
    if (row == NULL)
        return error_set(error, STATUS_USAGE, "a command is expected first: %s", names);
    settings->command = row->command;
    snprintf(program, sizeof program, "cifar-%s", row->name);
    settings->program = program;
    return true;
}

/* What getopt_long() answers for every long option, and leaves in optopt for one that it knows and
 * refuses: no character. */
enum { LONG_OPTION = 256 };

/* What was wrong with the word that getopt_long() has just refused. */
static bool wrong_option(int answer, char *const *argv, struct error *error) {
    const char *word = argv[optind - 1];
    if (answer == ':')
        return error_set(error, STATUS_USAGE, "%s: a value is expected behind it", word);
    if (optopt == LONG_OPTION)
        return error_set(error, STATUS_USAGE, "%s: this option takes no value", word);
    if (optopt == 0)
        return error_set(error, STATUS_USAGE, "%s: there is no such option", word);
    if (optopt < 0 && argv[optind] != NULL) /* the first byte of a longer character */
        return error_set(error, STATUS_USAGE, "%s: there is no such option", argv[optind]);
    return error_set(error, STATUS_USAGE, "-%c: there is no such option", optopt);
}

/* getopt_long() takes abbreviations. Here they are wrong: an option that is added later would
 * change what they mean, and scripts that pass options on could not tell them. `optarg` lies in the
 * word itself (--epochs=5) or is the next one. */
static bool is_whole(const char *name, char *const *argv) {
    const char *word = argv[optind - 1];
    if (optarg == word)
        word = argv[optind - 2];
    const size_t length = strlen(name);
    return strncmp(word + 2, name, length) == 0 &&
           (word[2 + length] == '\0' || word[2 + length] == '=');
}

/* Where the training state is when nobody says: in the model's folder. */
static const char *beside(const char *model) {
    static char path[4096];
    const char *slash = strrchr(model, '/');
    snprintf(path, sizeof path, "%.*slast.ckpt", slash != NULL ? (int)(slash + 1 - model) : 0,
             model);
    return path;
}

static const struct command_row *command_of(const struct settings *settings) {
    const struct command_row *row = COMMANDS;
    while (row->command != settings->command)
        row++;
    return row;
}

static bool check_words(struct settings *settings, struct error *error) {
    const struct command_row *row = command_of(settings);
    if (settings->word_count > row->most)
        return error_set(error, STATUS_USAGE, "'%s': no such word is expected here",
                         settings->words[row->most]);
    bool good = settings->word_count >= row->least;
    for (int i = 0; i < settings->word_count; i++)
        good = good && settings->words[i][0] != '\0';
    if (row->command == COMMAND_VERIFY)
        settings->state = settings->word_count > 0 ? settings->words[0] : "last.ckpt";
    return good || error_set(error, STATUS_USAGE, "%s is expected", row->meaning);
}

static bool is_given(const struct settings *settings, size_t at) {
    for (int i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].at == at && (settings->given >> i & 1))
            return true;
    return false;
}

/* What was not given becomes what the recipe says. */
static void apply_recipe(struct settings *settings) {
    static const size_t SIZES[] = {[FLAG] = sizeof(bool),
                                   [CHOICE] = sizeof(int),
                                   [WHOLE] = sizeof(int64_t),
                                   [REAL] = sizeof(double)};
    struct settings its = *settings;
    its.recipe = recipes[settings->recipe_number];
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &OPTIONS[i];
        if (is_recipe(row) && (settings->given >> i & 1))
            memcpy((char *)&its + row->at, (const char *)settings + row->at, SIZES[row->type]);
    }
    if (!is_given(settings, AT(recipe.decoupled)) && its.recipe.optimizer == OPTIMIZER_SGD)
        its.recipe.decoupled = false; /* SGD's cannot be */
    if (!is_given(settings, AT(recipe.select)) && settings->validation > 0)
        its.recipe.select = SELECT_BEST;
    *settings = its;
}

/* Options that were given and would mean nothing beside the others. */
static bool check_recipe(const struct settings *settings, struct error *error) {
    const struct recipe *r = &settings->recipe;
    const struct {
        size_t at;
        bool works;
        const char *name, *what;
    } CHECKS[] = {
        {AT(recipe.muon_lr), r->optimizer == OPTIMIZER_MUON, "muon-lr", "--optimizer muon"},
        {AT(recipe.momentum), r->optimizer != OPTIMIZER_ADAM, "momentum",
         "--optimizer sgd or muon: Adam has its own"},
        {AT(recipe.final_lr), r->schedule != SCHEDULE_CONSTANT, "final-lr",
         "--schedule linear or cosine: constant rates do not fall"},
        {AT(recipe.border), r->shift > 0, "border",
         "--shift: nothing comes in where nothing moves"},
        {AT(recipe.average_decay), r->average != AVERAGE_NONE, "average-decay", "--average ema"},
    };
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++)
        if (is_given(settings, CHECKS[i].at) && !CHECKS[i].works)
            return error_set(error, STATUS_USAGE, "--%s goes with %s", CHECKS[i].name,
                             CHECKS[i].what);
    return recipe_check(r, error);
}

static bool finish(struct settings *settings, struct error *error) {
    if (settings->command == COMMAND_TRAIN && settings->last == NULL)
        settings->last = settings->state != NULL ? settings->state : beside(settings->model);
    if (settings->json && settings->csv)
        return error_set(error, STATUS_USAGE, "--json and --csv: one of them is expected");
    if (settings->command != COMMAND_TRAIN)
        return true;
    apply_recipe(settings);
    if (settings->state != NULL && settings->init != NULL)
        return error_set(error, STATUS_USAGE,
                         "--init goes with a new run: --resume goes on with the network of the "
                         "state");
    return settings->state != NULL || check_recipe(settings, error); /* the rest is the state's */
}

static bool parse_options(struct settings *settings, int argc, char **argv, struct error *error) {
    struct option known[OPTION_COUNT + 2] = {{0}};
    const struct option_row *rows[OPTION_COUNT + 1];
    char negated[32]; /* --no-FLAG, of the one flag that a recipe can set */
    int count = 0, chosen = 0, answer;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &OPTIONS[i];
        if (!has(settings, row))
            continue;
        rows[count] = row;
        known[count++] = (struct option){row->name, row->type != FLAG, NULL, LONG_OPTION};
        if (row->type == FLAG && is_recipe(row)) {
            snprintf(negated, sizeof negated, "no-%s", row->name);
            rows[count] = row;
            known[count++] = (struct option){negated, no_argument, NULL, LONG_OPTION};
        }
    }
    opterr = 0;
    while ((answer = getopt_long(argc, argv, ":h", known, &chosen)) != -1) {
        if (answer == 'h')
            return settings->help = true;
        if (answer != LONG_OPTION)
            return wrong_option(answer, argv, error);
        const char *name = known[chosen].name, *flag = name == negated ? FALSE : TRUE;
        if (!is_whole(name, argv))
            return error_set(error, STATUS_USAGE, "%s: there is no such option; --%s, in full?",
                             argv[optind - 1 - (optarg == argv[optind - 1])], name);
        if (!parse_value(settings, rows[chosen], known[chosen].has_arg ? optarg : flag, error))
            return false;
        settings->given |= UINT64_C(1) << (rows[chosen] - OPTIONS);
        if (settings->help || settings->version)
            return true;
    }
    settings->words = argv + optind;
    settings->word_count = argc - optind;
    return finish(settings, error) && check_words(settings, error);
}

bool settings_parse(struct settings *settings, int argc, char **argv, struct error *error) {
    *settings = (struct settings){0};
    if (!find_which(settings, &argc, &argv, error))
        return false;
    if (settings->help || settings->version)
        return true;
    set_initial(settings);
    return parse_options(settings, argc, argv, error);
}

/* ---- help ---- */

/* Prints text that begins at column LEFT, broken between words before column RIGHT. */
enum { LEFT = 22, RIGHT = 80 };
static void print_wrapped(const char *text) {
    for (int column = LEFT; *text != '\0'; text += strspn(text, " ")) {
        const int length = (int)strcspn(text, " ");
        const bool breaks = column + 1 + length > RIGHT;
        if (column > LEFT)
            printf("%s%*s", breaks ? "\n" : " ", breaks ? LEFT : 0, "");
        printf("%.*s", length, text);
        column = (breaks ? LEFT : column + 1) + length;
        text += length;
    }
    printf("\n");
}

/* "default: 10; best: 64", or "" */
static void write_initial(char *text, size_t size, const struct settings *settings,
                          const struct option_row *row) {
    char usual[METADATA_VALUE], other[METADATA_VALUE];
    const char *shown = row->shown ? row->shown : row->initial;
    text[0] = '\0';
    if (shown != NULL)
        snprintf(text, size, "default: %s", shown);
    if (!is_recipe(row))
        return;
    is_initial(settings, row, usual);
    snprintf(text, size, "default: %s", usual);
    for (const struct recipe *recipe = recipes + 1; recipe->name != NULL; recipe++) {
        const struct settings its = {.recipe = *recipe};
        value_text(&its, row, other, sizeof other);
        if (strcmp(other, usual) != 0)
            snprintf(text + strlen(text), size - strlen(text), "; %s: %s", recipe->name, other);
    }
}

void settings_help(const struct settings *settings) {
    if (settings->command == 0) {
        printf("Usage: cifar COMMAND [options], or cifar-COMMAND [options]\n\n");
        for (int i = 0; i < COMMAND_COUNT; i++)
            printf("  %-9s%s\n", COMMANDS[i].name, COMMANDS[i].summary);
        printf("\n'cifar COMMAND --help' tells more of each.\n");
        return;
    }
    const struct command_row *command = command_of(settings);
    printf("Usage: cifar-%s%s [options]\n%s\n\n", command->name, command->words, command->summary);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &OPTIONS[i];
        if (!has(settings, row))
            continue;
        char left[40], help[256], right[300];
        snprintf(left, sizeof left, "--%s%s %s", is_recipe(row) && row->type == FLAG ? "[no-]" : "",
                 row->name, row->metavar ? row->metavar : "");
        printf(strlen(left) < LEFT - 2 ? "  %-20s" : "  %s\n                      ", left);
        snprintf(help, sizeof help, "%s", row->help);
        for (int k = 0; row->at == AT(device) && device_name(k) != NULL; k++)
            snprintf(help + strlen(help), sizeof help - strlen(help), ", %s", device_name(k));
        char initial[METADATA_VALUE + 64];
        write_initial(initial, sizeof initial, settings, row);
        snprintf(right, sizeof right, initial[0] != '\0' ? "%s (%s)" : "%s", help, initial);
        print_wrapped(right);
    }
    printf("\nExit status: 0 done, 1 failed, 2 wrong usage, 3 data, 4 checkpoint, 5 device,\n"
           "6 the loss is no longer finite, 128 + N interrupted by signal N.\n");
}
