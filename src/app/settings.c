#include "app/settings.h"

#include "app/options.h"
#include "base/metadata.h"
#include "device/device.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const struct command_row {
    enum command command;
    const char *name, *words;
    int least, most; /* words; `meaning`: what they are */
    const char *meaning, *summary;
} COMMANDS[] = {
    {COMMAND_TRAIN, "train", "", 0, 0, NULL,
     "Trains the network on CIFAR-10 and keeps the checkpoint of its chosen epoch."},
    {COMMAND_TEST, "test", "", 0, 0, NULL,
     "Judges a checkpoint on the test images and shows its predictions for the first batch."},
    {COMMAND_CLASSES, "classes", "", 0, 0, NULL,
     "Reports how a checkpoint does on each of the classes."},
    {COMMAND_PREDICT, "predict", " PICTURE|FOLDER|-...", 1, INT_MAX,
     "a picture, a folder of them, or -",
     "Tells what is on pictures, PNG or JPEG of any size; - is one on standard input."},
    {COMMAND_EXPORT, "export", "", 0, 0, NULL,
     "Writes a checkpoint's network as an ONNX model, for other programs to run."},
    {COMMAND_IMPORT, "import", " DIR DEST", 2, 2,
     "a folder with a folder of pictures for each class, and a name for the data set",
     "Makes a data set in CIFAR-10's format, folder DEST, of the pictures in DIR/CLASS/."},
    {COMMAND_SYNTH, "synth", " DIR", 1, 1, "the folder to draw the data set into",
     "Draws a stand-in for CIFAR-10, ten kinds of object in the same format, into folder DIR."},
    {COMMAND_VERIFY, "verify", " [FILE]", 0, 1, "the name of a training state",
     "Checks a training state (else last.ckpt), its run's checkpoint and its log together."},
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

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
    for (const struct option_row *row = options; row->name != NULL; row++)
        if (row->at == at && settings->given[row - options])
            return true;
    return false;
}

/* What was not given becomes what the recipe says. */
static void apply_recipe(struct settings *settings) {
    struct settings its = *settings;
    its.recipe = recipes[settings->recipe_number];
    for (const struct option_row *row = options; row->name != NULL; row++) {
        if (option_is_recipe(row) && settings->given[row - options])
            option_copy(&its, row, settings);
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
    struct option known[OPTION_MOST + 2] = {{0}};
    const struct option_row *rows[OPTION_MOST + 1];
    char negated[32]; /* --no-FLAG, of the one flag that a recipe can set */
    int count = 0, chosen = 0, answer;
    for (const struct option_row *row = options; row->name != NULL; row++) {
        if (!option_of(settings, row))
            continue;
        rows[count] = row;
        known[count++] = (struct option){row->name, row->type != FLAG, NULL, LONG_OPTION};
        if (row->type == FLAG && option_is_recipe(row)) {
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
        const char *name = known[chosen].name, *flag = name == negated ? option_false : option_true;
        if (!is_whole(name, argv))
            return error_set(error, STATUS_USAGE, "%s: there is no such option; --%s, in full?",
                             argv[optind - 1 - (optarg == argv[optind - 1])], name);
        if (!option_read(settings, rows[chosen], known[chosen].has_arg ? optarg : flag, error))
            return false;
        settings->given[rows[chosen] - options] = true;
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
    options_set_initial(settings);
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
    if (!option_is_recipe(row))
        return;
    option_write_initial(settings, row, usual, sizeof usual);
    snprintf(text, size, "default: %s", usual);
    for (int i = RECIPE_TUTORIAL + 1; i < RECIPE_COUNT; i++) {
        const struct settings its = {.recipe = recipes[i]};
        option_write(&its, row, other, sizeof other);
        if (strcmp(other, usual) != 0)
            snprintf(text + strlen(text), size - strlen(text), "; %s: %s", recipe_names[i], other);
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
    for (const struct option_row *row = options; row->name != NULL; row++) {
        if (!option_of(settings, row))
            continue;
        char left[40], help[256], right[300];
        snprintf(left, sizeof left, "--%s%s %s",
                 option_is_recipe(row) && row->type == FLAG ? "[no-]" : "", row->name,
                 row->metavar ? row->metavar : "");
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
