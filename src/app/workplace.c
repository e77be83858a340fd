#include "app/workplace.h"

#include "app/cores.h"
#include "app/print.h"
#include "app/run_settings.h"
#include "data/synth.h"
#include "train/train_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char DEFAULT_DATA[] = "data";

/* The names of the files of a state's run. */
static bool adopt_run(struct workplace *w, struct settings *settings, struct error *error) {
    struct train_state state;
    if (!train_state_load(settings->state, &state, &w->about, error))
        return false;
    train_state_free(&state);
    return run_settings_adopt(settings, &w->about, error);
}

int workplace_threads(const struct settings *settings) {
    return (int)(settings->threads > 0 ? settings->threads : cores_count(""));
}

bool workplace_open_device(struct device **device, const struct settings *settings,
                           struct error *error) {
    const struct device_options options = {
        .threads = workplace_threads(settings),
        .tf32 = settings->precision == PRECISION_TF32,
    };
    return device_open(device, settings->device, &options, error);
}

bool workplace_open(struct workplace *w, struct settings *settings, bool training,
                    struct error *error) {
    *w = (struct workplace){0};
    if (!training && settings->state != NULL && !adopt_run(w, settings, error))
        return false;
    w->threads = workplace_threads(settings);
    const char *dir = settings->data ? settings->data : getenv("CIFAR10_DIR");
    bool good =
        workplace_open_device(&w->device, settings, error) &&
        cifar10_find(w->folder, dir != NULL && dir[0] != '\0' ? dir : DEFAULT_DATA, error) &&
        cifar10_load_names(&w->names, w->folder, error) &&
        cifar10_load(&w->test, w->folder, &w->names, CIFAR10_TEST, 0, error) &&
        (!training ||
         cifar10_load(&w->train, w->folder, &w->names, CIFAR10_TRAIN, settings->limit, error));
    w->synthetic = good && (synth_has_names(&w->names) || synth_has_labels(&w->test) ||
                            synth_has_labels(&w->train));
    if (!good)
        workplace_close(w);
    return good;
}

void workplace_close(struct workplace *w) {
    if (w->device != NULL)
        w->device->ops->close(w->device);
    cifar10_free(&w->train);
    cifar10_free(&w->validation);
    cifar10_free(&w->test);
    w->device = NULL;
}

const char *workplace_data_kind(const struct workplace *w) {
    if (w->synthetic)
        return "synthetic images, drawn by cifar-synth: not CIFAR-10";
    return cifar10_compare_names(&w->names, &cifar10_official_names) == CIFAR10_CLASSES
               ? "CIFAR-10"
               : "images of other classes: not CIFAR-10";
}

/* Whether the model is of the run whose state was named, if it was found by that. */
static bool check_run(const struct judgement *j, const struct workplace *w,
                      const struct settings *settings, struct error *error) {
    const char *wanted = metadata_get(&w->about, "run"),
               *found = metadata_get(&j->model.about, "run");
    return !settings->model_adopted || wanted == NULL ||
           (found != NULL && strcmp(found, wanted) == 0) ||
           error_set(error, STATUS_CHECKPOINT,
                     "%s: is not of the run in %s: another run has taken its place; name the "
                     "right one with --model",
                     settings->model, settings->state);
}

/* Whether the data has the model's classes. */
static bool check_classes(const struct model *m, const struct workplace *w,
                          const struct settings *settings, struct error *error) {
    const int own = cifar10_count_names(&m->classes), others = w->test.classes;
    const int label = cifar10_compare_names(&m->classes, &w->names);
    if (m->classes_told && own != others)
        return error_set(error, STATUS_DATA,
                         "%s: knows %d classes, but the data in %s has %d; name the data that it "
                         "is for with --data",
                         settings->model, own, w->folder, others);
    if (label < others)
        print_warning(settings->program, "%s: its class %d is '%s', but that of %s is '%s'",
                      settings->model, label, m->classes.name[label], w->folder,
                      w->names.name[label]);
    return true;
}

static void judgement_free(struct judgement *j) {
    evaluator_free(&j->evaluator);
    network_free(j->network);
}

static bool judge(struct judgement *j, const struct workplace *w, const struct settings *settings,
                  struct error *error) {
    struct model *m = &j->model;
    const int batch = (int)(settings->batch < w->test.count ? settings->batch : w->test.count);
    if (!model_load(m, settings, error))
        return false;
    bool good = check_run(j, w, settings, error) && check_classes(m, w, settings, error);
    if (good) {
        j->network = network_new(w->device, batch);
        network_upload(j->network, &m->state);
    }
    network_state_free(&m->state);
    if (!good)
        return false;
    const struct resident test = resident_new(w->device, &w->test);
    evaluator_init(&j->evaluator, j->network, &test, batch);
    good = evaluate(&j->evaluator, &j->evaluation, error);
    if (!good)
        judgement_free(j);
    return good;
}

bool workplace_judge(const struct settings *given, judgement_report *report, struct error *error) {
    struct settings settings = *given;
    struct workplace w;
    struct judgement j;
    if (!workplace_open(&w, &settings, false, error))
        return false;
    bool good = judge(&j, &w, &settings, error);
    if (good) {
        good = report(&j, &w, &settings, error);
        judgement_free(&j);
    }
    workplace_close(&w);
    return good;
}

void workplace_describe_device(const struct workplace *w, char *text, size_t size) {
    const int threads = w->device->threads;
    w->device->ops->describe(w->device, text, size);
    const size_t used = strlen(text);
    if (threads > 0)
        snprintf(text + used, size - used, ", %d thread%s", threads, threads > 1 ? "s" : "");
}

void judgement_print(const struct judgement *j, const struct workplace *w,
                     const struct settings *settings) {
    const char *epoch = metadata_get(&j->model.about, "epoch"),
               *data = metadata_get(&j->model.about, "trained_on"),
               *selection = metadata_get(&j->model.about, "selection");
    char text[512];
    if (epoch != NULL && data != NULL)
        print_line("model   %s: epoch %s of a training on %s%s%s", settings->model, epoch, data,
                   selection != NULL ? ": " : "", selection != NULL ? selection : "");
    else
        print_line("model   %s", settings->model);
    print_line("data    %s: %lld test images (%s)", w->folder, (long long)w->test.count,
               workplace_data_kind(w));
    workplace_describe_device(w, text, sizeof text);
    printf("device  %s: %s\n", w->device->ops->name, text);
    if (w->device->passed_over[0] != '\0')
        printf("GPU     not used: %s\n", w->device->passed_over);
}
