/* Preloaded into the program, makes its allocations fail, one a run, and all runs in one go: at an
 * allocation the program forks. The child gets no memory there, all that it asks for later, and
 * runs on to its end in a folder of its own; the program waits for that and goes on as if nothing
 * had happened.
 *
 * The folder is FAULT_RUNS/NUMBER, with the number of the allocation, from 1: the working folder as
 * it was then, which must hold plain files only, and, of the child, `out`, `err` and `status`: what
 * it printed and its exit status, or, if it was killed, 128 and the signal's number; SIGALRM where
 * it did not end in time. FAULT_RUNS/count tells how many allocations there were.
 *
 * Without FAULT_RUNS, the allocation with the number FAULT_AT fails in the program itself.
 *
 * The program must have one thread only. Allocations are those of all its libraries, libc among
 * them, except for mappings, such as the stacks of threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 20, DESCRIPTORS = 32 };

/* glibc's own, behind the names that are taken here */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool busy; /* the allocation is this file's own, or the child's after its fault */
static int number;

static void must(bool good, const char *what) {
    if (good)
        return;
    dprintf(STDERR_FILENO, "failing_memory: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void redirect(int to, const char *path, int flags, off_t offset) {
    const int descriptor = open(path, flags, 0666);
    must(descriptor >= 0 && lseek(descriptor, offset, SEEK_SET) == offset, path);
    must(dup2(descriptor, to) == to && close(descriptor) == 0, path);
}

/* Of the program's locks the child has its part, as ever after a fork. */
static bool is_lock(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL && (strcmp(dot, ".lock") == 0 || strcmp(dot, ".lock (deleted)") == 0);
}

/* Makes a file of the working folder the same in another. Checkpoints and pictures are replaced
 * when they change, never written into, so one file can stand in both. */
static void take_file(const char *folder, const char *name) {
    char path[2 * PATH_MAX];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (strstr(name, ".jsonl") == NULL) {
        must(link(name, path) == 0, path);
        return;
    }
    const int from = open(name, O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    must(from >= 0 && to >= 0 && fstat(from, &info) == 0, path);
    must(sendfile(to, from, NULL, (size_t)info.st_size) == info.st_size, path);
    must(close(from) == 0 && close(to) == 0, path);
}

/* Moves the process into a folder that holds what its own does, its open files with it. */
static void move_to(const char *folder) {
    char before[PATH_MAX], link_name[64], target[PATH_MAX];
    DIR *entries = opendir(".");
    must(entries != NULL && getcwd(before, sizeof before) != NULL, "the working folder");
    must(mkdir(folder, 0777) == 0, folder);
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.' && !is_lock(entry->d_name))
            take_file(folder, entry->d_name);
    closedir(entries);
    must(chdir(folder) == 0, folder);
    const size_t length = strlen(before);
    for (int i = STDERR_FILENO + 1; i < DESCRIPTORS; i++) {
        snprintf(link_name, sizeof link_name, "/proc/self/fd/%d", i);
        const ssize_t size = readlink(link_name, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = '\0';
        if (size > (ssize_t)length && strncmp(target, before, length) == 0 &&
            target[length] == '/' && !is_lock(target))
            redirect(i, target + length + 1, fcntl(i, F_GETFL), lseek(i, 0, SEEK_CUR));
    }
    redirect(STDOUT_FILENO, "out", O_WRONLY | O_CREAT | O_APPEND, 0);
    redirect(STDERR_FILENO, "err", O_WRONLY | O_CREAT | O_APPEND, 0);
}

static void write_number(const char *path, int value) {
    const int descriptor = open(path, O_WRONLY | O_CREAT, 0666);
    must(descriptor >= 0 && dprintf(descriptor, "%d\n", value) > 0, path);
    close(descriptor);
}

/* At each allocation: whether it is to fail, here. */
static bool fails(void) {
    char folder[PATH_MAX];
    int status;
    const char *runs = getenv("FAULT_RUNS"), *at = getenv("FAULT_AT");
    if (!busy && at != NULL && ++number == strtol(at, NULL, 10)) {
        errno = ENOMEM;
        return true;
    }
    if (busy || runs == NULL)
        return false;
    busy = true;
    const int reason = errno;
    snprintf(folder, sizeof folder, "%s/%d", runs, ++number);
    /* not by fork(), which would change the thread's name of itself, by which glibc's locks know it
     */
    const pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    must(child >= 0, "clone");
    if (child == 0) {
        move_to(folder);
        alarm(SECONDS);
        errno = ENOMEM;
        return true;
    }
    must(waitpid(child, &status, 0) == child, "waitpid");
    strcat(folder, "/status");
    write_number(folder, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    errno = reason;
    busy = false;
    return false;
}

__attribute__((destructor)) static void note_count(void) {
    char path[PATH_MAX];
    if (busy || getenv("FAULT_RUNS") == NULL)
        return;
    busy = true;
    snprintf(path, sizeof path, "%s/count", getenv("FAULT_RUNS"));
    write_number(path, number);
}

void *malloc(size_t size) {
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return fails() ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    void *taken = fails() ? NULL : __libc_memalign(alignment, size);
    if (taken == NULL)
        return ENOMEM;
    *memory = taken;
    return 0;
}
