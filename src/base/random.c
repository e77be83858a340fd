#include "base/random.h"

#include <math.h>

enum { STATE_WORDS = 624, SHIFT_WORDS = 397 };

void random_seed(struct random *random, uint64_t seed) {
    random->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < STATE_WORDS; i++) {
        uint32_t before = random->state[i - 1];
        random->state[i] = 1812433253U * (before ^ (before >> 30)) + i;
    }
    random->next = STATE_WORDS;
}

static void renew(uint32_t state[STATE_WORDS]) {
    for (int i = 0; i < STATE_WORDS; i++) {
        uint32_t mixed = (state[i] & 0x80000000U) | (state[(i + 1) % STATE_WORDS] & 0x7fffffffU);
        uint32_t twist = (mixed & 1U) ? 0x9908b0dfU : 0;
        state[i] = state[(i + SHIFT_WORDS) % STATE_WORDS] ^ (mixed >> 1) ^ twist;
    }
}

uint32_t random_draw(struct random *random) {
    if (random->next == STATE_WORDS) {
        renew(random->state);
        random->next = 0;
    }
    uint32_t word = random->state[random->next++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680U;
    word ^= (word << 15) & 0xefc60000U;
    return word ^ (word >> 18);
}

float random_uniform(struct random *random, float low, float high) {
    float unit = (float)(random_draw(random) & 0xffffffU) * 0x1p-24F;
    return fmaf(unit, high - low, low);
}

void random_permutation(struct random *random, uint32_t *order, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = 0; i + 1 < count; i++) {
        uint32_t j = i + random_draw(random) % (count - i);
        uint32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}
