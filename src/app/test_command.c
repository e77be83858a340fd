#include "app/commands.h"
#include "app/grid.h"
#include "app/outputs.h"
#include "app/print.h"
#include "app/workplace.h"
#include "base/memory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Real and predicted classes of the first `count` test images, one above the other, in the two
 * lines that the tutorial prints. */
static void print_labels(const struct workplace *w, const struct judgement *j, int count) {
    for (int line = 0; line < 2; line++) {
        printf("%s", line == 0 ? "Real labels:" : "Predicted:  ");
        for (int i = 0; i < count; i++) {
            const char *real = w->names.name[w->test.records[(size_t)i * CIFAR10_RECORD]];
            const char *guess = j->model.classes.name[j->evaluator.predicted[i]];
            const int a = print_width(real), b = print_width(guess), widest = a > b ? a : b;
            print_column(line == 0 ? real : guess, 1 + (widest > 5 ? widest : 5), INT_MAX);
        }
        printf("\n");
    }
}

static bool save_grid(const char *path, const struct workplace *w, const uint8_t *predicted,
                      int count, struct error *error) {
    bool *right = memory_new((size_t)count, sizeof *right);
    for (int i = 0; i < count; i++)
        right[i] = predicted[i] == w->test.records[(size_t)i * CIFAR10_RECORD];
    bool good = grid_save(path, w->test.records, right, count, error);
    free(right);
    return good;
}

static json_t *class_list(const struct cifar10_names *names, const uint8_t *classes, size_t stride,
                          int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_string(names->name[classes[(size_t)i * stride]]));
    return list;
}

/* [n][CIFAR10_CLASSES] numbers, the first of each row, as a list of lists. */
static json_t *logit_lists(const float *logits, int n, int classes) {
    json_t *lists = json_array();
    for (int i = 0; i < n; i++) {
        json_t *list = json_array();
        for (int k = 0; k < classes; k++)
            json_array_append_new(list, json_number((double)logits[i * CIFAR10_CLASSES + k]));
        json_array_append_new(lists, list);
    }
    return lists;
}

static void print_json(const struct judgement *j, const struct workplace *w,
                       const struct settings *s, int shown) {
    const struct evaluation *e = &j->evaluation;
    json_t *object =
        json_pack("{s:o, s:s*, s:o, s:b, s:s, s:I, s:I, s:o, s:o, s:o*, s:o, s:o, s:o}", "model",
                  json_text(s->model), "selection", metadata_get(&j->model.about, "selection"),
                  "data", json_text(w->folder), "synthetic", w->synthetic, "device",
                  w->device->ops->name, "images", (json_int_t)e->images, "correct",
                  (json_int_t)e->correct, "accuracy", json_rounded(evaluation_accuracy(e), 6),
                  "loss", json_number(e->loss), "grid", s->grid == NULL ? NULL : json_text(s->grid),
                  "real", class_list(&w->names, w->test.records, CIFAR10_RECORD, shown),
                  "predicted", class_list(&j->model.classes, j->evaluator.predicted, 1, shown),
                  "logits", logit_lists(j->evaluator.logits, shown, w->test.classes));
    json_print(object);
}

static bool report(struct judgement *j, const struct workplace *w, const struct settings *s,
                   struct error *error) {
    const struct evaluation *e = &j->evaluation;
    const int shown = j->evaluator.steps.batch; /* the first batch */
    if (s->grid != NULL && !save_grid(s->grid, w, j->evaluator.predicted, shown, error))
        return false;
    if (s->json) {
        print_json(j, w, s, shown);
        return true;
    }
    judgement_print(j, w, s);
    printf("Test accuracy %.2f %% (%lld of %lld images), loss %.4f\n", evaluation_accuracy(e),
           (long long)e->correct, (long long)e->images, e->loss);
    if (s->grid != NULL)
        print_line("The first %d images are in %s: right in thin green frames, wrong in thick red "
                   "ones",
                   shown, s->grid);
    print_labels(w, j, shown);
    return true;
}

bool command_test(const struct settings *given, struct error *error) {
    struct settings s = *given;
    if (s.grid[0] == '\0')
        s.grid = NULL;
    /* a picture that cannot be written is found out before the test, not after */
    return (s.grid == NULL || outputs_check_file("grid", s.grid, PICTURE, error)) &&
           workplace_judge(&s, report, error);
}
