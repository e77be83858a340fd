#include "app/data_set.h"

#include "base/file.h"
#include "base/folder.h"
#include "data/synth.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_file_of_set(int folder, const char *name) {
    struct stat info;
    return cifar10_is_name(name) && fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(info.st_mode);
}

/* Whether nothing is lost with a folder: it is not there, it is empty, or it holds files of a data
 * set that this program drew and nothing else. */
static bool may_replace(const char *folder, struct error *error) {
    char found[4096], other[NAME_MAX + 1] = ""; /* a file that is none of a data set */
    struct cifar10_names names;
    struct error nothing;
    bool empty = true;
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return errno == ENOENT || errno == ENOTDIR || /* folder_replace() will have a word on it */
               error_set(error, STATUS_FAILURE, "%s: the folder cannot be read: %s", folder,
                         strerror(errno));
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        empty = false;
        if (!is_file_of_set(dirfd(entries), entry->d_name))
            snprintf(other, sizeof other, "%s", entry->d_name);
    }
    const bool set = cifar10_find(found, folder, &nothing);
    const bool drawn =
        cifar10_load_names(&names, set ? found : folder, &nothing) && synth_has_names(&names);
    const bool replaced = !file_is_at(dirfd(entries), folder); /* by another process, meanwhile */
    closedir(entries);
    if (replaced)
        return may_replace(folder, error);
    if (empty || (drawn && other[0] == '\0'))
        return true;
    if (set && !drawn)
        return error_set(error, STATUS_FAILURE,
                         "%s: holds a data set that this program did not draw, and it will not be "
                         "overwritten; name another folder, or remove it first",
                         found);
    return error_set(error, STATUS_FAILURE,
                     "%s: holds %s, which is no file of a synthetic data set and would be lost; "
                     "name another folder",
                     folder, other[0] != '\0' ? other : cifar10_names_file);
}

bool data_set_check(const char *folder, struct error *error) {
    return may_replace(folder, error) && folder_check_replaceable(folder, cifar10_is_name, error);
}

static bool save(void *context, const char *folder, struct error *error) {
    const struct data_set *set = context;
    struct error cause;
    if (!cifar10_save_names(set->names, folder, &cause) ||
        !cifar10_save(&set->train, folder, CIFAR10_TRAIN, &cause) ||
        !cifar10_save(&set->test, folder, CIFAR10_TEST, &cause))
        return error_set(error, cause.status, "%s: the data set could not be written: %s",
                         set->folder, cause.text);
    return may_replace(set->folder, error); /* it may have changed since */
}

bool data_set_save(struct data_set *set, struct error *error) {
    return folder_replace(set->folder, cifar10_is_name, save, set, error);
}
