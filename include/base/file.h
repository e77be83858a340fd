/* Files: read whole and exactly, written whole or not at all. */
#pragma once

#include "base/error.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* A regular file opened for reading. */
struct file {
    int descriptor;
    const char *path;   /* borrowed from the caller of file_open */
    size_t size;        /* bytes, when it was opened */
    enum status status; /* the kind of error that reading it makes */
};

/* Opens `path` for reading. Errors, of kind `status`: not there, not readable, a folder or anything
 * else that is no regular file (never blocks on a pipe). file_close() it afterwards. */
bool file_open(struct file *file, const char *path, enum status status, struct error *error);

/* Reads the first `size` bytes, at most file->size, into `bytes`. Errors: a failing read, or a file
 * that became shorter, with the byte where it ended. */
bool file_read(const struct file *file, uint8_t *bytes, size_t size, struct error *error);

void file_close(struct file *file);

/* Whether two paths name the same file, which need not exist yet. */
bool file_same(const char *a, const char *b);

/* Whether what was opened is still what has that name. */
bool file_is_at(int descriptor, const char *path);

/* Calls `remove_one` for what lies beside `target` and is called TARGET.cifar-NUMBER`ending`: what
 * writers that were killed may have left. Whether that is so is for it to find out. */
void file_remove_leftovers(const char *target, const char *ending,
                           void (*remove_one)(const char *path, const void *context),
                           const void *context);

/* What `path` is called in the folder of the file `beside`, for a name in that file which stays
 * right when both are moved together, or from another working folder: relative, or absolute where
 * that cannot be. False: it is longer than `size`. */
bool file_name_beside(char *name, size_t size, const char *path, const char *beside);

/* The path of what is called `name` there. False: it is longer than `size`. */
bool file_path_beside(char *path, size_t size, const char *name, const char *beside);

/* Whether `path` is a link that leads to no file; the error (STATUS_FAILURE) says so. */
bool file_is_dangling(const char *path, struct error *error);

/* Whether `path`, a regular file or one to be made, lies in the folder of the file `beside` or
 * below it, where links lead, too. */
bool file_lies_beside(const char *path, const char *beside);

/* Makes `path` hold these bytes, or leaves it as it was: writes `path`.cifar-PROCESS.tmp beside it,
 * syncs it, renames it over `path` and syncs the folder. A link is followed to the file that it
 * names. A file that was there keeps its owner, its mode and its extended attributes as far as this
 * process may give them; what is written is never more open than that on the way.
 * Errors are STATUS_FAILURE; the temporary file is removed. */
bool file_replace(const char *path, const void *bytes, size_t size, struct error *error);

/* Syncs the folder that `path` lies in: only then is a rename there safe from a power cut. Where a
 * folder cannot be synced, nothing needs to be done. False: errno says why. */
bool file_sync_folder_of(const char *path);

/* Removes the temporary files that killed processes left of file_replace(path): a writer holds a
 * lock on its own while it lives, so no other's is touched. */
void file_clean(const char *path);

/* Whether file_replace(path) can be expected to work, found out by making and removing its
 * temporary file. `path` itself is not touched. The error says
 * what is wrong: a missing folder, no permission, a read-only file system, a folder or a device in
 * the place of the file, somebody else's file in a sticky folder. (Room for the bytes shows only
 * when they are written.) */
bool file_check_replaceable(const char *path, struct error *error);

/* The name under which file_keep() keeps what `path` held `number` (from 1) versions ago: that of
 * last.ckpt is last.1.ckpt, beside the file that a link names. Errors: STATUS_FAILURE: too long. */
bool file_kept_path(char kept[PATH_MAX], const char *path, int number, struct error *error);

/* Before file_replace(): keeps what `path` holds, and what was kept before, so that there are
 * `keep` versions in all afterwards; the oldest goes. If the replacement then fails, the next call
 * knows that this has been done. `path` itself is there all the time. Errors: STATUS_FAILURE. */
bool file_keep(const char *path, int keep, struct error *error);
