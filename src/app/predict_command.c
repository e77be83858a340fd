#include "app/commands.h"
#include "app/grid.h"
#include "app/outputs.h"
#include "app/pictures.h"
#include "app/print.h"
#include "app/workplace.h"
#include "base/memory.h"
#include "base/text.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Images in a step, and pictures in the grid at most. */
enum { BATCH = 32, GRID_MOST = 1000 };

struct prediction {
    const struct settings *settings;
    struct model model;
    int top;
    struct device *device;
    struct network *network;
    struct picture_reader reader;
    uint8_t *shown; /* [GRID_MOST] records for the grid; NULL: none is wanted */
    int64_t shown_count;
    bool terminal;
};

/* The classes of one picture, the most probable first. */
struct ranking {
    int class[CIFAR10_CLASSES];
    double probability[CIFAR10_CLASSES];
};

/* The softmax of the logits of those classes that there are, in falling order, equals as they come.
 */
static struct ranking rank(const float *logits, int classes) {
    struct ranking r;
    double sum = 0, largest = -HUGE_VAL;
    for (int k = 0; k < classes; k++)
        largest = fmax(largest, (double)logits[k]);
    for (int k = 0; k < classes; k++)
        sum += exp((double)logits[k] - largest);
    for (int k = 0; k < classes; k++) {
        const double probability = exp((double)logits[k] - largest) / sum;
        int at = k;
        for (; at > 0 && r.probability[at - 1] < probability; at--) {
            r.class[at] = r.class[at - 1];
            r.probability[at] = r.probability[at - 1];
        }
        r.class[at] = k;
        r.probability[at] = probability;
    }
    return r;
}

/* ---- what is printed ---- */

static void print_text(const struct prediction *p, const char *path, const struct ranking *r) {
    char line[CIFAR10_CLASSES * (CIFAR10_NAME + 20)] = "";
    for (int i = 0; i < p->top && !p->terminal; i++)
        snprintf(line + strlen(line), sizeof line - strlen(line), "%s %s %.2f %%",
                 i == 0 ? ":" : ",", p->model.classes.name[r->class[i]], 100 * r->probability[i]);
    print_line("%s%s", path, line);
    for (int i = 0; i < p->top && p->terminal; i++) {
        printf("  ");
        print_column(p->model.classes.name[r->class[i]], -12, INT_MAX);
        printf(" %6.2f %%", 100 * r->probability[i]);
        print_bar(100 * r->probability[i]);
        printf("\n");
    }
}

static void print_json_line(const struct prediction *p, const char *path, const struct ranking *r) {
    json_t *top = json_array();
    for (int i = 0; i < p->top; i++)
        json_array_append_new(top,
                              json_pack("{s:s, s:o}", "class", p->model.classes.name[r->class[i]],
                                        "probability", json_number(r->probability[i])));
    json_t *object = json_pack("{s:o, s:s, s:o, s:o}", "picture", json_text(path), "class",
                               p->model.classes.name[r->class[0]], "probability",
                               json_number(r->probability[0]), "top", top);
    require(object != NULL);
    json_dumpf(object, stdout, JSON_COMPACT | JSON_DIGITS);
    printf("\n");
    json_decref(object);
}

/* A value as RFC 4180 has it, in quotes where it holds what separates values; on a terminal without
 * what that would act on. */
static void print_csv_value(const struct prediction *p, const char *value) {
    char text[PATH_MAX];
    snprintf(text, sizeof text, "%s", value);
    if (p->terminal)
        text_clean(text);
    const bool quoted = strpbrk(text, ",\"\r\n") != NULL;
    fputs(quoted ? "\"" : "", stdout);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '"')
            putchar('"');
        putchar(*at);
    }
    fputs(quoted ? "\"" : "", stdout);
}

static void print_csv_line(const struct prediction *p, const char *path, const struct ranking *r) {
    print_csv_value(p, path);
    for (int i = 0; i < p->top; i++) {
        printf(",");
        print_csv_value(p, p->model.classes.name[r->class[i]]);
        printf(",%.9g", r->probability[i]);
    }
    printf("\n");
}

static void print_csv_header(const struct prediction *p) {
    printf("picture");
    for (int i = 1; i <= p->top; i++)
        printf(",class_%d,probability_%d", i, i);
    printf("\n");
}

static void print_one(const struct prediction *p, const char *path, const struct ranking *r) {
    if (p->settings->json)
        print_json_line(p, path, r);
    else if (p->settings->csv)
        print_csv_line(p, path, r);
    else
        print_text(p, path, r);
}

