/* What a recipe says of a step and of an epoch: learning rates as PyTorch's schedulers have them
 * (golden values by scripts/pytorch/make_golden.py), and how images are seen. */
#include "train/recipe.h"

#include "net/safetensors.h"
#include "scratch.h"

#include <math.h>

/* ---- learning rates ---- */

static void rates_are_pytorchs(void **unused) {
    (void)unused;
    struct safetensors golden;
    struct error error;
    int cases = 0;
    assert_good(safetensors_load(&golden, GOLDEN "/recipes.safetensors", &error), &error);
    for (int i = 0; i < golden.count; i++) {
        const struct safetensors_tensor *t = &golden.tensors[i];
        double row[64]; /* schedule, steps, warm-up, final rate; then each step's */
        if (strncmp(t->name, "rates", 5) != 0)
            continue;
        assert_true(t->size <= sizeof row);
        memcpy(row, t->data, t->size);
        const struct recipe recipe = {
            .schedule = (int)row[0], .warmup = row[2], .final_lr = row[3]};
        const int64_t steps = (int64_t)row[1];
        assert_int_equal(t->size, (size_t)(4 + steps) * sizeof *row);
        for (int64_t k = 0; k < steps; k++)
            if (!(fabs(recipe_rate(&recipe, k, steps) - row[4 + k]) < 1e-12))
                fail_msg("%s, step %d: %.17g instead of %.17g", t->name, (int)k,
                         recipe_rate(&recipe, k, steps), row[4 + k]);
        cases++;
    }
    assert_int_equal(cases, 12);
    safetensors_free(&golden);
}

/* The tutorial's are what they were before there were schedules, to the bit. */
static void constant_rates_are_whole(void **unused) {
    (void)unused;
    for (int64_t step = 0; step < 100; step++)
        assert_true(recipe_rate(&recipes[RECIPE_TUTORIAL], step, 100) == 1);
}

static void only_a_schedule_has_an_end(void **unused) {
    (void)unused;
    assert_false(recipe_has_end(&(struct recipe){.schedule = SCHEDULE_CONSTANT}));
    assert_true(recipe_has_end(&(struct recipe){.schedule = SCHEDULE_CONSTANT, .warmup = 0.1}));
    assert_true(recipe_has_end(&(struct recipe){.schedule = SCHEDULE_LINEAR}));
    assert_true(recipe_has_end(&(struct recipe){.schedule = SCHEDULE_COSINE}));
}

/* ---- views ---- */

enum { IMAGES = 500 };

static struct {
    uint32_t order[IMAGES];
    uint8_t begins[IMAGES];
    struct view views[IMAGES];
    struct random before, random; /* the generator before and after */
} seen;

static void see(const struct recipe *recipe, int64_t epoch) {
    random_seed(&seen.random, 5);
    random_permutation(&seen.random, seen.order, IMAGES);
    recipe_first_flips(seen.begins, IMAGES, 3);
    seen.before = seen.random;
    memset(seen.views, 0xff, sizeof seen.views);
    recipe_views(recipe, seen.views, seen.order, IMAGES, epoch, seen.begins, &seen.random);
    for (int i = 0; i < IMAGES; i++) {
        assert_int_equal(seen.views[i].image, seen.order[i]);
        assert_int_equal(seen.views[i].reflected, recipe->border == BORDER_REFLECT);
        assert_true(seen.views[i].mirrored <= 1);
    }
}

static void nothing_is_drawn_where_nothing_is_random(void **unused) {
    (void)unused;
    static const struct recipe PLAIN[] = {
        {.border = BORDER_ZERO},
        {.border = BORDER_REFLECT},
        {.flip = FLIP_ALTERNATING},
    };
    for (size_t k = 0; k < sizeof PLAIN / sizeof *PLAIN; k++) {
        see(&PLAIN[k], 1);
        assert_memory_equal(&seen.random, &seen.before, sizeof seen.random);
        for (int i = 0; i < IMAGES; i++) {
            assert_int_equal(seen.views[i].down, 0);
            assert_int_equal(seen.views[i].right, 0);
            assert_true(PLAIN[k].flip == FLIP_ALTERNATING || seen.views[i].mirrored == 0);
        }
    }
    see(&recipes[RECIPE_TUTORIAL], 1);
    assert_memory_equal(&seen.random, &seen.before, sizeof seen.random);
}

