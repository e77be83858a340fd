/* Locks on files that are written for as long as a process lives, so that no second one does. */
#pragma once

#include "base/error.h"

#include <limits.h>

/* flock(2) on NAME.lock beside the file, which tells people, and whoever finds it locked, who holds
 * it. The system gives the lock back when its holder ends, however that comes about: what a killed
 * process leaves behind hinders nobody. */
struct lock {
    int descriptor;      /* below 0: nothing is locked */
    char path[PATH_MAX]; /* of the lock's file */
    char problem[256];   /* why nothing could be locked, in words; "": there was no need to */
};

/* Locks a file that may not be there yet, or answers at once that another process has:
 * STATUS_FAILURE with what that one says of itself. Where locking is not possible, or for what is
 * no regular file, nothing is locked, and that is no error. Nothing of another holder's is touched.
 */
bool lock_take(struct lock *lock, const char *path, struct error *error);

/* Whether another process has locked the file just now. For that instant nobody can take it. */
bool lock_is_held(const char *path);

/* Whether a file of that name could be taken for a lock. */
bool lock_has_name(const char *path);

/* Writes who holds it: host, process, since when, as lock_take() has done, and the mark of
 * the run that it is for (not known yet: ""). */
void lock_tell(const struct lock *lock, const char *mark);

/* Gives it back, and removes its file. */
void lock_release(struct lock *lock);
