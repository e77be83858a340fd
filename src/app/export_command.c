#include "app/commands.h"
#include "app/model.h"
#include "app/outputs.h"
#include "app/print.h"
#include "net/onnx.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What a checkpoint says of its training, without what is of use to this program alone. It stands
 * under names of its own in the model, since programs give "batch", say, meanings of theirs. */
static const char *const FACTS[] = {
    "program",
    "trained_on",
    "train_images",
    "test_images",
    "epochs",
    "batch",
    "lr",
    "weight_decay",
    "seed",
    "precision",
    "epoch",
    "test_accuracy",
    "test_loss",
    "recipe",
    "validation",
    "validation_accuracy",
    "validation_loss",
    "selection",
};

static bool is_fact(const char *key) {
    for (size_t i = 0; i < sizeof FACTS / sizeof *FACTS; i++)
        if (strcmp(key, FACTS[i]) == 0)
            return true;
    return strncmp(key, "recipe.", strlen("recipe.")) == 0;
}

static void copy_facts(struct metadata *to, const struct metadata *from) {
    for (int i = 0; i < from->count; i++) {
        char key[48];
        snprintf(key, sizeof key, "training.%s", from->entry[i].key);
        if (is_fact(from->entry[i].key))
            metadata_set(to, key, "%s", from->entry[i].value);
    }
}

static void report(const struct settings *s, const struct onnx_options *options,
                   const struct metadata *about) {
    struct stat info = {.st_size = 0};
    const char *accuracy = metadata_get(about, "test_accuracy");
    stat(s->onnx, &info);
    print_line("model   %s%s%s%s", s->model, accuracy != NULL ? ": test accuracy " : "",
               accuracy != NULL ? accuracy : "", accuracy != NULL ? " %" : "");
    print_line("ONNX    %s: opset %d, IR version %d, %.0f kB, batch normalisation %s", s->onnx,
               options->opset, onnx_ir_version(options->opset), (double)info.st_size / 1000,
               options->keep_batchnorm ? "kept" : "folded into the convolutions");
    print_line("input   " ONNX_INPUT ": float [batch_size, %d, %d, %d], %s", NETWORK_CHANNELS,
               NETWORK_SIDE, NETWORK_SIDE, onnx_preparation(options));
    print_line("output  " ONNX_OUTPUT ": float [batch_size, %d], %s", options->class_count,
               options->softmax ? "probabilities" : "logits");
    printf("classes");
    for (int i = 0; i < options->class_count; i++)
        printf("%s %s", i > 0 ? "," : "", options->classes[i]);
    printf("\n");
}

bool command_export(const struct settings *s, struct error *error) {
    struct model model;
    struct metadata facts = {.count = 0};
    const char *classes[CIFAR10_CLASSES];
    if (!outputs_check_file("onnx", s->onnx, ONNX, error) || !model_load(&model, s, error))
        return false;
    const struct onnx_options options = {
        .opset = (int)s->opset,
        .classes = classes,
        .class_count = cifar10_count_names(&model.classes),
        .keep_batchnorm = s->keep_batchnorm,
        .softmax = s->softmax,
        .pixels = s->pixels,
        .bgr = s->bgr,
    };
    for (int i = 0; i < options.class_count; i++)
        classes[i] = model.classes.name[i];
    copy_facts(&facts, &model.about);
    const bool good = onnx_save(s->onnx, &model.state, &options, &facts, error);
    network_state_free(&model.state);
    if (good)
        report(s, &options, &model.about);
    return good;
}