/* Each image's draws, in this order: mirrored, down, right. */
static void draws_have_an_order(void **unused) {
    (void)unused;
    static const struct {
        int flip;
        int64_t shift;
        int draws;
    } CASES[] = {
        {FLIP_RANDOM, 0, 1}, {FLIP_NONE, 4, 2}, {FLIP_RANDOM, 31, 3}, {FLIP_ALTERNATING, 1, 2}};
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
        const int64_t shift = CASES[k].shift;
        const uint32_t values = 2 * (uint32_t)shift + 1;
        int counts[63][2] = {{0}}, mirrored = 0;
        see(&(struct recipe){.flip = CASES[k].flip, .shift = shift}, 1);
        struct random again = seen.before;
        for (int i = 0; i < IMAGES; i++) {
            const struct view *view = &seen.views[i];
            if (CASES[k].flip == FLIP_RANDOM)
                assert_int_equal(view->mirrored, random_draw(&again) % 2);
            mirrored += view->mirrored;
            if (shift > 0) {
                assert_int_equal(view->down, (int64_t)(random_draw(&again) % values) - shift);
                assert_int_equal(view->right, (int64_t)(random_draw(&again) % values) - shift);
            }
            counts[view->down + shift][0]++;
            counts[view->right + shift][1]++;
        }
        assert_memory_equal(&seen.random, &again, sizeof again);
        /* no value is missing, and none is much more frequent than another */
        const double mean = (double)IMAGES / values;
        for (uint32_t v = 0; v < values; v++)
            for (int way = 0; way < 2; way++)
                assert_true(counts[v][way] > 0 && counts[v][way] < mean + 6 * sqrt(mean) + 1);
        if (CASES[k].flip != FLIP_NONE)
            assert_true(abs(mirrored - IMAGES / 2) < 3 * sqrt(IMAGES) / 2);
    }
}

/* Wherever an image comes in the order, it is mirrored in every other epoch. */
static void alternating_flips_alternate(void **unused) {
    (void)unused;
    const struct recipe recipe = {.flip = FLIP_ALTERNATING};
    struct view first[IMAGES];
    int mirrored = 0;
    see(&recipe, 1);
    memcpy(first, seen.views, sizeof first);
    for (int64_t epoch = 2; epoch <= 5; epoch++) {
        see(&recipe, epoch);
        for (int i = 0; i < IMAGES; i++)
            assert_int_equal(seen.views[i].mirrored, first[i].mirrored ^ (epoch % 2 == 0));
    }
    for (int i = 0; i < IMAGES; i++) {
        assert_int_equal(first[i].mirrored, !seen.begins[seen.order[i]]);
        mirrored += first[i].mirrored;
    }
    assert_true(abs(mirrored - IMAGES / 2) < 3 * sqrt(IMAGES) / 2);
}

static void first_flips_are_the_seeds(void **unused) {
    (void)unused;
    uint8_t a[IMAGES], b[IMAGES];
    int same = 0;
    recipe_first_flips(a, IMAGES, 3);
    recipe_first_flips(b, IMAGES, 3);
    assert_memory_equal(a, b, sizeof a);
    recipe_first_flips(b, IMAGES / 2, 3); /* of fewer images: the same of these */
    assert_memory_equal(a, b, sizeof a / 2);
    recipe_first_flips(b, IMAGES, 4);
    for (int i = 0; i < IMAGES; i++) {
        assert_true(a[i] <= 1);
        same += a[i] == b[i];
    }
    assert_true(abs(same - IMAGES / 2) < 3 * sqrt(IMAGES) / 2);
}

/* ---- settings ---- */

static void what_does_not_go_together_is_refused(void **unused) {
    (void)unused;
    static const struct {
        struct recipe recipe;
        const char *found; /* NULL: well */
    } CASES[] = {
        {{.optimizer = OPTIMIZER_SGD, .decoupled = true}, "--decoupled: only Adam's weight decay"},
        {{.optimizer = OPTIMIZER_ADAM, .decoupled = true}, NULL},
        {{.optimizer = OPTIMIZER_MUON, .decoupled = true}, NULL},
        {{.average = AVERAGE_EMA, .average_decay = 1}, "--average-decay 1: "},
        {{.average = AVERAGE_EMA, .average_decay = 0.9999}, NULL},
        {{.average = AVERAGE_EMA, .average_decay = 0}, NULL},
        {{.average = AVERAGE_NONE, .average_decay = 1}, NULL},
        {{.optimizer = OPTIMIZER_SGD, .momentum = 1}, "--momentum 1: "},
        {{.optimizer = OPTIMIZER_MUON, .momentum = 1}, "--momentum 1: "},
        {{.optimizer = OPTIMIZER_SGD, .momentum = 0.999}, NULL},
        {{.optimizer = OPTIMIZER_ADAM, .momentum = 1}, NULL},
    };
    struct error error;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        assert_int_equal(recipe_check(&CASES[i].recipe, &error), CASES[i].found == NULL);
        if (CASES[i].found != NULL)
            assert_says(&error, STATUS_USAGE, CASES[i].found);
    }
}

static void recipes_are_sound(void **unused) {
    (void)unused;
    struct error error;
    for (const struct recipe *recipe = recipes; recipe < recipes + RECIPE_COUNT; recipe++)
        assert_good(recipe_check(recipe, &error), &error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_pytorchs),
        cmocka_unit_test(constant_rates_are_whole),
        cmocka_unit_test(only_a_schedule_has_an_end),
        cmocka_unit_test(nothing_is_drawn_where_nothing_is_random),
        cmocka_unit_test(draws_have_an_order),
        cmocka_unit_test(alternating_flips_alternate),
        cmocka_unit_test(first_flips_are_the_seeds),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(recipes_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
