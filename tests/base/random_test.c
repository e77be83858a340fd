/* The generator against the published answers of MT19937 and its own definition. That it agrees
 * with PyTorch is tested with the golden files. */
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static struct random seeded(uint64_t seed) {
    struct random random;
    random_seed(&random, seed);
    return random;
}

/* Draw number `index`, counted from 1. */
static uint32_t nth_draw(uint64_t seed, int index) {
    struct random random = seeded(seed);
    for (int i = 1; i < index; i++)
        random_draw(&random);
    return random_draw(&random);
}

/* Two generators that will draw the same from now on. */
static void assert_same_place(struct random a, struct random b) {
    for (int i = 0; i < 700; i++) /* past one renewal of the state */
        assert_int_equal(random_draw(&a), random_draw(&b));
}

/* The answers of the C++ standard ([rand.predef]), of the authors' program and of NumPy. */
static void draws_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        int index;
        uint32_t answer;
    } cases[] = {
        {5489, 1, 3499211612U},   {5489, 2, 581869302U},    {5489, 3, 3890346734U},
        {5489, 624, 4020325887U}, {5489, 625, 4178893912U}, {5489, 10000, 4123659995U},
        {0, 1, 2357136044U},      {1, 1, 1791095845U},      {42, 1, 1608637542U},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(nth_draw(cases[i].seed, cases[i].index), cases[i].answer);
}

static void takes_the_low_32_bits_of_the_seed(void **state) {
    (void)state;
    assert_same_place(seeded(7), seeded(7 + (UINT64_C(1) << 32)));
    assert_same_place(seeded(UINT32_MAX), seeded(UINT64_MAX));
    assert_true(nth_draw(7, 1) != nth_draw(8, 1));
}

/* Seeding anew forgets all that was drawn. */
static void seeds_again_from_the_start(void **state) {
    (void)state;
    struct random used = seeded(3);
    for (int i = 0; i < 1000; i++)
        random_draw(&used);
    random_seed(&used, 4);
    assert_same_place(used, seeded(4));
}

/* One draw each, of which the low 24 bits count: exactly (draw mod 2^24) / 2^24, scaled with one
 * rounding. */
static void uniform_is_as_defined(void **state) {
    (void)state;
    static const float ranges[][2] = {{0, 1}, {-1, 1}, {-0.11547005F, 0.11547005F}, {2.5F, 2.75F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const float low = ranges[i][0], high = ranges[i][1];
        struct random random = seeded(11 + i), draws = random;
        for (int j = 0; j < 20000; j++) {
            const float unit = (float)(random_draw(&draws) % (1U << 24)) / 16777216;
            const float expected = (float)((long double)unit * (high - low) + low);
            const float value = random_uniform(&random, low, high);
            assert_memory_equal(&value, &expected, sizeof value);
            assert_true(value >= low && value < high);
        }
        assert_same_place(random, draws);
    }
}

/* The ends of the range, by words of the engine that are tempered to the draws 0 and 2^32 - 1. */
static void uniform_reaches_low_but_never_high(void **state) {
    (void)state;
    struct random random = {.state = {0, 0x12dd9bb3U, 0x12dd9bb3U}, .next = 0};
    assert_true(random_uniform(&random, -1, 1) == -1);
    assert_true(random_uniform(&random, 0, 1) == 1 - 0x1p-24F);
    assert_true(random_uniform(&random, -1, 1) == 1 - 0x1p-23F);
}

static void permutation_holds_every_number_once(void **state) {
    (void)state;
    enum { MOST = 5000 };
    static const uint32_t counts[] = {0, 1, 2, 3, 10, 623, 624, 625, MOST};
    static uint32_t order[MOST + 1];
    static uint8_t seen[MOST];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint32_t count = counts[i];
        struct random random = seeded(i), draws = random;
        memset(seen, 0, sizeof seen);
        order[count] = 0xabcdef;
        random_permutation(&random, order, count);
        assert_int_equal(order[count], 0xabcdef); /* nothing is written behind the end */
        for (uint32_t j = 0; j < count; j++) {
            assert_in_range(order[j], 0, count - 1);
            assert_int_equal(seen[order[j]]++, 0);
        }
        for (uint32_t j = 1; j < count; j++) /* count - 1 draws, none for 0 and 1 */
            random_draw(&draws);
        assert_same_place(random, draws);
    }
}

/* Two numbers change places where the draw is odd; three, worked out by hand from two draws. */
static void permutation_is_as_defined(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 64; seed++) {
        const uint32_t first = nth_draw(seed, 1), second = nth_draw(seed, 2);
        uint32_t two[2], three[3];
        struct random random = seeded(seed);
        random_permutation(&random, two, 2);
        assert_int_equal(two[0], first % 2);
        random = seeded(seed);
        random_permutation(&random, three, 3);
        static const uint32_t orders[3][2][3] = {
            {{0, 1, 2}, {0, 2, 1}}, {{1, 0, 2}, {1, 2, 0}}, {{2, 1, 0}, {2, 0, 1}}};
        assert_memory_equal(three, orders[first % 3][second % 2], sizeof three);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_the_known_answers),
        cmocka_unit_test(takes_the_low_32_bits_of_the_seed),
        cmocka_unit_test(seeds_again_from_the_start),
        cmocka_unit_test(uniform_is_as_defined),
        cmocka_unit_test(uniform_reaches_low_but_never_high),
        cmocka_unit_test(permutation_holds_every_number_once),
        cmocka_unit_test(permutation_is_as_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
