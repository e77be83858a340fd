#include "base/folder.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The error of a folder that is written. */
#define refuse(error, path, ...) error_set_file(error, STATUS_FAILURE, path, __VA_ARGS__)

/* A folder that is to take the place of `target`. */
struct replacement {
    char target[PATH_MAX];         /* links followed */
    char temporary[PATH_MAX + 32]; /* until then */
    char aside[PATH_MAX + 32];     /* where the old one goes if the two cannot be exchanged */
    const char *old;               /* where it is afterwards */
    int descriptor;                /* of the new one, locked */
    folder_owns *owns;
    bool there;       /* an old one is, */
    struct stat info; /* with that owner and mode */
};

/* Whether nothing but files that `owns` knows, or their temporary ones, is in an open folder. */
static bool is_own(DIR *entries, folder_owns *owns) {
    bool own = true;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char *end = strstr(entry->d_name, ".cifar-");
        if (end != NULL)
            *end = '\0';
        own = own && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                      owns(entry->d_name));
    }
    rewinddir(entries);
    return own;
}

/* Removes a folder of files; or, given `owns`, only if it is of its files and abandoned, which it
 * is not while its maker lives. That it is not there is as good: another process may be removing
 * it, too. */
static bool remove_folder(const char *path, folder_owns *owns) {
    const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0)
        return errno == ENOENT;
    /* between opening and locking its maker may have given it its place and ended */
    const bool may =
        owns == NULL || (flock(descriptor, LOCK_EX | LOCK_NB) == 0 && file_is_at(descriptor, path));
    DIR *entries = may ? fdopendir(descriptor) : NULL;
    if (entries == NULL) {
        close(descriptor);
        return false;
    }
    if (owns != NULL && !is_own(entries, owns)) {
        closedir(entries);
        return false;
    }
    int reason = 0;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(descriptor, entry->d_name, 0) != 0 && errno != ENOENT)
            reason = errno;
    if (reason == 0 && rmdir(path) != 0 && errno != ENOENT)
        reason = errno;
    closedir(entries);
    errno = reason;
    return reason == 0;
}

static void remove_abandoned(const char *path, const void *context) {
    const struct replacement *r = context;
    remove_folder(path, r->owns);
}

/* Makes and locks the new folder. Before the lock is there, another process may take it for
 * abandoned and remove it. */
