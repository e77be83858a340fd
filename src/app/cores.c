#include "app/cores.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Up to two numbers at the beginning of a file; those that are not there stay as they are. */
static void read_numbers(const char *folder, const char *name, double *first, double *second) {
    char path[2 * PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return;
    if (fscanf(file, "%lf %lf", first, second) < 1)
        *first = 0; /* "max" */
    fclose(file);
}

/* How many cores' time the group in a folder may take. */
static double quota_of(const char *folder) {
    double quota = 0, period = 0, none;
    read_numbers(folder, "cpu.max", &quota, &period); /* v2 */
    read_numbers(folder, "cpu.cfs_quota_us", &quota, &none);
    read_numbers(folder, "cpu.cfs_period_us", &period, &none);
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The least quota of the group `path` and those above it, up to where they are mounted. That is all
 * there is of them in a container, where the path may be the one outside. */
static double least_quota(const char *root, const char *mount, const char *path) {
    char folder[2 * PATH_MAX];
    double least = INFINITY;
    for (int length = (int)strlen(path); length >= 0; length--) {
        if (path[length] != '/' && path[length] != '\0')
            continue;
        snprintf(folder, sizeof folder, "%s/sys/fs/cgroup/%s%.*s", root, mount, length, path);
        least = fmin(least, quota_of(folder));
    }
    return least;
}

static double least_quota_of_all(const char *root) {
    char line[PATH_MAX + 256];
    double least = INFINITY;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        /* NUMBER:CONTROLLERS:PATH, and no controllers for v2 */
        char *path = line, padded[sizeof line + 2];
        strsep(&path, ":");
        const char *controllers = strsep(&path, ":");
        if (path == NULL)
            continue;
        path[strcspn(path, "\n")] = '\0';
        snprintf(padded, sizeof padded, ",%s,", controllers);
        if (controllers[0] != '\0' && strstr(padded, ",cpu,") == NULL)
            continue;
        least = fmin(least, least_quota(root, controllers, path));
        least = fmin(least, least_quota(root, controllers[0] != '\0' ? "cpu" : "unified", path));
    }
    if (file != NULL)
        fclose(file);
    return least;
}

int64_t cores_count(const char *root) {
    cpu_set_t set;
    const int64_t cores = sched_getaffinity(0, sizeof set, &set) == 0
                              ? CPU_COUNT(&set)
                              : sysconf(_SC_NPROCESSORS_ONLN);
    const double quota = ceil(least_quota_of_all(root));
    return quota < (double)cores ? (int64_t)fmax(quota, 1) : cores;
}
