#include "base/file.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The error of a file that is written. */
#define refuse(error, path, ...) error_set_file(error, STATUS_FAILURE, path, __VA_ARGS__)

/* What a path is when it is not the regular file that was expected. */
static const char *kind_of(mode_t mode) {
    if (S_ISDIR(mode))
        return "a folder";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "a device";
    if (S_ISFIFO(mode))
        return "a pipe";
    return "a socket";
}

bool file_open(struct file *file, const char *path, enum status status, struct error *error) {
    struct stat info;
    /* O_NONBLOCK: opening a pipe that nobody writes to would wait forever. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return error_set_file(error, status, path, "cannot be opened: %s", strerror(errno));
    if (fstat(descriptor, &info) != 0) {
        int reason = errno;
        close(descriptor);
        return error_set_file(error, status, path, "cannot be examined: %s", strerror(reason));
    }
    if (!S_ISREG(info.st_mode)) {
        close(descriptor);
        return error_set_file(error, status, path, "is %s; a regular file is expected here",
                              kind_of(info.st_mode));
    }
    *file = (struct file){descriptor, path, (size_t)info.st_size, status};
    return true;
}

bool file_read(const struct file *file, uint8_t *bytes, size_t size, struct error *error) {
    for (size_t at = 0; at < size;) {
        const ssize_t got = TEMP_FAILURE_RETRY(read(file->descriptor, bytes + at, size - at));
        if (got < 0)
            return error_set_file(error, file->status, file->path, "reading failed at byte %zu: %s",
                                  at, strerror(errno));
        if (got == 0)
            return error_set_file(error, file->status, file->path,
                                  "ended at byte %zu, but had %zu bytes when it was opened: "
                                  "something else is changing it",
                                  at, file->size);
        at += (size_t)got;
    }
    return true;
}

void file_close(struct file *file) {
    close(file->descriptor);
    file->descriptor = -1;
}

/* How long the folder of a path is, with its slash. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash + 1 - path) : 0;
}

/* The folder that a path's last part lies in. */
static void folder_of(char folder[PATH_MAX], const char *path) {
    const size_t length = folder_length(path);
    snprintf(folder, PATH_MAX, "%.*s", length > 1 ? (int)length - 1 : 1, length > 0 ? path : ".");
}

static bool same_inode(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool file_is_at(int descriptor, const char *path) {
    struct stat opened, named;
    return fstat(descriptor, &opened) == 0 && stat(path, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

bool file_same(const char *a, const char *b) {
    char folder_a[PATH_MAX], folder_b[PATH_MAX];
    folder_of(folder_a, a);
    folder_of(folder_b, b);
    return same_inode(a, b) || (same_inode(folder_a, folder_b) &&
                                strcmp(a + folder_length(a), b + folder_length(b)) == 0);
}

bool file_is_dangling(const char *path, struct error *error) {
    struct stat info;
    return lstat(path, &info) == 0 && S_ISLNK(info.st_mode) && access(path, F_OK) != 0 &&
           !refuse(error, path, "is a link that leads to no file: %s; remove it or make its file",
                   strerror(errno));
}

/* A link's file lies where it lies, not where the link does. */
static const char *follow_link(char real[PATH_MAX], const char *path) {
    struct stat info;
    const bool is_link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
    return is_link && realpath(path, real) != NULL ? real : path;
}

bool file_name_beside(char *name, size_t size, const char *path, const char *beside) {
    char real[PATH_MAX], up[2 * PATH_MAX], shared[PATH_MAX], own[PATH_MAX], whole[PATH_MAX];
    beside = follow_link(real, beside);
    const size_t folder = folder_length(beside);
    size_t common = 0; /* how long the folder is that both are in */
    for (size_t i = 0; i < folder && path[i] == beside[i]; i++)
        common = path[i] == '/' ? i + 1 : common;
    if (common == folder)
        return (size_t)snprintf(name, size, "%s", path[common] != '\0' ? path + common : ".") <
               size;
    if (path[0] == '/')
        return (size_t)snprintf(name, size, "%s", path) < size;
    /* up from the folder as often as it goes down from there, if that leads back */
    size_t end = (size_t)snprintf(up, sizeof up, "%.*s", (int)folder, beside);
    for (size_t i = common; i < folder && end + 4 < sizeof up; i++)
        if (beside[i] == '/')
            end += (size_t)snprintf(up + end, sizeof up - end, "../");
    snprintf(shared, sizeof shared, "%.*s", common > 0 ? (int)common : 1,
             common > 0 ? beside : ".");
    if (beside[0] != '/' && same_inode(up, shared))
        return (size_t)snprintf(name, size, "%s%s", up + folder, path + common) < size;
    folder_of(own, path);
    return realpath(own, whole) != NULL &&
           (size_t)snprintf(name, size, "%s/%s", whole, path + folder_length(path)) < size;
}

bool file_path_beside(char *path, size_t size, const char *name, const char *beside) {
    char real[PATH_MAX];
    beside = follow_link(real, beside);
    size_t folder = name[0] == '/' ? 0 : folder_length(beside);
    /* up from where it went down just before, without a link: neither needs to be said */
    while (strncmp(name, "../", 3) == 0 && folder > 0) {
        char down[PATH_MAX], up[PATH_MAX + 4], parent[PATH_MAX];
        snprintf(down, sizeof down, "%.*s", (int)folder - 1, beside);
        snprintf(up, sizeof up, "%s/..", down);
        folder_of(parent, down);
        if (!same_inode(up, parent))
            break;
        folder = folder_length(down);
        name += 3;
    }
    return (size_t)snprintf(path, size, "%.*s%s", (int)folder, beside, name) < size;
}

bool file_lies_beside(const char *path, const char *beside) {
    char folder[PATH_MAX], target[PATH_MAX], real[PATH_MAX];
    struct stat info;
    const bool there = stat(path, &info) == 0;
    if (there ? !S_ISREG(info.st_mode) : lstat(path, &info) == 0)
        return false;
    folder_of(folder, follow_link(real, beside));
    if (realpath(folder, real) == NULL)
        return false;
    folder_of(folder, path); /* of a new file */
    if (realpath(there ? path : folder, target) == NULL)
        return false;
    const size_t length = strcmp(real, "/") == 0 ? 0 : strlen(real);
    return strncmp(target, real, length) == 0 && (target[length] == '/' || target[length] == '\0');
}

/* The file that `path` names, links followed. */
static bool find_target(char target[PATH_MAX], const char *path, struct error *error) {
    if (realpath(path, target) != NULL)
        return true;
    /* as a rule, because it does not exist yet */
    return snprintf(target, PATH_MAX, "%s", path) < PATH_MAX ||
           error_set(error, STATUS_FAILURE, "%.60s...: the name is longer than %d bytes", path,
                     PATH_MAX - 1);
}

/* ---- temporary files: NAME.cifar-PROCESS.tmp, locked by whoever writes it ---- */

enum { TEMPORARY = PATH_MAX + 32 };

static bool is_leftover(const char *entry, const char *name, const char *ending) {
    const size_t length = strlen(name);
    if (strncmp(entry, name, length) != 0 || strncmp(entry + length, ".cifar-", 7) != 0)
        return false;
    const char *number = entry + length + 7;
    const size_t digits = strspn(number, "0123456789");
    return digits > 0 && number[0] != '0' && strcmp(number + digits, ending) == 0;
}

/* Removes a temporary file that nobody writes any more. Process numbers do not tell: the writer may
 * live in another container, or on another machine. */
static void remove_dead(const char *temporary, const void *unused) {
    struct stat info;
    (void)unused;
    if (lstat(temporary, &info) == 0 && !S_ISREG(info.st_mode)) {
        unlink(temporary); /* something planted, a link say: none of ours is one */
        return;
    }
    const int descriptor = open(temporary, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0)
        return;
    if (flock(descriptor, LOCK_EX | LOCK_NB) == 0 && file_is_at(descriptor, temporary))
        unlink(temporary);
    close(descriptor);
}

void file_remove_leftovers(const char *target, const char *ending,
                           void (*remove_one)(const char *path, const void *context),
                           const void *context) {
    char folder[PATH_MAX], leftover[2 * PATH_MAX];
    const char *name = target + folder_length(target);
    folder_of(folder, target);
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (is_leftover(entry->d_name, name, ending)) {
            snprintf(leftover, sizeof leftover, "%s/%s", folder, entry->d_name);
            remove_one(leftover, context);
        }
    closedir(entries);
}

/* ---- what a new file takes over from the one in whose place it comes ---- */

static void copy_attributes(int to, const char *from) {
    static const char ACL[] = "system.posix_acl_access"; /* the folder may have given it one */
    char names[4096], value[4096];
    if (getxattr(from, ACL, NULL, 0) < 0)
        fremovexattr(to, ACL);
    const ssize_t size = listxattr(from, names, sizeof names);
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1) {
        const ssize_t length = getxattr(from, names + at, value, sizeof value);
        if (length >= 0)
            fsetxattr(to, names + at, value, (size_t)length, 0);
    }
}

/* Owner, extended attributes (ACLs are some) and mode, as far as this process may give them. */
static void take_over(int to, const char *from, const struct stat *before) {
    mode_t mode = before->st_mode & 0777;
    if (fchown(to, before->st_uid, before->st_gid) != 0 &&
        fchown(to, (uid_t)-1, before->st_gid) != 0)
        mode &= 0707 | (mode & 07) << 3; /* to another group it gives what it gives to all */
    copy_attributes(to, from);
    fchmod(to, mode);
}

/* In a sticky folder, /tmp say, a file is replaced by its owner or the folder's only. */
static bool may_replace(const char *target, const struct stat *file) {
    char folder[PATH_MAX];
    struct stat info;
    const uid_t user = geteuid();
    folder_of(folder, target);
    return user == 0 || user == file->st_uid || stat(folder, &info) != 0 ||
           !(info.st_mode & S_ISVTX) || user == info.st_uid;
}

struct replacement {
    char target[PATH_MAX];
    char temporary[TEMPORARY];
    int descriptor; /* of the temporary file */
};

static bool replacement_begin(struct replacement *r, const char *path, struct error *error) {
    struct stat info;
    if (path[0] == '\0')
        return error_set(error, STATUS_FAILURE, "an empty name was given for a file to write");
    const bool there = stat(path, &info) == 0;
    if (there && !S_ISREG(info.st_mode))
        return refuse(error, path, "is %s and will not be replaced; name a file to write",
                      kind_of(info.st_mode));
    if (!there && file_is_dangling(path, error))
        return false;
    if (!find_target(r->target, path, error))
        return false;
    if (there && !may_replace(r->target, &info))
        return refuse(error, path,
                      "cannot be replaced: it is somebody else's, in a folder where files are "
                      "replaced by their owners only (sticky); name another");
    snprintf(r->temporary, sizeof r->temporary, "%s.cifar-%ld.tmp", r->target, (long)getpid());
    /* never more open than the file in whose place it comes */
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode = there ? 0600 : 0666;
    r->descriptor = open(r->temporary, flags, mode);
    if (r->descriptor < 0 && errno == EEXIST) {
        remove_dead(r->temporary, NULL);
        r->descriptor = open(r->temporary, flags, mode);
    }
    if (r->descriptor < 0)
        return refuse(error, path, "cannot be written: creating %s beside it failed: %s",
                      r->temporary, strerror(errno));
    flock(r->descriptor, LOCK_EX | LOCK_NB);
    if (there)
        take_over(r->descriptor, r->target, &info);
    return true;
}

static bool write_all(int descriptor, const uint8_t *bytes, size_t size) {
    for (size_t at = 0; at < size;) {
        const ssize_t put = TEMP_FAILURE_RETRY(write(descriptor, bytes + at, size - at));
        if (put < 0)
            return false;
        at += (size_t)put;
    }
    return true;
}

/* On a file system behind a network or a program, a signal can interrupt this, too. */
static bool sync_whole(int descriptor) {
    return TEMP_FAILURE_RETRY(fsync(descriptor)) == 0;
}

bool file_sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    folder_of(folder, path);
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return errno == EACCES; /* a folder that may be written but not read */
    bool synced = sync_whole(descriptor) || errno == EINVAL; /* a folder cannot be, there */
    int reason = errno;
    close(descriptor);
    errno = reason;
    return synced;
}

bool file_replace(const char *path, const void *bytes, size_t size, struct error *error) {
    struct replacement r;
    if (!replacement_begin(&r, path, error))
        return false;
    const int lock = fcntl(r.descriptor, F_DUPFD_CLOEXEC, 0); /* until it has its name */
    bool written = write_all(r.descriptor, bytes, size) && sync_whole(r.descriptor);
    int reason = errno;
    const bool closed = close(r.descriptor) == 0;
    if (written) {
        written = closed && rename(r.temporary, r.target) == 0;
        reason = errno;
    }
    if (lock >= 0)
        close(lock);
    if (!written) {
        unlink(r.temporary);
        return refuse(error, path, "could not be written (%zu bytes): %s; nothing has been changed",
                      size, strerror(reason));
    }
    if (!file_sync_folder_of(r.target))
        return refuse(error, path, "was written, but its folder could not be synced: %s",
                      strerror(errno));
    return true;
}

/* ---- files that are kept for some time longer ---- */

bool file_kept_path(char kept[PATH_MAX], const char *path, int number, struct error *error) {
    char target[PATH_MAX];
    if (!find_target(target, path, error))
        return false;
    const char *name = target + folder_length(target), *dot = strrchr(name, '.');
    const int stem = (int)((dot != NULL && dot > name ? dot : target + strlen(target)) - target);
    return snprintf(kept, PATH_MAX, "%.*s.%d%s", stem, target, number, target + stem) < PATH_MAX ||
           error_set(error, STATUS_FAILURE, "%.60s...: the name is too long to be kept", path);
}

/* Reads a whole file into `*bytes`, which is to be freed. */
static bool read_whole(const char *path, uint8_t **bytes, size_t *size, struct error *error) {
    struct file file;
    if (!file_open(&file, path, STATUS_FAILURE, error))
        return false;
    *bytes = memory_new(file.size, 1);
    *size = file.size;
    const bool good = file_read(&file, *bytes, file.size, error);
    file_close(&file);
    if (!good)
        free(*bytes);
    return good;
}

/* Gives the file a second name, in the place of what has that. Where there are no second names for
 * files, or not for this one, a copy has to do. */
static bool name_again(const char *target, const char *kept, struct error *error) {
    char temporary[TEMPORARY];
    uint8_t *bytes;
    size_t size;
    snprintf(temporary, sizeof temporary, "%s.cifar-%ld.tmp", kept, (long)getpid());
    remove_dead(temporary, NULL);
    const bool linked = link(target, temporary) == 0;
    const bool named = linked && rename(temporary, kept) == 0;
    if (linked)
        unlink(temporary); /* it is still there if both names were the same file's already */
    if (named)
        return true;
    if (!read_whole(target, &bytes, &size, error))
        return false;
    const bool good = file_replace(kept, bytes, size, error);
    free(bytes);
    return good;
}

/* Gives every kept file from `number` on the next number, up to the first that is not there. */
static bool make_room(const char *path, int number, int keep, struct error *error) {
    char kept[PATH_MAX], older[PATH_MAX];
    if (!file_kept_path(kept, path, number, error))
        return false;
    if (number == keep - 1 || access(kept, F_OK) != 0)
        return true;
    return file_kept_path(older, path, number + 1, error) &&
           make_room(path, number + 1, keep, error) &&
           (rename(kept, older) == 0 ||
            refuse(error, kept, "could not be kept as %s: %s", older, strerror(errno)));
}

bool file_keep(const char *path, int keep, struct error *error) {
    char target[PATH_MAX], kept[PATH_MAX];
    if (keep <= 1 || access(path, F_OK) != 0)
        return true;
    if (!find_target(target, path, error) || !file_kept_path(kept, path, 1, error))
        return false;
    return same_inode(target, kept) || /* kept by somebody who did not live to replace it */
           (make_room(path, 1, keep, error) && name_again(target, kept, error));
}

bool file_check_replaceable(const char *path, struct error *error) {
    struct replacement r;
    if (!replacement_begin(&r, path, error))
        return false;
    close(r.descriptor);
    unlink(r.temporary);
    return true;
}

void file_clean(const char *path) {
    char target[PATH_MAX];
    struct error error;
    if (find_target(target, path, &error))
        file_remove_leftovers(target, ".tmp", remove_dead, NULL);
}
