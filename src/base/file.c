#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
        return error_set(error, status, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(descriptor, &info) != 0) {
        int reason = errno;
        close(descriptor);
        return error_set(error, status, "%s: cannot be examined: %s", path, strerror(reason));
    }
    if (!S_ISREG(info.st_mode)) {
        close(descriptor);
        return error_set(error, status, "%s: is %s; a regular file is expected here", path,
                         kind_of(info.st_mode));
    }
    *file = (struct file){descriptor, path, (size_t)info.st_size, status};
    return true;
}

bool file_read(const struct file *file, uint8_t *bytes, struct error *error) {
    for (size_t at = 0; at < file->size;) {
        ssize_t got = read(file->descriptor, bytes + at, file->size - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, file->status, "%s: reading failed at byte %zu: %s", file->path,
                             at, strerror(errno));
        if (got == 0)
            return error_set(error, file->status,
                             "%s: ended at byte %zu, but had %zu bytes when it was opened: "
                             "something else is changing it",
                             file->path, at, file->size);
        at += (size_t)got;
    }
    return true;
}

void file_close(struct file *file) {
    close(file->descriptor);
    file->descriptor = -1;
}

/* The folder that a path's last part lies in. */
static void folder_of(char folder[PATH_MAX], const char *path) {
    snprintf(folder, PATH_MAX, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, PATH_MAX, ".");
    else
        slash[slash == folder ? 1 : 0] = '\0';
}

static bool same_inode(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool file_same(const char *a, const char *b) {
    char folder_a[PATH_MAX], folder_b[PATH_MAX];
    const char *name_a = strrchr(a, '/'), *name_b = strrchr(b, '/');
    if (same_inode(a, b))
        return true;
    folder_of(folder_a, a);
    folder_of(folder_b, b);
    return same_inode(folder_a, folder_b) &&
           strcmp(name_a ? name_a + 1 : a, name_b ? name_b + 1 : b) == 0;
}

/* How long the folder of a path is, with its slash. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash + 1 - path) : 0;
}

/* A link's file lies where it lies, not where the link does. */
static const char *follow_link(char real[PATH_MAX], const char *path) {
    struct stat info;
    const bool is_link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
    return is_link && realpath(path, real) != NULL ? real : path;
}

bool file_name_beside(char *name, size_t size, const char *path, const char *beside) {
    char real[PATH_MAX];
    beside = follow_link(real, beside);
    const size_t folder = folder_length(beside);
    char up[2 * PATH_MAX], from[PATH_MAX] = ".", own_folder[PATH_MAX], whole[PATH_MAX];
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
    if (common > 0)
        snprintf(from, sizeof from, "%.*s", (int)common, beside);
    if (beside[0] != '/' && same_inode(up, from))
        return (size_t)snprintf(name, size, "%s%s", up + folder, path + common) < size;
    folder_of(own_folder, path);
    if (realpath(own_folder, whole) == NULL)
        return false;
    return (size_t)snprintf(name, size, "%s/%s", whole, path + folder_length(path)) < size;
}

bool file_path_beside(char *path, size_t size, const char *name, const char *beside) {
    char real[PATH_MAX];
    beside = follow_link(real, beside);
    size_t folder = name[0] == '/' ? 0 : folder_length(beside);
    /* up from where it went down just before, without a link: neither needs to be said */
    while (strncmp(name, "../", 3) == 0 && folder > 0) {
        char down_and_up[2 * PATH_MAX], parent[PATH_MAX] = ".";
        size_t up = folder - 1;
        while (up > 0 && beside[up - 1] != '/')
            up--;
        snprintf(down_and_up, sizeof down_and_up, "%.*s..", (int)folder, beside);
        if (up > 0)
            snprintf(parent, sizeof parent, "%.*s", (int)up, beside);
        if (!same_inode(down_and_up, parent))
            break;
        folder = up;
        name += 3;
    }
    return (size_t)snprintf(path, size, "%.*s%s", (int)folder, beside, name) < size;
}

/* The file that `path` names, links followed, and the temporary file beside it. */
struct replacement {
    char target[PATH_MAX];
    char temporary[PATH_MAX + 32];
};

static bool replacement_begin(struct replacement *names, int *descriptor, const char *path,
                              struct error *error) {
    struct stat info;
    if (path[0] == '\0')
        return error_set(error, STATUS_FAILURE, "an empty name was given for a file to write");
    const bool there = stat(path, &info) == 0;
    const mode_t mode = there ? info.st_mode & 0777 : 0;
    if (there && !S_ISREG(info.st_mode))
        return error_set(error, STATUS_FAILURE,
                         "%s: is %s and will not be replaced; name a file to write", path,
                         kind_of(info.st_mode));
    if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode) && access(path, F_OK) != 0)
        return error_set(error, STATUS_FAILURE,
                         "%s: is a link that leads to no file: %s; remove it or make its file",
                         path, strerror(errno));
    if (realpath(path, names->target) == NULL) /* as a rule, because it does not exist yet */
        if (snprintf(names->target, sizeof names->target, "%s", path) >= PATH_MAX)
            return error_set(error, STATUS_FAILURE, "%.60s...: the name is longer than %d bytes",
                             path, PATH_MAX - 1);
    snprintf(names->temporary, sizeof names->temporary, "%s.%ld.tmp", names->target,
             (long)getpid());
    /* one of a killed process may lie there; a link that lies there is not followed */
    unlink(names->temporary);
    *descriptor = open(names->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (*descriptor < 0)
        return error_set(error, STATUS_FAILURE,
                         "%s: cannot be written: creating %s beside it failed: %s", path,
                         names->temporary, strerror(errno));
    if (there)
        fchmod(*descriptor, mode); /* a private file stays private, as far as that is possible */
    return true;
}

