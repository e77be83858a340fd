/* The reader of the command line.
 *
 * Input: a byte that chooses the program's name, then the words, with a zero or a newline between
 * them.
 *
 * Asserted: what is refused has an error of the right kind; what is accepted has all values in
 * their ranges, and the settings of a training, written to its files and read again, are the same.
 */
#include "fuzz.h"

#include <stdlib.h>

/* The last one: a process may be started without even a name. */
static const char *const PROGRAMS[] = {
    "cifar", "cifar-train", "cifar-test",   "cifar-classes", "cifar-synth",  "/bin/cifar-unknown",
    "",      NULL,          "cifar-verify", "cifar-predict", "cifar-export", "cifar-import"};
enum { PROGRAM_COUNT = sizeof PROGRAMS / sizeof *PROGRAMS, MOST_WORDS = 60 };

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return 0;
}

/* A state's name of a file that a terminal would act on is refused. */
static bool has_control(const char *path) {
    for (const unsigned char *at = (const unsigned char *)path; at != NULL && *at != '\0'; at++)
        if (*at < ' ' || *at == 0x7f || (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0))
            return true;
    return false;
}

/* A run keeps its settings in its files and goes on with them. */
static void check_record(const struct settings *settings) {
    const char *words[] = {"cifar-train", "--resume", "x", NULL};
    struct settings again;
    struct metadata about = {0};
    struct error error;
    int recipe_row = 0;
    if (strlen(settings->device) >= METADATA_VALUE)
        return; /* is left out */
    if (!run_settings_record(settings, true, &about, &error)) {
        fuzz_check_error(&error, STATUS_USAGE); /* a name that it could not find again */
        return;
    }
    require(fuzz_parse(&again, words, &error));
    if (!run_settings_adopt(&again, &about, &error)) {
        require(has_control(settings->data) || has_control(settings->model) ||
                has_control(settings->log) || strstr(error.text, "no file in the folder") != NULL ||
                strstr(error.text, "too long a name") != NULL);
        fuzz_check_error(&error, STATUS_CHECKPOINT);
        return;
    }
    fuzz_check_settings(&again);
    require(again.seed == settings->seed && again.limit == settings->limit);
    require(again.recipe_number == settings->recipe_number);
    require(again.validation == settings->validation);
    for (struct recipe_setting is, was; run_settings_recipe(settings, recipe_row, &was);
         recipe_row++)
        require(run_settings_recipe(&again, recipe_row, &is) && strcmp(is.text, was.text) == 0);
    require(again.log_every == settings->log_every && again.save_every == settings->save_every);
    require(again.keep == settings->keep);
    require(strcmp(again.device, settings->device) == 0);
    require(again.precision == settings->precision);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *argv[MOST_WORDS + 2];
    char *text;
    struct settings settings;
    struct error error;
    int argc = 0;
    if (size == 0 || (text = malloc(size)) == NULL)
        return -1;
    argv[argc] = PROGRAMS[data[0] % PROGRAM_COUNT];
    if (argv[argc] != NULL) {
        const char *rest = text;
        argc++;
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        for (size_t i = 0; i < size - 1; i++)
            text[i] = text[i] == '\n' ? '\0' : text[i];
        for (; size > 1 && rest < text + size && argc <= MOST_WORDS; rest += strlen(rest) + 1)
            argv[argc++] = rest;
    }
    argv[argc] = NULL;
    if (!fuzz_parse(&settings, argv, &error)) {
        fuzz_check_error(&error, STATUS_USAGE);
        require(settings.program != NULL); /* which the message begins with */
    } else if (!settings.help && !settings.version) {
        fuzz_check_settings(&settings);
        if (settings.command == COMMAND_TRAIN)
            check_record(&settings);
    }
    free(text);
    return 0;
}
