/* Every option in one table, with its type, range, default and help, and how a value is read from a
 * text and written as one. Parsing, checking, --help, and what a run keeps all come from it:
 * settings.c and run_settings.c alone look at it. */
#pragma once

#include "app/settings.h"

/* A CHOICE is a text of which `metavar` lists the values: a|b. */
enum option_type { FLAG, TEXT, CHOICE, WHOLE, REAL };

/* What a run keeps in its files, beside the commands that have an option: its result depends on the
 * option; its reports do; or it is free to change when the run goes on. Of those that are free, the
 * texts are names of files, which the state keeps as they are called in its own folder. */
enum { RESULT = 256, REPORT = 512, FREE = 1024, KEPT = RESULT | REPORT | FREE };

/* A result's option that earlier versions did not have: a run by the tutorial's recipe keeps it
 * only where it is changed. */
enum { ADDED = 2048 | RESULT };

/* Where the value of an option is in the settings. */
#define AT(field) offsetof(struct settings, field)

/* `roles` are the commands that have it and what a run keeps of it. `initial` is what it is worth
 * when it is not given (a recipe's setting: what the recipe says), `shown` what the help says of
 * that where the value alone would not say it. */
struct option_row {
    int roles;
    const char *name, *metavar;
    enum option_type type;
    size_t at;          /* of the value in struct settings */
    double least, most; /* of a number; of a text, `least` is its least length */
    const char *initial, *shown, *help;
};

/* The last one has no name. settings->given has a place for each. */
extern const struct option_row options[];

/* Whether the command has it. */
bool option_of(const struct settings *settings, const struct option_row *row);

/* Whether it names a file that a run must find again. */
bool option_is_path(const struct option_row *row);

/* Whether it is a setting of a recipe. */
bool option_is_recipe(const struct option_row *row);

/* Sets the value that the text says, which is borrowed if it is a TEXT. A number is set even where
 * it is refused: what is `initial` may lie beyond what a user can give ("0" for all). Errors:
 * STATUS_USAGE. */
bool option_read(struct settings *settings, const struct option_row *row, const char *text,
                 struct error *error);

/* Writes the value as it could be given; false: there is none, or none so short. */
bool option_write(const struct settings *settings, const struct option_row *row, char *text,
                  size_t size);

/* The same of what it is when nothing is given. */
bool option_write_initial(const struct settings *settings, const struct option_row *row, char *text,
                          size_t size);

/* Sets the value to that of other settings. */
void option_copy(struct settings *settings, const struct option_row *row,
                 const struct settings *from);

/* Makes all settings what they are when nothing is given. */
void options_set_initial(struct settings *settings);

/* What a FLAG may be in a text. */
extern const char option_true[], option_false[];
