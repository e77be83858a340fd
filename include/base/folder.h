/* Folders: replaced whole or not at all. */
#pragma once

#include "base/error.h"

/* Writes files into the empty folder `folder`. */
typedef bool folder_fill(void *context, const char *folder, struct error *error);

/* Whether `fill` writes a file of that name. */
typedef bool folder_owns(const char *name);

/* Makes `path` a folder that holds what `fill` writes, or leaves it as it was: fills a new folder
 * beside it, `path`.cifar-PID.tmp, and exchanges the two in one step. What was there before is
 * removed; whether it may be is for the caller to know. A link is followed to the folder that it
 * names, and a folder that was there keeps its owner and its permissions. Where the file system
 * cannot exchange, the old folder becomes `path`.cifar-PID.old first, and a process killed just
 * then leaves it so. What processes that were killed left beside it is removed: whoever fills a
 * folder has locked it (flock), so one of this name that can be locked, and holds only files that
 * `owns` knows, is nobody's. Errors are fill's or STATUS_FAILURE; nothing new is left then. */
bool folder_replace(const char *path, folder_owns *owns, folder_fill *fill, void *context,
                    struct error *error);

/* Whether folder_replace(path) can be expected to work, found out by making and removing the folder
 * beside it. The error says what is wrong: no permission, a file in its place, a mount point or the
 * working folder, which cannot be replaced. */
bool folder_check_replaceable(const char *path, folder_owns *owns, struct error *error);
