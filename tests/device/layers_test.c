/* Convolution, batch normalisation with ReLU and max-pool, and Linear against the reference,
 * forward and backward, over shapes that a kernel could get wrong. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>

static const struct conv_case CONVS[] = {
    /* in, out, kernel, pad, h, w, n: the network's */
    {3, 12, 5, 1, 32, 32, 1},
    {3, 12, 5, 1, 32, 32, 2},
    {3, 12, 5, 1, 32, 32, 10},
    {12, 12, 5, 1, 30, 30, 1},
    {12, 12, 5, 1, 30, 30, 2},
    {12, 12, 5, 1, 30, 30, 10},
    {12, 24, 5, 1, 14, 14, 1},
    {12, 24, 5, 1, 14, 14, 2},
    {12, 24, 5, 1, 14, 14, 10},
    {24, 24, 5, 1, 12, 12, 1},
    {24, 24, 5, 1, 12, 12, 2},
    {24, 24, 5, 1, 12, 12, 10},
    /* 1 x 1 kernels and images, outputs of one pixel */
    {3, 5, 1, 0, 6, 4, 3},
    {7, 1, 1, 1, 4, 5, 2},
    {1, 1, 1, 0, 1, 1, 1},
    {2, 3, 3, 1, 1, 1, 4},
    {3, 2, 5, 2, 1, 1, 2},
    {2, 7, 5, 0, 5, 5, 3},
    {4, 3, 4, 1, 2, 2, 1},
    /* sides that differ, 1 and 7 channels, pad from 0 to more than kernel - 1, even kernels */
    {1, 7, 3, 0, 9, 4, 2},
    {7, 1, 3, 1, 4, 11, 2},
    {7, 7, 3, 2, 5, 8, 3},
    {1, 1, 5, 4, 3, 7, 2},
    {2, 3, 3, 3, 4, 3, 2},
    {3, 2, 2, 4, 3, 5, 2},
    {2, 2, 2, 1, 6, 3, 1},
    {1, 3, 1, 2, 1, 40, 2},
    {2, 1, 3, 1, 40, 1, 2},
    /* as one of these but for one number: what a backend keeps of one is not for the other */
    {3, 4, 3, 2, 6, 6, 2},
    {2, 4, 3, 2, 6, 6, 2},
    {3, 5, 3, 2, 6, 6, 2},
    {3, 4, 2, 2, 6, 6, 2},
    {3, 4, 3, 1, 6, 6, 2},
    {3, 4, 3, 2, 7, 6, 2},
    {3, 4, 3, 2, 6, 7, 2},
    {3, 4, 3, 2, 6, 6, 3},
    /* more images than a backend may treat at a time */
    {2, 3, 3, 1, 5, 4, 32},
    {2, 3, 3, 1, 5, 4, 33},
    {2, 3, 3, 1, 5, 4, 65},
    {3, 7, 5, 1, 9, 7, 7},
    {3, 7, 5, 1, 9, 7, 15},
    {3, 7, 5, 1, 9, 7, 16},
    {3, 7, 5, 1, 9, 7, 17},
    {3, 7, 5, 1, 9, 7, 100},
    {2, 3, 3, 1, 5, 4, 145},
    {2, 3, 3, 1, 5, 4, 700}, /* or blocks of a GPU */
    /* large kernels */
    {2, 3, 6, 2, 9, 8, 3},
    {3, 2, 7, 3, 7, 9, 2},
    {2, 2, 8, 3, 8, 10, 2},
    {2, 2, 8, 0, 8, 8, 17},
};

static const struct norm_case NORMS[] = {
    /* c, h, w, pool, n, data, eps, momentum: the network's */
    {12, 30, 30, 1, 10, PLAIN, 1e-5F, 0.1F},
    {12, 28, 28, 2, 10, PLAIN, 1e-5F, 0.1F},
    {24, 12, 12, 1, 10, PLAIN, 1e-5F, 0.1F},
    {24, 10, 10, 1, 1, PLAIN, 1e-5F, 0.1F},
    /* sides that pooling does not divide: the rest counts in the statistics alone */
    {3, 5, 6, 2, 2, PLAIN, 1e-5F, 0.1F},
    {3, 6, 5, 2, 2, PLAIN, 1e-3F, 0.3F},
    {1, 7, 7, 2, 1, PLAIN, 1e-5F, 1.0F},
    {5, 8, 11, 3, 3, PLAIN, 1e-1F, 0.1F},
    {2, 3, 3, 3, 9, PLAIN, 1e-5F, 0.1F},
    {7, 1, 9, 1, 1, PLAIN, 1e-5F, 0.0F},
    {4, 3, 2, 1, 33, PLAIN, 1e-3F, 0.1F},
    {9, 2, 2, 2, 65, PLAIN, 1e-5F, 0.1F},
    {3, 5, 7, 2, 15, PLAIN, 1e-5F, 0.1F},
    {3, 5, 7, 2, 16, PLAIN, 1e-5F, 0.1F},
    {3, 5, 7, 1, 17, PLAIN, 1e-5F, 0.1F},
    {3, 5, 7, 2, 100, PLAIN, 1e-5F, 0.1F},
    {3, 9, 11, 2, 10, FAR, 1e-5F, 0.1F},
    {2, 30, 30, 1, 10, FAR, 1e-5F, 0.1F},
    /* ties everywhere: a window's gradient goes to its first maximum, if that is above 0 */
    {3, 4, 4, 2, 2, DEAD, 1e-5F, 0.1F},
    {3, 5, 5, 2, 3, CONSTANT, 1e-5F, 0.1F},
    {3, 5, 5, 1, 3, CONSTANT, 1e-3F, 0.1F},
    {6, 5, 7, 2, 2, FLAT, 1e-5F, 0.1F},
    {6, 7, 6, 3, 2, FLAT, 1e-5F, 0.1F},
};

