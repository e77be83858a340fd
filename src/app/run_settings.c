#include "app/run_settings.h"

#include "app/options.h"
#include "base/file.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void key_of(char key[METADATA_KEY], const struct option_row *row) {
    const bool added = option_is_recipe(row) && (row->roles & ADDED) == ADDED;
    snprintf(key, METADATA_KEY, "%s%s", added ? "recipe." : "", row->name);
    for (char *at = key; *at != '\0'; at++)
        *at = *at == '-' ? '_' : *at;
}

/* Whether a run with these settings keeps this one. */
static bool is_kept(const struct settings *settings, const struct option_row *row, int roles) {
    char own[METADATA_VALUE], initial[METADATA_VALUE];
    if ((row->roles & roles) == 0)
        return false;
    if ((row->roles & ADDED) != ADDED ||
        (settings->recipe_number != RECIPE_TUTORIAL && option_is_recipe(row)))
        return true;
    return !option_write(settings, row, own, sizeof own) ||
           !option_write_initial(settings, row, initial, sizeof initial) ||
           strcmp(own, initial) != 0;
}

bool run_settings_recipe(const struct settings *settings, int i, struct recipe_setting *setting) {
    const struct option_row *row = options;
    while (row->name != NULL && (!option_is_recipe(row) || i-- > 0))
        row++;
    if (row->name == NULL)
        return false;
    char key[METADATA_KEY];
    key_of(key, row);
    const char *dot = strchr(key, '.');
    setting->option = row->name;
    snprintf(setting->name, sizeof setting->name, "%s", dot != NULL ? dot + 1 : key);
    setting->is_word = row->type == CHOICE;
    setting->is_kept = dot != NULL && is_kept(settings, row, RESULT);
    return option_write(settings, row, setting->text, sizeof setting->text);
}

bool run_settings_record(const struct settings *settings, bool all, struct metadata *about,
                         struct error *error) {
    for (const struct option_row *row = options; row->name != NULL; row++) {
        char key[METADATA_KEY], text[METADATA_VALUE];
        if (!option_of(settings, row) || !is_kept(settings, row, all ? KEPT : RESULT))
            continue;
        const char *const *name = (const void *)((const char *)settings + row->at);
        if (option_is_path(row) && *name != NULL &&
            (!file_name_beside(text, sizeof text, *name, settings->last) || !metadata_holds(text) ||
             !text_is_clean(text)))
            return error_set(error, STATUS_USAGE,
                             "--%s %.60s: a run must find its files again when it goes on, and its "
                             "state can keep only names in UTF-8 of at most %d bytes, without "
                             "control characters; name it otherwise",
                             row->name, *name, METADATA_VALUE - 1);
        key_of(key, row);
        if (option_is_path(row) ? *name != NULL : option_write(settings, row, text, sizeof text))
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

/* What was given is not what the run has, `kept`. Still well: any device; of the number of epochs
 * check_epochs() decides. */
static bool check_given(struct settings *settings, const struct settings *kept,
                        const struct option_row *row, const char *text, struct error *error) {
    char given[METADATA_VALUE] = "", own[METADATA_VALUE] = "";
    if (row->at == AT(recipe.epochs) ||
        (option_write(settings, row, given, sizeof given) &&
         option_write(kept, row, own, sizeof own) && strcmp(given, own) == 0))
        return true;
    const bool all = row->type == WHOLE && row->shown != NULL && strcmp(text, row->initial) == 0;
    return error_set(error, STATUS_USAGE,
                     "--%s %s: the run in %s has %s%s%s%s; leave the option out to go on with that "
                     "run, or leave --resume out to begin another",
                     row->name, given, settings->state, text, all ? " (" : "",
                     all ? row->shown : "", all ? ")" : "");
}

/* A run may become longer, but not one with a schedule, which ends with the run: one that ends
 * later was another one from its beginning. */
static bool check_epochs(const struct settings *settings, const struct metadata *about,
                         struct error *error) {
    const char *kept = metadata_get(about, "epochs");
    const int64_t epochs = settings->recipe.epochs;
    const bool has_end = recipe_has_end(&settings->recipe);
    return epochs == atoll(kept) || (epochs > atoll(kept) && !has_end) ||
           error_set(error, STATUS_USAGE, "--epochs %lld: the run in %s has %s; %s",
                     (long long)epochs, settings->state, kept,
                     has_end ? "its learning rates are made for these; train its network further "
                               "in a run of its own, with --init"
                             : "it may be raised, not lowered");
}

bool run_settings_adopt(struct settings *settings, struct metadata *about, struct error *error) {
    const bool train = settings->command == COMMAND_TRAIN;
    for (const struct option_row *row = options; row->name != NULL; row++) {
        const bool given = settings->given[row - options];
        struct settings kept = *settings;
        struct error wrong;
        char key[METADATA_KEY];
        /* who only looks at a run asks where its files are */
        if (!option_of(settings, row) || !(row->roles & (train ? KEPT : FREE)))
            continue;
        key_of(key, row);
        const char *text = metadata_get(about, key);
        char initial[METADATA_VALUE];
        if (text == NULL && (row->roles & ADDED) == ADDED) {
            option_write_initial(settings, row, initial, sizeof initial);
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
        if (option_is_path(row) && !adopt_path(row, about, key, settings->state, error))
            return false;
        if (!option_read(&kept, row, text, &wrong) &&
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
    return !train || check_epochs(settings, about, error);
}
