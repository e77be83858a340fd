/* What a run keeps of its settings in its files, and takes from there when it goes on. */
#pragma once

#include "app/settings.h"
#include "base/metadata.h"

/* Writes the settings that a run keeps as texts, under the options' names with _ for -: those that
 * decide its result, or (`all`) also those that say how it reports and where its files are, as they
 * are called in the folder of settings->last. A recipe's settings, but for the four that there have
 * always been (epochs, batch, lr, weight_decay), are called recipe.NAME, and of the tutorial's
 * recipe those are not written that nobody has changed. Errors: STATUS_USAGE: a file's name that
 * the metadata cannot hold. */
bool run_settings_record(const struct settings *settings, bool all, struct metadata *about,
                         struct error *error);

/* Makes the settings those of the run that the metadata of the training state settings->state tells
 * of, or, in another command than train, takes from there what files that has: its texts are
 * borrowed, and files' names made paths. What was given on the command line must be the same, or
 * else the error (STATUS_USAGE) names both values, but --epochs may be larger where the learning
 * rates are constant, --device auto is any device, and how often to save and where files are may be
 * anything. STATUS_CHECKPOINT: the file does not tell, or nothing possible, or names a file to be
 * written that lies neither in its own folder nor below. */
bool run_settings_adopt(struct settings *settings, struct metadata *about, struct error *error);

/* One of a recipe's settings, as a text. */
struct recipe_setting {
    const char *option;      /* its name */
    char name[METADATA_KEY]; /* the same with _ for - */
    char text[64];
    bool is_word; /* else a number, or true or false */
    bool is_kept; /* under recipe.NAME: see run_settings_record() */
};

/* The settings->recipe's setting number i; false: there are no more. */
bool run_settings_recipe(const struct settings *settings, int i, struct recipe_setting *setting);