static const struct linear_case LINEARS[] = {
    /* in, out, n: the network's; then others */
    {{24, 10, 10}, 10, 1}, {{24, 10, 10}, 10, 2}, {{24, 10, 10}, 10, 10}, {{1, 1, 1}, 1, 1},
    {{1, 1, 1}, 5, 3},     {{7, 1, 1}, 1, 33},    {{2, 3, 5}, 7, 65},     {{3, 1, 4}, 33, 2},
    {{2, 3, 5}, 10, 15},   {{2, 3, 5}, 10, 16},   {{2, 3, 5}, 10, 17},    {{2, 3, 5}, 10, 100},
};

static void conv2d_is_the_reference(void **state) {
    for (size_t i = 0; i < COUNT(CONVS); i++) {
        struct layer l = conv_layer(&CONVS[i]);
        l.spare = i % 2 == 0 ? 0 : 3;
        compare_layer(*state, &l, true);
    }
}

static void batchnorm_is_the_reference(void **state) {
    for (size_t i = 0; i < COUNT(NORMS); i++) {
        struct layer l = norm_layer(&NORMS[i]);
        l.spare = i % 2 == 0 ? 0 : 3;
        compare_layer(*state, &l, true);
        compare_layer(*state, &l, false);
    }
}

/* ReLU and max-pool must not drop it. In training all of the channel is NaN. */
static void batchnorm_lets_nan_through(void **state) {
    for (int pool = 1; pool <= 3; pool++)
        for (int at = 0; at < 36; at += 5) {
            const struct norm_case norm = {3, 6, 6, pool, 2, PLAIN, 1e-5F, 0.1F};
            struct layer l = norm_layer(&norm);
            l.x[36 + at] = NAN; /* in channel 1 of image 0 */
            compare_layer(*state, &l, true);
            compare_layer(*state, &l, false);
        }
}

static void linear_is_the_reference(void **state) {
    for (size_t i = 0; i < COUNT(LINEARS); i++) {
        struct layer l = linear_layer(&LINEARS[i]);
        l.spare = i % 2 == 0 ? 3 : 0;
        compare_layer(*state, &l, true);
    }
}

/* With LAYERS_BATCHES="1 2 ..." in the environment: the network's layers at these batches, which
 * take the reference long. */
static void the_network_is_the_reference(void **state) {
    static const struct conv_case convs[] = {{3, 12, 5, 1, 32, 32, 0},
                                             {12, 12, 5, 1, 30, 30, 0},
                                             {12, 24, 5, 1, 14, 14, 0},
                                             {24, 24, 5, 1, 12, 12, 0}};
    static const struct norm_case norms[] = {{12, 30, 30, 1, 0, PLAIN, 1e-5F, 0.1F},
                                             {12, 28, 28, 2, 0, PLAIN, 1e-5F, 0.1F},
                                             {24, 12, 12, 1, 0, PLAIN, 1e-5F, 0.1F},
                                             {24, 10, 10, 1, 0, PLAIN, 1e-5F, 0.1F}};
    const char *batches = getenv("LAYERS_BATCHES");
    for (char *end; batches != NULL && *batches != '\0'; batches = end) {
        const int n = (int)strtol(batches, &end, 10);
        assert_true(n > 0);
        for (size_t i = 0; i < COUNT(convs); i++) {
            struct conv_case conv = convs[i];
            struct norm_case norm = norms[i];
            conv.n = norm.n = n;
            const struct layer layers[] = {conv_layer(&conv), norm_layer(&norm)};
            compare_layer(*state, &layers[0], true);
            compare_layer(*state, &layers[1], true);
            compare_layer(*state, &layers[1], false);
        }
        const struct layer last = linear_layer(&(struct linear_case){{24, 10, 10}, 10, n});
        compare_layer(*state, &last, true);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_network_is_the_reference), TEST(conv2d_is_the_reference),
        TEST(batchnorm_is_the_reference),   TEST(batchnorm_lets_nan_through),
        TEST(linear_is_the_reference),
    };
    int failures = 0;
    for (const char *name; (name = next_backend()) != NULL;)
        failures += cmocka_run_group_tests_name(name, tests, NULL, NULL);
    return failures;
}
