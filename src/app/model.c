#include "app/model.h"

#include "app/classes.h"
#include "app/print.h"
#include "net/checkpoint.h"

#include <errno.h>
#include <unistd.h>

bool model_load(struct model *model, const struct settings *settings, struct error *error) {
    const char *path = settings->model;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return error_set(error, STATUS_CHECKPOINT,
                         "%s: there is no such checkpoint; train one with cifar-train, or name "
                         "another with --model",
                         path);
    network_state_new(&model->state);
    if (!checkpoint_load(path, &model->state, &model->about, error) ||
        !classes_find(&model->classes, &model->classes_told, &model->about, path, error)) {
        network_state_free(&model->state);
        return false;
    }
    if (!model->classes_told)
        print_warning(settings->program,
                      "%s: does not name its classes; CIFAR-10's names are assumed", path);
    return true;
}
