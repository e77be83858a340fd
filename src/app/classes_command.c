#include "app/commands.h"
#include "app/print.h"
#include "app/workplace.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* How one class fared; NaN where there was nothing to divide by. */
struct class_report {
    int64_t images, predicted, correct;
    double accuracy;  /* per cent of the class's images that were recognised */
    double precision; /* per cent of the predictions of this class that were right */
};

static double per_cent(int64_t part, int64_t whole) {
    return whole == 0 ? (double)NAN : 100.0 * (double)part / (double)whole;
}

static struct class_report class_report(const struct evaluation *e, int class) {
    struct class_report r = {.correct = e->confusion[class][class]};
    for (int other = 0; other < CIFAR10_CLASSES; other++) {
        r.images += e->confusion[class][other];
        r.predicted += e->confusion[other][class];
    }
    r.accuracy = per_cent(r.correct, r.images);
    r.precision = per_cent(r.correct, r.predicted);
    return r;
}

/* The mean of the accuracies of the classes that have images. */
static double mean_accuracy(const struct evaluation *e) {
    double sum = 0;
    int present = 0;
    for (int i = 0; i < CIFAR10_CLASSES; i++) {
        struct class_report r = class_report(e, i);
        if (r.images > 0) {
            sum += r.accuracy;
            present++;
        }
    }
    return sum / present;
}

static void print_per_cent(double value) {
    if (isnan(value))
        printf("        -");
    else
        printf(" %6.2f %%", value);
}

static void print_classes(const struct evaluation *e, const struct cifar10_names *names) {
    const bool bars = isatty(STDOUT_FILENO);
    printf("%-12s  accuracy%*s  precision  images\n", "class", bars ? PRINT_BAR + 2 : 0, "");
    for (int i = 0; i < cifar10_count_names(names); i++) {
        const struct class_report r = class_report(e, i);
        print_column(names->name[i], -13, INT_MAX);
        print_per_cent(r.accuracy);
        if (bars)
            print_bar(r.accuracy);
        printf("  ");
        print_per_cent(r.precision);
        printf("  %6lld\n", (long long)r.images);
    }
    printf("Mean of the classes %.2f %%; test accuracy %.2f %% (%lld of %lld images), loss %.4f\n",
           mean_accuracy(e), evaluation_accuracy(e), (long long)e->correct, (long long)e->images,
           e->loss);
}

static void print_confusion(const struct evaluation *e, const struct cifar10_names *real,
                            const struct cifar10_names *predicted) {
    const int classes = cifar10_count_names(real);
    printf("\nReal class (row) and prediction (column), images:\n%-12s", "");
    for (int i = 0; i < classes; i++)
        print_column(predicted->name[i], 8, 7);
    printf("\n");
    for (int i = 0; i < classes; i++) {
        print_column(real->name[i], -12, INT_MAX);
        for (int k = 0; k < classes; k++)
            printf(" %7lld", (long long)e->confusion[i][k]);
        printf("\n");
    }
}

static void print_json(const struct judgement *j, const struct workplace *w,
                       const struct settings *s) {
    const struct evaluation *e = &j->evaluation;
    const int count = w->test.classes;
    json_t *classes = json_array(), *confusion = NULL;
    for (int i = 0; i < count; i++) {
        const struct class_report r = class_report(e, i);
        json_array_append_new(classes,
                              json_pack("{s:s, s:o, s:o, s:I, s:I, s:I}", "class", w->names.name[i],
                                        "accuracy", json_rounded(r.accuracy, 6), "precision",
                                        json_rounded(r.precision, 6), "images",
                                        (json_int_t)r.images, "correct", (json_int_t)r.correct,
                                        "predicted", (json_int_t)r.predicted));
    }
    if (s->confusion) {
        confusion = json_array();
        for (int i = 0; i < count; i++) {
            json_t *row = json_array();
            for (int k = 0; k < count; k++)
                json_array_append_new(row, json_integer((json_int_t)e->confusion[i][k]));
            json_array_append_new(confusion, row);
        }
    }
    json_t *object = json_pack(
        "{s:o, s:s*, s:o, s:b, s:s, s:I, s:o, s:o, s:o, s:o, s:o*}", "model", json_text(s->model),
        "selection", metadata_get(&j->model.about, "selection"), "data", json_text(w->folder),
        "synthetic", w->synthetic, "device", w->device->ops->name, "images", (json_int_t)e->images,
        "accuracy", json_rounded(evaluation_accuracy(e), 6), "mean_class_accuracy",
        json_rounded(mean_accuracy(e), 6), "loss", json_number(e->loss), "classes", classes,
        "confusion", confusion);
    json_print(object);
}

static bool report(struct judgement *j, const struct workplace *w, const struct settings *s,
                   struct error *error) {
    (void)error;
    if (s->json) {
        print_json(j, w, s);
        return true;
    }
    judgement_print(j, w, s);
    print_classes(&j->evaluation, &w->names);
    if (s->confusion)
        print_confusion(&j->evaluation, &w->names, &j->model.classes);
    return true;
}

bool command_classes(const struct settings *settings, struct error *error) {
    return workplace_judge(settings, report, error);
}