/* ---- the pictures, many at a time ---- */

static void keep_for_grid(struct prediction *p) {
    const int64_t room = GRID_MOST - p->shown_count, count = p->reader.images.count;
    const int64_t kept = count < room ? count : room;
    memcpy(p->shown + p->shown_count * CIFAR10_RECORD, p->reader.images.records,
           (size_t)kept * CIFAR10_RECORD);
    p->shown_count += kept;
}

/* Predicts those that were read last. */
static bool predict(struct prediction *p, struct error *error) {
    const struct picture_reader *r = &p->reader;
    const int64_t count = r->images.count;
    void *mark = p->device->ops->mark(p->device);
    struct evaluator evaluator = {0};
    struct evaluation unused; /* of labels that these do not have */
    bool good = true;
    if (count > 0) {
        const struct resident data = resident_new(p->device, &r->images);
        evaluator_init(&evaluator, p->network, &data, count < BATCH ? (int)count : BATCH);
        good = evaluate(&evaluator, &unused, error);
    }
    const float *logits = evaluator.logits;
    for (int i = 0; good && i < r->count; i++) {
        if (!r->pictures[i].good) {
            print_warning(p->settings->program, "%s", r->pictures[i].error.text);
            continue;
        }
        const struct ranking ranking = rank(logits, r->images.classes);
        print_one(p, r->pictures[i].path, &ranking);
        logits += CIFAR10_CLASSES;
    }
    evaluator_free(&evaluator);
    p->device->ops->release(p->device, mark);
    return good;
}

static bool save_grid(const struct prediction *p, struct error *error) {
    const struct settings *s = p->settings;
    if (p->shown_count == 0)
        return true;
    if (!grid_save(s->grid, p->shown, NULL, (int)p->shown_count, error))
        return false;
    if (!s->json && !s->csv)
        print_line("%lld of the %lld pictures, as the network sees them, are in %s",
                   (long long)p->shown_count, (long long)p->reader.good, s->grid);
    return true;
}

static bool predict_all(struct prediction *p, struct error *error) {
    struct picture_reader *r = &p->reader;
    const struct settings *s = p->settings;
    bool good = true;
    if (s->csv)
        print_csv_header(p);
    while (good && picture_reader_next(r)) {
        good = predict(p, error);
        if (p->shown != NULL)
            keep_for_grid(p);
    }
    if (!good || !save_grid(p, error))
        return false;
    if (r->others > 0)
        print_warning(s->program,
                      "files in the folders that have no picture's name and were left "
                      "out: %lld",
                      (long long)r->others);
    if (r->bad > 0)
        return error_set(error, STATUS_DATA,
                         "%lld of %lld pictures could not be read, as was said of each",
                         (long long)r->bad, (long long)(r->good + r->bad));
    return r->good > 0 ||
           error_set(error, STATUS_DATA,
                     "there is no picture: nothing in the folders has a name like .png or .jpg "
                     "(name a file itself to have it tried)");
}

static bool check_words(const struct settings *s, struct error *error) {
    int inputs = 0;
    for (int i = 0; i < s->word_count; i++)
        inputs += strcmp(s->words[i], "-") == 0;
    return inputs <= 1 ||
           error_set(error, STATUS_USAGE, "-: there is one standard input, and one - is expected");
}

bool command_predict(const struct settings *s, struct error *error) {
    struct prediction *p = memory_new(1, sizeof *p);
    p->settings = s;
    p->terminal = isatty(STDOUT_FILENO);
    bool good = check_words(s, error) &&
                (s->grid == NULL || outputs_check_file("grid", s->grid, PICTURE, error)) &&
                model_load(&p->model, s, error);
    if (good) {
        const int classes = cifar10_count_names(&p->model.classes);
        p->top = s->top < classes ? (int)s->top : classes;
        good = workplace_open_device(&p->device, s, error);
        if (good) {
            p->network = network_new(p->device, BATCH);
            network_upload(p->network, &p->model.state);
            picture_reader_init(&p->reader, s->words, s->word_count, (enum picture_crop)s->crop,
                                workplace_threads(s));
            p->reader.images.classes = classes;
            p->shown = s->grid != NULL ? memory_new(GRID_MOST, CIFAR10_RECORD) : NULL;
            good = predict_all(p, error);
            picture_reader_free(&p->reader);
            network_free(p->network);
            p->device->ops->close(p->device);
        }
        network_state_free(&p->model.state);
    }
    free(p->shown);
    free(p);
    return good;
}
