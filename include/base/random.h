/* Random numbers: PyTorch's CPU generator, draw by draw, so that a seed means here what it means
 * there. The engine is MT19937 (Matsumoto and Nishimura, 1998) with the classic seeding. */
#pragma once

#include <stdint.h>

struct random {
    uint32_t state[624];
    int next; /* index of the word to be drawn next; 624 when the state must be renewed first */
};

/* As torch.manual_seed(seed): the engine takes the low 32 bits. */
void random_seed(struct random *random, uint64_t seed);

/* The next 32 random bits. */
uint32_t random_draw(struct random *random);

/* As tensor.uniform_(low, high) draws one float: the low 24 bits of one draw, times 2^-24, scaled
 * to [low, high) with one rounding, as PyTorch's build with fused multiply-adds does. */
float random_uniform(struct random *random, float low, float high);

/* As torch.randperm(count): order[0..count) becomes a permutation of 0 .. count-1. Element i is
 * swapped with element i + draw % (count - i), for i from 0 to count-2; count - 1 draws. */
void random_permutation(struct random *random, uint32_t *order, uint32_t count);
