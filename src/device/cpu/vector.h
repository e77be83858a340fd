/* Vectors of floats, as wide as the instruction set that this file is compiled for. They are GCC's
 * and Clang's vector types: + - * work lane by lane, and a float is spread over the lanes. */
#pragma once

#include <string.h>

#if defined __AVX512F__
#    define LANES 16
#elif defined __AVX2__
#    define LANES 8
#else
#    define LANES 4
#endif

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int mask __attribute__((vector_size(4 * LANES))); /* -1 where a comparison holds, else 0 */
typedef float half __attribute__((vector_size(2 * LANES)));
typedef double double_vector __attribute__((vector_size(4 * LANES)));
typedef float vector4 __attribute__((vector_size(16)));

/* At any address. */
static inline vector load(const float *from) {
    vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* The first `count` lanes, the others 0. */
static inline vector load_part(const float *from, size_t count) {
    vector v = {0};
    memcpy(&v, from, count * sizeof *from);
    return v;
}

static inline void store(float *to, vector v) {
    memcpy(to, &v, sizeof v);
}

static inline vector spread(float x) {
    return x - (vector){0};
}

/* a where the mask is set, b elsewhere. */
static inline vector choose(mask m, vector a, vector b) {
    return (vector)((m & (mask)a) | (~m & (mask)b));
}

/* A sum of vectors, lane by lane in double. */
struct sum {
    double_vector low, high; /* of the first half of the lanes, and of the others */
};

static inline void add_to(struct sum *sum, vector v) {
    half part[2];
    memcpy(part, &v, sizeof v);
    sum->low += __builtin_convertvector(part[0], double_vector);
    sum->high += __builtin_convertvector(part[1], double_vector);
}

static inline double sum_of_lanes(struct sum sum) {
    double all = 0;
    for (int i = 0; i < LANES / 2; i++)
        all += sum.low[i] + sum.high[i];
    return all;
}

/* Four partial sums of the lanes. */
static inline vector4 fold(vector v) {
    vector4 part[LANES / 4], sum;
    memcpy(part, &v, sizeof v);
    sum = part[0];
    for (int i = 1; i < LANES / 4; i++)
        sum += part[i];
    return sum;
}

/* The sums over the lanes of four vectors. */
static inline vector4 sums_of_lanes(vector a, vector b, vector c, vector d) {
    const vector4 p = fold(a), q = fold(b), r = fold(c), s = fold(d);
    const vector4 pq = {p[0] + p[1], q[0] + q[1], p[2] + p[3], q[2] + q[3]};
    const vector4 rs = {r[0] + r[1], s[0] + s[1], r[2] + r[3], s[2] + s[3]};
    return (vector4){pq[0], pq[1], rs[0], rs[1]} + (vector4){pq[2], pq[3], rs[2], rs[3]};
}