static bool write_all(int descriptor, const uint8_t *bytes, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t put = write(descriptor, bytes + at, size - at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        at += (size_t)put;
    }
    return true;
}

/* On a file system behind a network or a program, a signal can interrupt this, too. */
static bool sync_whole(int descriptor) {
    int result;
    do
        result = fsync(descriptor);
    while (result != 0 && errno == EINTR);
    return result == 0;
}

/* A rename is only safe from a power cut once its folder has been synced too. File systems that
 * cannot sync a folder answer EINVAL, and there is nothing more to do there. */
static bool sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    folder_of(folder, path);
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return errno == EACCES; /* a folder that may be written but not read */
    bool synced = sync_whole(descriptor) || errno == EINVAL;
    int reason = errno;
    close(descriptor);
    errno = reason;
    return synced;
}

bool file_replace(const char *path, const void *bytes, size_t size, struct error *error) {
    struct replacement names;
    int descriptor;
    if (!replacement_begin(&names, &descriptor, path, error))
        return false;
    bool written = write_all(descriptor, bytes, size) && sync_whole(descriptor);
    int reason = errno;
    if (close(descriptor) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written && rename(names.temporary, names.target) != 0) {
        written = false;
        reason = errno;
    }
    if (!written) {
        unlink(names.temporary);
        return error_set(error, STATUS_FAILURE,
                         "%s: could not be written (%zu bytes): %s; nothing has been changed", path,
                         size, strerror(reason));
    }
    if (!sync_folder_of(names.target))
        return error_set(error, STATUS_FAILURE,
                         "%s: was written, but its folder could not be synced: %s", path,
                         strerror(errno));
    return true;
}

/* Removes the temporary files of processes that are no more. */
static void remove_leftovers(const char *target) {
    char folder[PATH_MAX], leftover[2 * PATH_MAX];
    const char *slash = strrchr(target, '/'), *name = slash != NULL ? slash + 1 : target;
    const size_t length = strlen(name);
    folder_of(folder, target);
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        const char *rest = entry->d_name + length;
        char *end;
        if (strncmp(entry->d_name, name, length) != 0 || *rest++ != '.' || *rest < '1' ||
            *rest > '9')
            continue;
        const long process = strtol(rest, &end, 10);
        if (strcmp(end, ".tmp") == 0 && kill((pid_t)process, 0) != 0 && errno == ESRCH) {
            snprintf(leftover, sizeof leftover, "%s/%s", folder, entry->d_name);
            unlink(leftover);
        }
    }
    closedir(entries);
}

bool file_check_replaceable(const char *path, struct error *error) {
    struct replacement names;
    int descriptor;
    if (!replacement_begin(&names, &descriptor, path, error))
        return false;
    close(descriptor);
    unlink(names.temporary);
    remove_leftovers(names.target);
    return true;
}
