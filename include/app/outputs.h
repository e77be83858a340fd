/* The files that a training writes: whether it may. */
#pragma once

#include "app/settings.h"
#include "app/workplace.h"

/* Finds out before a run what must not be written over, or cannot be written: two outputs in one
 * file, a file of the data set, a folder where nothing can be made, and, unless --overwrite allows
 * it, what is there already. A run that goes on (--resume) may write over its own files: those that
 * carry its mark, `run`, and are of the right kind. If it `has_no_model` yet, that of another run
 * in its place is one that --overwrite has given up. Errors: STATUS_USAGE says what was found;
 * STATUS_FAILURE. */
bool outputs_check(const struct settings *settings, const struct workplace *workplace,
                   const char *run, bool has_no_model, struct error *error);
