#include "base/lock.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The first line of a lock's file: what tells it from a file of the user's. */
static const char TITLE[] = "cifar lock\n";

static const char ENDING[] = ".lock";

bool lock_has_name(const char *path) {
    const size_t length = strlen(path), ending = strlen(ENDING);
    return length >= ending && strcmp(path + length - ending, ENDING) == 0;
}

static bool name_lock(char name[PATH_MAX], const char *path) {
    char target[PATH_MAX]; /* as long as the file is not there, its name must do */
    return snprintf(name, PATH_MAX, "%s%s", realpath(path, target) != NULL ? target : path,
                    ENDING) < PATH_MAX;
}

bool lock_is_held(const char *path) {
    char name[PATH_MAX];
    const int descriptor =
        name_lock(name, path) ? open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    const bool is =
        descriptor >= 0 && flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (descriptor >= 0)
        close(descriptor);
    return is;
}

/* Another user's may be for reading only. */
static int open_lock(const char *path) {
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    const int descriptor = open(path, O_RDWR | O_CREAT | flags, 0666);
    return descriptor >= 0 || errno != EACCES ? descriptor : open(path, O_RDONLY | flags);
}

static bool is_ours(int descriptor, char *text, size_t size) {
    const ssize_t length = pread(descriptor, text, size - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    return length == 0 || strncmp(text, TITLE, strlen(TITLE)) == 0;
}

/* `text` is what is in the lock's file, which may not have been written yet. */
static bool held(const char *path, char *text, struct error *error) {
    char who[1024] = "", *rest = text + (*text != '\0' ? strlen(TITLE) : 0);
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';) {
        const size_t used = strlen(who);
        snprintf(who + used, sizeof who - used, "%s%s", used > 0 ? ", " : "", line);
    }
    return error_set(error, STATUS_FAILURE,
                     "%s: is being written by another run (%s): wait for its end, stop it, or name "
                     "other files with --model, --last and --log",
                     path, who[0] != '\0' ? who : "which has just begun");
}

/* Where the file itself cannot be, either, there is nothing to be said of its lock. */
static bool none(struct lock *lock, const char *path, int reason) {
    const char *slash = strrchr(path, '/');
    if (reason == ENOENT || reason == ENOTDIR ||
        (reason == ENAMETOOLONG && strlen(slash != NULL ? slash + 1 : path) > NAME_MAX))
        return true;
    snprintf(lock->problem, sizeof lock->problem, "%s", strerror(reason));
    return true;
}

static bool foreign(const char *lock, const char *path, struct error *error) {
    return error_set(error, STATUS_FAILURE,
                     "%s: is no lock of this program, which needs that name while it writes %s; "
                     "give it another, or write to another file",
                     lock, path);
}

void lock_tell(const struct lock *lock, const char *mark) {
    char text[512], host[128] = "unknown", start[40];
    const time_t now = time(NULL);
    struct tm parts;
    if (lock->descriptor < 0)
        return;
    gethostname(host, sizeof host - 1);
    strftime(start, sizeof start, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    const int size = snprintf(text, sizeof text, "%shost %s\nprocess %ld\nstart %s\n%s%s%s", TITLE,
                              host, (long)getpid(), start, *mark != '\0' ? "run " : "", mark,
                              *mark != '\0' ? "\n" : "");
    /* without room on the disk it says nothing, and locks all the same */
    if (ftruncate(lock->descriptor, 0) == 0 &&
        pwrite(lock->descriptor, text, (size_t)size, 0) != size)
        ftruncate(lock->descriptor, 0);
}

bool lock_take(struct lock *lock, const char *path, struct error *error) {
    struct stat info;
    char text[512];
    *lock = (struct lock){.descriptor = -1};
    if ((stat(path, &info) == 0 && !S_ISREG(info.st_mode)) || !name_lock(lock->path, path))
        return true;
    for (;;) {
        const int descriptor = open_lock(lock->path);
        if (descriptor < 0 && (errno == ELOOP || errno == EISDIR))
            return foreign(lock->path, path, error);
        if (descriptor < 0)
            return none(lock, path, errno);
        const bool ours = is_ours(descriptor, text, sizeof text);
        const int reason = !ours ? 0 : flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        const bool writable = (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDWR;
        const bool named =
            file_is_at(descriptor, lock->path); /* else its holder has just removed it */
        /* another user's, whose process is no more, goes, or else it has to do */
        if (ours && reason == 0 && named && (writable || unlink(lock->path) != 0)) {
            lock->descriptor = descriptor;
            lock_tell(lock, "");
            return true;
        }
        if (reason == EWOULDBLOCK) /* its holder may have written since it was read */
            is_ours(descriptor, text, sizeof text);
        else if (reason != 0 && writable && text[0] == '\0') /* it was made for nothing */
            unlink(lock->path);
        close(descriptor);
        if (!ours)
            return foreign(lock->path, path, error);
        if (reason == EWOULDBLOCK)
            return held(path, text, error);
        if (reason != 0)
            return none(lock, path, reason);
    }
}

void lock_release(struct lock *lock) {
    if (lock->descriptor < 0)
        return;
    if (file_is_at(lock->descriptor, lock->path))
        unlink(
            lock->path); /* before it is given back, so that nobody locks a file without a name */
    close(lock->descriptor);
    lock->descriptor = -1;
}
