/* The layers, a stage and the head, against the reference, forward and backward, in training and in
 * evaluation, over shapes and numbers that a kernel could get wrong. */
#include "model.h"

#include <math.h>
#include <stdlib.h>

/* Where a batch has few pixels a channel, eps keeps the gradient from cancelling. */
static const struct stage_case STAGES[] = {
    /* in, out, kernel, pad, h, w, n, pool, data, eps, momentum: the network's */
    {3, 12, 5, 1, 32, 32, 1, 1, PLAIN, 1e-5F, 0.1F},
    {3, 12, 5, 1, 32, 32, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 12, 5, 1, 32, 32, 10, 1, PLAIN, 1e-5F, 0.1F},
    {12, 12, 5, 1, 30, 30, 1, 2, PLAIN, 1e-5F, 0.1F},
    {12, 12, 5, 1, 30, 30, 2, 2, PLAIN, 1e-5F, 0.1F},
    {12, 12, 5, 1, 30, 30, 10, 2, PLAIN, 1e-5F, 0.1F},
    {12, 24, 5, 1, 14, 14, 1, 1, PLAIN, 1e-5F, 0.1F},
    {12, 24, 5, 1, 14, 14, 2, 1, PLAIN, 1e-5F, 0.1F},
    {12, 24, 5, 1, 14, 14, 10, 1, PLAIN, 1e-5F, 0.1F},
    {24, 24, 5, 1, 12, 12, 1, 1, PLAIN, 1e-5F, 0.1F},
    {24, 24, 5, 1, 12, 12, 2, 1, PLAIN, 1e-5F, 0.1F},
    {24, 24, 5, 1, 12, 12, 10, 1, PLAIN, 1e-5F, 0.1F},
    /* 1 x 1 kernels and images, outputs of one pixel */
    {3, 5, 1, 0, 6, 4, 3, 1, PLAIN, 1e-5F, 0.1F},
    {7, 1, 1, 1, 4, 5, 2, 1, PLAIN, 1e-5F, 0.1F},
    {1, 1, 1, 0, 1, 1, 5, 1, PLAIN, 1, 0.1F},
    {2, 3, 3, 1, 1, 1, 4, 1, PLAIN, 1, 0.1F},
    {3, 2, 5, 2, 1, 1, 2, 1, PLAIN, 1, 0.1F},
    {2, 7, 5, 0, 5, 5, 3, 1, PLAIN, 1, 0.1F},
    {4, 3, 4, 1, 2, 2, 2, 1, PLAIN, 1, 0.1F},
    /* sides that differ, 1 and 7 channels, pad from 0 to more than kernel - 1, even kernels */
    {1, 7, 3, 0, 9, 4, 2, 1, PLAIN, 1e-5F, 0.1F},
    {7, 1, 3, 1, 4, 11, 2, 1, PLAIN, 1e-5F, 0.1F},
    {7, 7, 3, 2, 5, 8, 3, 3, PLAIN, 1e-5F, 0.1F},
    {1, 1, 5, 4, 3, 7, 2, 1, PLAIN, 1e-5F, 0.1F},
    {2, 3, 3, 3, 4, 3, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 2, 2, 4, 3, 5, 2, 2, PLAIN, 1e-5F, 0.1F},
    {2, 2, 2, 1, 6, 3, 1, 1, PLAIN, 1e-5F, 0.1F},
    {1, 3, 1, 2, 1, 40, 2, 1, PLAIN, 1e-5F, 0.1F},
    {2, 1, 3, 1, 40, 1, 2, 1, PLAIN, 1e-5F, 0.1F},
    /* as one of these but for one number: what a backend keeps of one is not for the other */
    {3, 4, 3, 2, 6, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {2, 4, 3, 2, 6, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 5, 3, 2, 6, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 2, 2, 6, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 3, 1, 6, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 3, 2, 7, 6, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 3, 2, 6, 7, 2, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 3, 2, 6, 6, 3, 1, PLAIN, 1e-5F, 0.1F},
    {3, 4, 3, 2, 6, 6, 2, 2, PLAIN, 1e-5F, 0.1F},
    /* more images than a backend may treat at a time */
    {2, 3, 3, 1, 5, 4, 32, 1, PLAIN, 1e-5F, 0.1F},
    {2, 3, 3, 1, 5, 4, 33, 2, PLAIN, 1e-5F, 0.1F},
    {2, 3, 3, 1, 5, 4, 65, 1, PLAIN, 1e-5F, 0.1F},
    {3, 7, 5, 1, 9, 7, 7, 1, PLAIN, 1e-5F, 0.1F},
    {3, 7, 5, 1, 9, 7, 15, 2, PLAIN, 1e-5F, 0.1F},
    {3, 7, 5, 1, 9, 7, 16, 2, PLAIN, 1e-5F, 0.1F},
    {3, 7, 5, 1, 9, 7, 17, 1, PLAIN, 1e-5F, 0.1F},
    {3, 7, 5, 1, 9, 7, 100, 2, PLAIN, 1e-5F, 0.1F},
    {2, 3, 3, 1, 5, 4, 145, 1, PLAIN, 1e-5F, 0.1F},
    {2, 3, 3, 1, 5, 4, 700, 1, PLAIN, 1e-5F, 0.1F}, /* or blocks of a GPU */
    /* large kernels */
    {2, 3, 6, 2, 9, 8, 3, 1, PLAIN, 1e-5F, 0.1F},
    {3, 2, 7, 3, 7, 9, 2, 1, PLAIN, 1e-5F, 0.1F},
    {2, 2, 8, 3, 8, 10, 2, 2, PLAIN, 1e-5F, 0.1F},
    {2, 2, 8, 0, 8, 8, 17, 1, PLAIN, 1, 0.1F},
    /* sides that pooling does not divide: the rest counts in the statistics alone */
    {2, 3, 1, 0, 5, 6, 2, 2, TIES, 1e-5F, 0.1F},
    {2, 3, 1, 0, 6, 5, 2, 2, TIES, 1e-3F, 0.3F},
    {2, 1, 1, 0, 7, 7, 1, 2, TIES, 1e-5F, 1.0F},
    {3, 5, 1, 0, 8, 11, 3, 3, TIES, 1e-1F, 0.1F},
    {2, 2, 1, 0, 3, 3, 9, 3, TIES, 1e-5F, 0.1F},
    {3, 7, 1, 0, 1, 9, 1, 1, TIES, 1e-5F, 0.0F},
    {2, 4, 1, 0, 3, 2, 33, 1, TIES, 1e-3F, 0.1F},
    {3, 9, 1, 0, 2, 2, 65, 2, TIES, 1e-5F, 0.1F},
    {2, 3, 1, 0, 5, 7, 15, 2, TIES, 1e-5F, 0.1F},
    {2, 3, 1, 0, 5, 7, 16, 2, TIES, 1e-5F, 0.1F},
    {2, 3, 1, 0, 5, 7, 17, 1, TIES, 1e-5F, 0.1F},
    {2, 3, 1, 0, 5, 7, 100, 2, TIES, 1e-5F, 0.1F},
    {1, 3, 1, 0, 9, 11, 10, 2, FAR, 1e-5F, 0.1F},
    {1, 2, 1, 0, 30, 30, 10, 1, FAR, 1e-5F, 0.1F},
    /* ties everywhere: a window's gradient goes to its first maximum, if that is above 0 */
    {2, 3, 1, 0, 4, 4, 2, 2, DEAD, 1e-5F, 0.1F},
    {2, 3, 1, 0, 5, 5, 3, 2, CONSTANT, 1e-5F, 0.1F},
    {2, 3, 3, 1, 5, 5, 3, 1, CONSTANT, 1e-3F, 0.1F},
    {2, 6, 1, 0, 5, 7, 2, 2, FLAT, 1e-5F, 0.1F},
    {2, 6, 1, 0, 7, 6, 2, 3, FLAT, 1e-5F, 0.1F},
};

static const struct head_case HEADS[] = {
    /* in, out, n: the network's; then others */
    {{24, 10, 10}, 10, 1}, {{24, 10, 10}, 10, 2}, {{24, 10, 10}, 10, 10}, {{1, 1, 1}, 1, 1},
    {{1, 1, 1}, 5, 3},     {{7, 1, 1}, 1, 33},    {{2, 3, 5}, 7, 65},     {{3, 1, 4}, 33, 2},
    {{2, 3, 5}, 10, 15},   {{2, 3, 5}, 10, 16},   {{2, 3, 5}, 10, 17},    {{2, 3, 5}, 10, 100},
};

static void stages_are_the_reference(void **state) {
    for (size_t i = 0; i < COUNT(STAGES); i++) {
        struct model model = {.spare = i % 2 == 0 ? 0 : 3};
        model_stage(&model, &STAGES[i]);
        model_compare(&model, *state);
    }
}

/* ReLU and max-pool must not drop it. In training all of the channel is NaN. */
static void stages_let_nan_through(void **state) {
    for (int pool = 1; pool <= 3; pool++)
        for (int at = 0; at < 36; at += 5) {
            const struct stage_case t = {3, 3, 1, 0, 6, 6, 2, pool, PLAIN, 1e-5F, 0.1F};
            struct model model = {.holes = true};
            model_stage(&model, &t)->x[36 + at] = NAN; /* in channel 1 of image 0 */
            model_compare(&model, *state);
        }
}

static void heads_are_the_reference(void **state) {
    for (size_t i = 0; i < COUNT(HEADS); i++) {
        struct model model = {.spare = i % 2 == 0 ? 3 : 0};
        model_head(&model, &HEADS[i]);
        model_compare(&model, *state);
    }
}

/* With LAYERS_BATCHES="1 2 ..." in the environment: the network's layers at these batches, which
 * take the reference long. */
static void the_network_is_the_reference(void **state) {
    const char *batches = getenv("LAYERS_BATCHES");
    for (char *end; batches != NULL && *batches != '\0'; batches = end) {
        const int n = (int)strtol(batches, &end, 10);
        assert_true(n > 0);
        for (size_t i = 0; i < 12; i += 3) {
            struct stage_case t = STAGES[i];
            struct model stage = {0};
            t.n = n;
            model_stage(&stage, &t);
            model_compare(&stage, *state);
        }
        struct model head = {0};
        model_head(&head, &(struct head_case){{24, 10, 10}, 10, n});
        model_compare(&head, *state);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_network_is_the_reference),
        TEST(stages_are_the_reference),
        TEST(stages_let_nan_through),
        TEST(heads_are_the_reference),
    };
    return test_backends(tests, COUNT(tests));
}
