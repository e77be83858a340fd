#include "train/recipe.h"

#include <math.h>

const char *const recipe_names[] = {[RECIPE_TUTORIAL] = "tutorial", [RECIPE_BEST] = "best"};

const struct recipe recipes[] = {
    {
        /* tutorial */
        .epochs = 5,
        .batch = 10,
        .optimizer = OPTIMIZER_ADAM,
        .lr = 0.001,
        .weight_decay = 0.0001,
        .muon_lr = 0.01,
        .momentum = 0.9,
        .border = BORDER_ZERO,
        .average_decay = 0.999,
    },
    {
        /* best */
        .epochs = 30,
        .batch = 64,
        .optimizer = OPTIMIZER_MUON,
        .lr = 0.003,
        .weight_decay = 0.05,
        .decoupled = true,
        .muon_lr = 0.01,
        .momentum = 0.95,
        .schedule = SCHEDULE_LINEAR,
        .warmup = 0.1,
        .flip = FLIP_ALTERNATING,
        .shift = 2,
        .border = BORDER_REFLECT,
        .label_smoothing = 0.05,
        .average_decay = 0.999,
        .select = SELECT_LAST,
    },
};

bool recipe_check(const struct recipe *r, struct error *error) {
    if (r->optimizer == OPTIMIZER_SGD && r->decoupled)
        return error_set(
            error, STATUS_USAGE,
            "--decoupled: only Adam's weight decay can be, not that of --optimizer sgd; "
            "--no-decoupled goes with it");
    if (r->average == AVERAGE_EMA && r->average_decay >= 1)
        return error_set(
            error, STATUS_USAGE,
            "--average-decay %g: the average would stay what the first step made; less "
            "than 1 is expected, such as 0.999",
            r->average_decay);
    if (r->label_smoothing >= 1)
        return error_set(
            error, STATUS_USAGE,
            "--label-smoothing %g: nothing would be left of the labels; less than 1 is "
            "expected",
            r->label_smoothing);
    if (r->optimizer != OPTIMIZER_ADAM && r->momentum >= 1)
        return error_set(error, STATUS_USAGE,
                         "--momentum %g: no step would be forgotten; less than 1 is expected",
                         r->momentum);
    return true;
}

bool recipe_has_end(const struct recipe *r) {
    return r->schedule != SCHEDULE_CONSTANT || r->warmup > 0;
}

double recipe_rate(const struct recipe *r, int64_t step, int64_t steps) {
    const int64_t w = llround(r->warmup * (double)steps);
    if (step < w)
        return (double)(step + 1) / (double)(w + 1);
    const double x = (double)(step - w) / (double)(steps - w), f = r->final_lr;
    switch (r->schedule) {
    case SCHEDULE_CONSTANT:
        break;
    case SCHEDULE_LINEAR:
        return 1 - (1 - f) * x;
    case SCHEDULE_COSINE:
        return f + (1 - f) * (1 + cos(acos(-1) * x)) / 2;
    }
    return 1;
}

/* From -shift to shift. */
static int8_t draw_shift(int64_t shift, struct random *random) {
    return (int8_t)((int64_t)(random_draw(random) % (uint64_t)(2 * shift + 1)) - shift);
}

void recipe_views(const struct recipe *r, struct view *views, const uint32_t *order, int64_t count,
                  int64_t epoch, const uint8_t *begins, struct random *random) {
    for (int64_t i = 0; i < count; i++) {
        struct view view = {.image = order[i], .reflected = r->border == BORDER_REFLECT};
        if (r->flip == FLIP_RANDOM)
            view.mirrored = random_draw(random) & 1;
        else if (r->flip == FLIP_ALTERNATING)
            view.mirrored = (begins[order[i]] + epoch) & 1;
        if (r->shift > 0) {
            view.down = draw_shift(r->shift, random);
            view.right = draw_shift(r->shift, random);
        }
        views[i] = view;
    }
}

void recipe_first_flips(uint8_t *begins, int64_t count, uint64_t seed) {
    struct random random;
    random_seed(&random, ~seed);
    for (int64_t i = 0; i < count; i++)
        begins[i] = random_draw(&random) & 1;
}
