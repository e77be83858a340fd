#include "app/commands.h"
#include "app/print_line.h"
#include "data/synth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A folder to write into: new, or one whose data set this program drew. */
static bool prepare_folder(const char *folder, struct error *error) {
    char found[4096];
    struct cifar10_names names;
    struct error nothing;
    if (mkdir(folder, 0777) == 0)
        return true;
    if (errno != EEXIST)
        return error_set(error, STATUS_FAILURE, "%s: the folder cannot be made: %s", folder,
                         strerror(errno));
    if (!cifar10_find(found, folder, &nothing))
        return true; /* no data set is there; what else is wrong shows when writing */
    if (cifar10_load_names(&names, found, &nothing) && synth_has_names(&names))
        return true;
    return error_set(error, STATUS_FAILURE,
                     "%s: holds a data set that this program did not draw, and it will not be "
                     "overwritten; name another folder",
                     found);
}

static bool draw(const char *folder, enum cifar10_part part, int64_t count, uint64_t seed,
                 struct error *error) {
    struct cifar10 images;
    synth_draw(&images, part, count, seed);
    bool good = cifar10_save(&images, folder, part, error);
    cifar10_free(&images);
    return good;
}

bool command_synth(const struct settings *s, struct error *error) {
    if (!prepare_folder(s->folder, error) ||
        !cifar10_save_names(&synth_names, s->folder, error) || /* first: it marks the rest */
        !draw(s->folder, CIFAR10_TRAIN, s->synth_train, (uint64_t)s->seed, error) ||
        !draw(s->folder, CIFAR10_TEST, s->synth_test, (uint64_t)s->seed, error))
        return false;
    print_line("%s: %lld training and %lld test images, synthetic: drawn by cifar-synth with seed "
               "%lld, not CIFAR-10",
               s->folder, (long long)s->synth_train, (long long)s->synth_test, (long long)s->seed);
    return true;
}
