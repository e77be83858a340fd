/* Where the time of a training step goes, op by op, and how near the convolutions are to what the
 * processor can do.
 *
 *     op_bench DEVICE BATCH THREADS [SECONDS]
 *
 * Each op of the network runs alone on random numbers, all of them in turn, over and over, so that
 * a busy moment of the machine meets them all; the table, in Markdown, gives medians. Multiply-adds
 * are those of the definition, whatever method computes them, and an addition and a multiplication
 * count as two operations. The peak is what a probe reaches in the same run: independent
 * multiply-adds in registers, as wide as the processor has them, on each thread. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the probe ---- */

enum { CHAINS = 12, ROUNDS = 100000 };

/* Operations a second of one thread. The numbers come from and go to volatile memory, so that the
 * compiler cannot do the work itself. */
#define PROBE(bytes)                                                                               \
    typedef float lanes __attribute__((vector_size(bytes)));                                       \
    volatile float factor = 0.999F, addend = 0.001F, sink;                                         \
    lanes sum[CHAINS], x = factor - (lanes){0}, y = addend - (lanes){0};                           \
    for (int k = 0; k < CHAINS; k++)                                                               \
        sum[k] = x * (float)k;                                                                     \
    const double began = clock_seconds();                                                          \
    for (int i = 0; i < ROUNDS; i++)                                                               \
        _Pragma("GCC unroll 12") for (int k = 0; k < CHAINS; k++) sum[k] = sum[k] * x + y;         \
    const double seconds = clock_seconds() - began;                                                \
    for (int k = 0; k < CHAINS; k++)                                                               \
        sink = sum[k][0];                                                                          \
    (void)sink;                                                                                    \
    return 2.0 * ROUNDS * CHAINS * (bytes) / sizeof(float) / seconds;

