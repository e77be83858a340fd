/* Preloaded into the program, makes writing a file fail, or ends the program, exactly where a test
 * wants it. Counts the calls that save checkpoints: open, write, fsync and close of a temporary
 * file, rename of it, and open, fsync and close of its folder. In the environment:
 *
 *     FAULT_FILES   a pattern, as of the shell, of other files and folders to watch in place of all
 *                   these; what makes, locks, exchanges and removes folders is counted, too
 *     FAULT_NO_EXCHANGE  if set, no two names can be exchanged, as on some file systems
 *     FAULT_TRACE   a file to which each call counted adds a line: "NUMBER CALL PATH"
 *     FAULT_AT      the number of the call, from 1, at which the fault begins; 0: none
 *     FAULT_FOR     calls that it is to last; else 1
 *     FAULT         what happens:
 *         fail      the call fails with FAULT_ERRNO, such as EIO, and nothing has been done (except
 *                   for a close, after which nobody may use the descriptor)
 *         short     the same, but the first call, if it is a write, writes half of the bytes
 *         before    the program is killed in place of the call
 *         after     the program is killed when the call has been done
 *         hold      the call waits, until the file FAULT_HOLD, which it makes, has been removed
 *
 *     FAULT_FLOCK   the errno, such as ENOLCK, with which each flock() fails
 *
 * The program writes files in one thread only, and so much is assumed here. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024 };
static char *paths[DESCRIPTORS]; /* of the files that are watched */
static long calls, first, last;  /* counted; those that the fault is for */

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

static bool fault_is(const char *what) {
    return strcmp(setting("FAULT", ""), what) == 0;
}

static const char *path_of(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS ? paths[descriptor] : NULL;
}

static bool is_watched(const char *path, int flags) {
    const char *files = getenv("FAULT_FILES");
    if (files == NULL && (flags & O_DIRECTORY) == O_DIRECTORY)
        return true; /* what opens a folder so is about to sync it */
    return fnmatch(files != NULL ? files : "*.ckpt.*.tmp", path, 0) == 0;
}

static void trace(const char *call, const char *path) {
    char line[PATH_MAX + 64];
    const char *file = getenv("FAULT_TRACE");
    if (file == NULL)
        return;
    const int size = snprintf(line, sizeof line, "%ld %s %s\n", calls, call, path);
    const int descriptor = openat(AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (syscall(SYS_write, descriptor, line, size) != size)
        abort();
    syscall(SYS_close, descriptor);
}

static void hold(void) {
    const char *file = setting("FAULT_HOLD", "held");
    syscall(SYS_close, openat(AT_FDCWD, file, O_WRONLY | O_CREAT, 0666));
    while (access(file, F_OK) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void set_errno(const char *name) {
    const char *found;
    for (errno = 1; (found = strerrorname_np(errno)) == NULL || strcmp(found, name) != 0;)
        if (errno++ == 200)
            abort();
}

/* Before each call that is counted: whether it is to fail, with errno set. */
static bool fails(const char *call, const char *path) {
    first = strtol(setting("FAULT_AT", "0"), NULL, 10);
    last = first + strtol(setting("FAULT_FOR", "1"), NULL, 10) - 1;
    calls++;
    trace(call, path);
    if (first == 0 || calls < first || calls > last)
        return false;
    if (fault_is("before"))
        raise(SIGKILL);
    if (fault_is("hold"))
        hold();
    if (!fault_is("fail") && !fault_is("short"))
        return false;
    set_errno(setting("FAULT_ERRNO", "EIO"));
    return true;
}

/* After each that did not fail. */
static void done(void) {
    if (calls == first && fault_is("after"))
        raise(SIGKILL);
}

/* Most calls do nothing else before or after. */
#define COUNTED(call, watched, path, ...)                                                          \
    do {                                                                                           \
        const bool counted = watched;                                                              \
        if (counted && fails(call, path))                                                          \
            return -1;                                                                             \
        const int result = (int)syscall(__VA_ARGS__);                                              \
        if (counted)                                                                               \
            done();                                                                                \
        return result;                                                                             \
    } while (false)

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const int mode = flags & O_CREAT ? va_arg(more, int) : 0;
    va_end(more);
    const bool watched = is_watched(path, flags);
    if (watched && fails("open", path))
        return -1;
    const int descriptor = openat(AT_FDCWD, path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS) {
        free(paths[descriptor]); /* closedir() closes unseen */
        paths[descriptor] = watched ? strdup(path) : NULL;
    }
    if (watched)
        done();
    return descriptor;
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    const char *path = path_of(descriptor);
    if (path != NULL && fails("write", path)) {
        if (!fault_is("short") || calls != first)
            return -1;
        size /= 2;
    }
    const ssize_t put = syscall(SYS_write, descriptor, bytes, size);
    if (path != NULL)
        done();
    return put;
}

int fsync(int descriptor) {
    const char *path = path_of(descriptor);
    COUNTED("fsync", path != NULL, path, SYS_fsync, descriptor);
}

int close(int descriptor) {
    char *path = descriptor >= 0 && descriptor < DESCRIPTORS ? paths[descriptor] : NULL;
    const bool failed = path != NULL && fails("close", path);
    const int reason = errno;
    const int result = (int)syscall(SYS_close, descriptor);
    if (path == NULL)
        return result;
    paths[descriptor] = NULL;
    free(path);
    done();
    if (failed)
        errno = reason;
    return failed ? -1 : result;
}

int rename(const char *from, const char *to) {
    COUNTED("rename", is_watched(from, 0), from, SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int mkdir(const char *path, mode_t mode) {
    COUNTED("mkdir", is_watched(path, 0), path, SYS_mkdirat, AT_FDCWD, path, mode);
}

int rmdir(const char *path) {
    COUNTED("rmdir", is_watched(path, 0), path, SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int unlinkat(int descriptor, const char *name, int flags) {
    char path[2 * PATH_MAX];
    const char *folder = path_of(descriptor);
    snprintf(path, sizeof path, "%s/%s", folder != NULL ? folder : "?", name);
    COUNTED("unlinkat", is_watched(path, 0), path, SYS_unlinkat, descriptor, name, flags);
}

int flock(int descriptor, int operation) {
    const char *reason = getenv("FAULT_FLOCK");
    if (reason != NULL) {
        set_errno(reason);
        return -1;
    }
    if (getenv("FAULT_FILES") == NULL) /* no save fails for want of a lock */
        return (int)syscall(SYS_flock, descriptor, operation);
    const char *path = path_of(descriptor);
    COUNTED("flock", path != NULL, path, SYS_flock, descriptor, operation);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    if (getenv("FAULT_NO_EXCHANGE") != NULL) {
        errno = EINVAL;
        return -1;
    }
    COUNTED("exchange", is_watched(from, 0), from, SYS_renameat2, from_folder, from, to_folder, to,
            flags);
}