static bool make_locked(struct replacement *r) {
    while (mkdir(r->temporary, 0777) == 0) {
        r->descriptor = open(r->temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (r->descriptor < 0 && errno != ENOENT) {
            const int reason = errno;
            rmdir(r->temporary);
            errno = reason;
            return false;
        }
        if (r->descriptor >= 0) {
            flock(r->descriptor, LOCK_EX); /* a file system that cannot will not give it away */
            if (file_is_at(r->descriptor, r->temporary))
                return true;
            close(r->descriptor);
        }
    }
    return false;
}

/* What forbids that a folder is replaced, if anything does. */
static const char *obstacle(const char *target, const struct stat *info) {
    struct statx more;
    if (!S_ISDIR(info->st_mode))
        return "no folder";
    if (file_same(target, "."))
        return "the working folder";
    if (statx(AT_FDCWD, target, 0, 0, &more) == 0 &&
        (more.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
        return "a mount point";
    return NULL;
}

static bool replacement_begin(struct replacement *r, const char *path, folder_owns *owns,
                              struct error *error) {
    r->owns = owns;
    r->there = realpath(path, r->target) != NULL && stat(r->target, &r->info) == 0;
    if (!r->there && errno != ENOENT)
        return refuse(error, path, "the folder cannot be made: %s", strerror(errno));
    if (!r->there) {
        /* if it is a folder by now, another has put it there, and it is replaced like any other */
        if (lstat(path, &r->info) == 0 && S_ISLNK(r->info.st_mode))
            return refuse(error, path,
                          "is a link that leads to no folder; remove it or make its folder");
        size_t length = strlen(path);
        while (length > 1 && path[length - 1] == '/')
            length--;
        snprintf(r->target, sizeof r->target, "%.*s", (int)length, path);
    } else {
        const char *what = obstacle(r->target, &r->info);
        if (what != NULL)
            return refuse(error, path, "is %s and cannot be replaced; name another folder", what);
        /* if it is gone by now, another has moved it aside, and puts its own there */
        if (access(r->target, R_OK | W_OK | X_OK) != 0 && errno != ENOENT)
            return refuse(error, path, "the folder cannot be replaced: %s", strerror(errno));
    }
    snprintf(r->temporary, sizeof r->temporary, "%s.cifar-%ld.tmp", r->target, (long)getpid());
    snprintf(r->aside, sizeof r->aside, "%s.cifar-%ld.old", r->target, (long)getpid());
    r->old = r->temporary;
    file_remove_leftovers(r->target, ".tmp", remove_abandoned, r);
    return make_locked(r) ||
           refuse(error, path, "cannot be written: creating %s beside it failed: %s", r->temporary,
                  strerror(errno));
}

/* What was somebody's stays so, as far as this process may give it to him. */
static void take_over(const struct replacement *r) {
    const uid_t user = r->info.st_uid;
    const gid_t group = r->info.st_gid;
    DIR *entries = r->there ? opendir(r->temporary) : NULL;
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, "..") != 0) /* . is the folder itself */
            fchownat(r->descriptor, entry->d_name, user, group, AT_SYMLINK_NOFOLLOW);
    closedir(entries);
    fchmod(r->descriptor, r->info.st_mode & 07777);
}

static void replacement_end(struct replacement *r) {
    remove_folder(r->temporary, NULL);
    close(r->descriptor);
}

static bool move_aside(struct replacement *r) {
    if (!remove_folder(r->aside, NULL) || rename(r->target, r->aside) != 0)
        return false;
    r->old = r->aside;
    return true;
}

/* Others may be putting theirs there meanwhile: each time it is looked at anew. */
static bool put_in_place(struct replacement *r) {
    while (rename(r->temporary, r->target) != 0) { /* done where nothing is, or an empty folder */
        if (errno == ENOTEMPTY || errno == EEXIST) {
            if (renameat2(AT_FDCWD, r->temporary, AT_FDCWD, r->target, RENAME_EXCHANGE) == 0)
                return true;
            if ((errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) && move_aside(r))
                continue;
            if (errno == ENOENT) /* another has just moved it aside */
                continue;
        }
        const int reason = errno;
        if (r->old == r->aside)
            rename(r->aside, r->target);
        errno = reason;
        return false;
    }
    return true;
}

bool folder_replace(const char *path, folder_owns *owns, folder_fill *fill, void *context,
                    struct error *error) {
    struct replacement r;
    if (!replacement_begin(&r, path, owns, error))
        return false;
    bool good = fill(context, r.temporary, error);
    take_over(&r);
    if (good && !put_in_place(&r))
        good = refuse(
            error, path,
            "the folder could not be replaced: %s; nothing has been changed; name another folder",
            strerror(errno));
    if (!good) {
        replacement_end(&r);
        return false;
    }
    if (!file_sync_folder_of(r.target))
        good =
            refuse(error, path, "was written, but the folder that it is in could not be synced: %s",
                   strerror(errno));
    if (!remove_folder(r.old, NULL))
        good = refuse(error, path,
                      "was written, but what was there before, now %s, could not be removed: %s",
                      r.old, strerror(errno));
    file_remove_leftovers(r.target, ".old", remove_abandoned, &r);
    close(r.descriptor);
    return good;
}

bool folder_check_replaceable(const char *path, folder_owns *owns, struct error *error) {
    struct replacement r;
    if (!replacement_begin(&r, path, owns, error))
        return false;
    replacement_end(&r);
    return true;
}
