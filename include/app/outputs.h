/* The files that a training writes: whether it may. */
#pragma once

#include "app/settings.h"
#include "app/workplace.h"

/* Finds out before a run what must not be written over, or cannot be written: two outputs in one
 * file, a file of the data set, a folder where nothing can be made, and, unless --overwrite allows
 * it, what is there already. A run that goes on (--resume) has `kept` from its training state and
 * may write over the files that this names, as long as they hold what the run would have put there.
 * Errors: STATUS_USAGE says what was found; STATUS_FAILURE. */
bool outputs_check(const struct settings *settings, const struct workplace *workplace,
                   const struct metadata *kept, struct error *error);