static double probe_portable(void) {
    PROBE(16)
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static double probe_avx2(void) {
    PROBE(32)
}

__attribute__((target("avx512f,fma"))) static double probe_avx512(void) {
    PROBE(64)
}
#endif

static double probe(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f"))
        return probe_avx512();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return probe_avx2();
#endif
    return probe_portable();
}

static double probe_all(int threads) {
    double sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(static, 1)
    for (int i = 0; i < threads; i++)
        sum += probe();
    return sum;
}

/* ---- the ops of a step ---- */

enum { FORWARD, BACKWARD, ADAM, MOST_ROWS = 24, MOST_ROUNDS = 1000, PARAMETERS = 50326 };

struct row {
    char name[64];
    int kind; /* 'c'onvolution, batch 'n'ormalisation, 'l'inear, 'a'dam */
    int direction;
    double operations; /* 0: not counted */
    struct tensor *x, *y, *dx, *dy;
    struct conv2d conv;
    struct batchnorm norm;
    struct linear linear;
    struct adam adam;
    double *times; /* of all rounds, in seconds */
    double time;   /* their median */
};

static struct device *device;
static struct random dice;
static struct row rows[MOST_ROWS];
static int row_count;

static struct tensor *tensor(int n, int c, int h, int w) {
    const size_t count = (size_t)n * (size_t)(c * h * w);
    struct tensor *t = device->ops->tensor_new(device, n, c, h, w);
    float *values = memory_new(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = random_uniform(&dice, -1, 1);
    device->ops->tensor_upload(device, t, values, n);
    free(values);
    return t;
}

static struct slice slice(size_t count) {
    const struct slice s = {device->ops->block_new(device, count), 0};
    float *values = memory_new(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = random_uniform(&dice, 0.1F, 0.2F);
    device->ops->upload(device, s, values, count);
    free(values);
    return s;
}

static void add(struct row *row, const char *name, double forward, double backward) {
    row->times = memory_new(MOST_ROUNDS, sizeof *row->times);
    row->direction = FORWARD;
    row->operations = forward;
    snprintf(row->name, sizeof row->name, "%s", name);
    rows[row_count++] = *row;
    row->times = memory_new(MOST_ROUNDS, sizeof *row->times);
    row->direction = BACKWARD;
    row->operations = backward;
    snprintf(row->name, sizeof row->name, "%s, backward", name);
    rows[row_count++] = *row;
}

static void add_conv(int n, int in, int out, int side, bool dx) {
    const int after = side - 2;
    const size_t weights = (size_t)(out * in * 25);
    struct row row = {.kind = 'c'};
    char name[64];
    row.conv = (struct conv2d){in,
                               out,
                               5,
                               1,
                               side,
                               side,
                               slice(weights),
                               slice((size_t)out),
                               slice(weights),
                               slice((size_t)out)};
    row.x = tensor(n, in, side, side), row.dx = dx ? tensor(n, in, side, side) : NULL;
    row.y = tensor(n, out, after, after), row.dy = tensor(n, out, after, after);
    const double operations = 2.0 * n * (double)weights * after * after;
    snprintf(name, sizeof name, "Conv %d>%d, %dx%d", in, out, side, side);
    add(&row, name, operations, (dx ? 2 : 1) * operations);
}

static void add_norm(int n, int c, int side, int pool) {
    const size_t count = (size_t)c;
    struct row row = {.kind = 'n'};
    char name[64];
    row.norm = (struct batchnorm){.c = c,
                                  .h = side,
                                  .w = side,
                                  .pool = pool,
                                  .eps = 1e-5F,
                                  .momentum = 0.1F,
                                  .weight = slice(count),
                                  .bias = slice(count),
                                  .dweight = slice(count),
                                  .dbias = slice(count),
                                  .running_mean = slice(count),
                                  .running_var = slice(count),
                                  .saved = slice(2 * count)};
    row.x = tensor(n, c, side, side), row.dx = tensor(n, c, side, side);
    row.y = tensor(n, c, side / pool, side / pool), row.dy = tensor(n, c, side / pool, side / pool);
    snprintf(name, sizeof name, "BN ReLU%s %d, %dx%d", pool > 1 ? " MaxPool" : "", c, side, side);
    add(&row, name, 0, 0);
}

static void add_rest(int n) {
    struct row row = {.kind = 'l'};
    row.linear = (struct linear){2400, 10, slice(24000), slice(10), slice(24000), slice(10)};
    row.x = tensor(n, 24, 10, 10), row.dx = tensor(n, 24, 10, 10);
    row.y = tensor(n, 10, 1, 1), row.dy = tensor(n, 10, 1, 1);
    add(&row, "Linear 2400>10", 2.0 * n * 24000, 4.0 * n * 24000);
    struct row *adam = &rows[row_count++];
    *adam = (struct row){.kind = 'a', .direction = ADAM, .name = "Adam"};
    adam->times = memory_new(MOST_ROUNDS, sizeof *adam->times);
    adam->adam = (struct adam){PARAMETERS,
                               1e-3,
                               0.9,
                               0.999,
                               1e-8,
                               1e-4,
                               slice(PARAMETERS).block,
                               slice(PARAMETERS).block,
                               slice(PARAMETERS).block,
                               slice(PARAMETERS).block};
}

static void run(const struct row *row, int n) {
    const struct device_ops *op = device->ops;
    switch (row->kind) {
    case 'c':
        if (row->direction == FORWARD)
            op->conv2d_forward(device, row->y, row->x, &row->conv, n);
        else
            op->conv2d_backward(device, row->dx, row->dy, row->x, &row->conv, n);
        break;
    case 'n':
        if (row->direction == FORWARD)
            op->batchnorm_forward(device, row->y, row->x, &row->norm, true, n);
        else
            op->batchnorm_backward(device, row->dx, row->dy, row->x, &row->norm, n);
        break;
    case 'l':
        if (row->direction == FORWARD)
            op->linear_forward(device, row->y, row->x, &row->linear, n);
        else
            op->linear_backward(device, row->dx, row->dy, row->x, &row->linear, n);
        break;
    case 'a':
        op->adam_step(device, &row->adam);
        break;
    }
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *row, int count) {
    qsort(row, (size_t)count, sizeof *row, compare);
    return row[count / 2];
}

int main(int argc, char **argv) {
    static double peaks[MOST_ROUNDS];
    struct error error;
    char description[256];
    const int n = argc > 2 ? atoi(argv[2]) : 0, threads = argc > 3 ? atoi(argv[3]) : 0;
    const double seconds = argc > 4 ? atof(argv[4]) : 3;
    if (n < 1 || threads < 1) {
        fprintf(stderr, "op_bench: usage: op_bench DEVICE BATCH THREADS [SECONDS]\n");
        return STATUS_USAGE;
    }
    if (!device_open(&device, argv[1], &(struct device_options){.threads = threads}, &error)) {
        fprintf(stderr, "op_bench: %s\n", error.text);
        return error.status;
    }
    if (device->runs_ahead) {
        fprintf(stderr, "op_bench: --device %s: its ops return before they are done\n",
                device->ops->name);
        return STATUS_USAGE;
    }
    random_seed(&dice, 0);
    add_conv(n, 3, 12, 32, false);
    add_norm(n, 12, 30, 1);
    add_conv(n, 12, 12, 30, true);
    add_norm(n, 12, 28, 2);
    add_conv(n, 12, 24, 14, true);
    add_norm(n, 24, 12, 1);
    add_conv(n, 24, 24, 12, true);
    add_norm(n, 24, 10, 1);
    add_rest(n);

    int rounds = 0;
    const double began = clock_seconds();
    for (; rounds < MOST_ROUNDS && (rounds < 5 || clock_seconds() - began < seconds); rounds++) {
        peaks[rounds] = probe_all(threads);
        for (int i = 0; i < row_count; i++) {
            const double start = clock_seconds();
            run(&rows[i], n);
            rows[i].times[rounds] = clock_seconds() - start;
        }
    }
    const double peak = median(peaks, rounds);
    double total = 0, convs = 0, operations = 0;
    device->ops->describe(device, description, sizeof description);
    printf("%s: %s; batch %d; peak %.0f GFLOP/s; medians of %d rounds\n\n", device->ops->name,
           description, n, peak * 1e-9, rounds);
    printf("| op | us | %% of the step | GFLOP/s | %% of peak |\n|---|---|---|---|---|\n");
    for (int i = 0; i < row_count; i++)
        total += rows[i].time = median(rows[i].times, rounds);
    for (int i = 0; i < row_count; i++) {
        const double time = rows[i].time;
        printf("| %s | %.0f | %.1f |", rows[i].name, 1e6 * time, 100 * time / total);
        if (rows[i].operations > 0)
            printf(" %.0f | %.0f |\n", 1e-9 * rows[i].operations / time,
                   100 * rows[i].operations / time / peak);
        else
            printf(" | |\n");
        if (rows[i].kind == 'c') {
            convs += time;
            operations += rows[i].operations;
        }
        free(rows[i].times);
    }
    printf("| all convolutions | %.0f | %.1f | %.0f | %.0f |\n", 1e6 * convs, 100 * convs / total,
           1e-9 * operations / convs, 100 * operations / convs / peak);
    printf("| all ops | %.0f | 100 | | |\n", 1e6 * total);
    device->ops->close(device);
    return 0;
}
