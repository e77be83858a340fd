#include "app/commands.h"
#include "app/data_set.h"
#include "app/print.h"
#include "data/synth.h"

bool command_synth(const struct settings *s, struct error *error) {
    struct data_set set = {.folder = s->words[0], .names = &synth_names};
    if (!data_set_check(set.folder, error))
        return false;
    synth_draw(&set.train, CIFAR10_TRAIN, s->synth_train, (uint64_t)s->seed);
    synth_draw(&set.test, CIFAR10_TEST, s->synth_test, (uint64_t)s->seed);
    const bool good = data_set_save(&set, error);
    cifar10_free(&set.train);
    cifar10_free(&set.test);
    if (good)
        print_line("%s: %lld training and %lld test images, synthetic: drawn by cifar-synth with "
                   "seed %lld, not CIFAR-10",
                   set.folder, (long long)s->synth_train, (long long)s->synth_test,
                   (long long)s->seed);
    return good;
}
