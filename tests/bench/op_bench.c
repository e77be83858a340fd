/* Where the time of a training step goes, op by op, and how near the convolutions are to what the
 * processor can do.
 *
 *     op_bench DEVICE BATCH THREADS [SECONDS]
 *
 * Each op of the network runs alone on random numbers, all of them in turn, over and over, so that
 * a busy moment of the machine meets them all; the table, in Markdown, gives medians. Multiply-adds
 * are those of the convolutions and of Linear by their definition, whatever method computes them,
 * and an addition and a multiplication count as two operations. The peak is what a probe reaches in
 * the same run: independent multiply-adds in registers, as wide as the processor has them, on each
 * thread. */
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

enum { STAGES = 4, ROWS = 2 * STAGES + 6, MOST_ROUNDS = 1000, PARAMETERS = 50326, CLASSES = 10 };

/* An op, as a step of its own. */
struct row {
    char name[64];
    double operations; /* 0: not counted */
    bool is_stage;
    struct step *step;
    double *times; /* of all rounds, in seconds */
    double time;   /* their median */
};

static struct device *device;
static struct random dice;
static int batch;
static struct pass *pass; /* over an image of one pixel: the loss needs one, and so do optimisers */
static struct view *views;
static struct script script;
static struct stage stages[STAGES];
static struct head head;
static struct adam adam;
static struct sgd sgd;
static struct muon muon;
static struct average average;
static struct row rows[ROWS];
static int row_count, in_step; /* of these in a step by the recipe `tutorial` */

static struct tensor *tensor(int c, int h, int w) {
    const size_t count = (size_t)batch * (size_t)(c * h * w);
    struct tensor *t = device->ops->tensor_new(device, batch, c, h, w);
    float *values = memory_new(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = random_uniform(&dice, -1, 1);
    device->ops->tensor_upload(device, t, values, batch);
    free(values);
    return t;
}

static struct slice slice(int count) {
    const struct slice s = {device->ops->block_new(device, (size_t)count), 0};
    float *values = memory_new((size_t)count, sizeof *values);
    for (int i = 0; i < count; i++)
        values[i] = random_uniform(&dice, 0.1F, 0.2F);
    device->ops->upload(device, s, values, (size_t)count);
    free(values);
    return s;
}

static void make_pass(void) {
    static const uint8_t record[2] = {0};
    static const double schedule = 1;
    const struct images images = {record, 1, CLASSES, 1, 1, 1};
    pass = device->ops->pass_new(device, device->ops->dataset_new(device, &images), batch, 1);
    views = memory_new((size_t)batch, sizeof *views);
    script = (struct script){views, batch, &schedule, 1, 0};
}

static struct row *add(const char *name, const char *direction, double operations,
                       const struct op *ops, int count, int n) {
    const struct step_description description = {ops, count, .training = true, pass, n};
    struct row *row = &rows[row_count++];
    snprintf(row->name, sizeof row->name, "%s%s", name, direction);
    row->operations = operations;
    row->step = device->ops->step_new(device, &description);
    row->times = memory_new(MOST_ROUNDS, sizeof *row->times);
    return row;
}

static void add_stage(struct stage *stage, int in, int out, int side, int pool, bool dx) {
    const int after = side - 2, pooled = after / pool, weights = out * in * 25;
    const double operations = 2.0 * batch * weights * after * after;
    char name[48];
    stage->x = tensor(in, side, side), stage->dx = dx ? tensor(in, side, side) : NULL;
    stage->z = tensor(out, after, after), stage->dz = tensor(out, after, after);
    stage->y = tensor(out, pooled, pooled), stage->dy = tensor(out, pooled, pooled);
    struct conv2d *conv = &stage->conv;
    *conv = (struct conv2d){.in = in, .out = out, .kernel = 5, .pad = 1, .h = side, .w = side};
    conv->weight = slice(weights), conv->dweight = slice(weights);
    conv->bias = slice(out), conv->dbias = slice(out);
    struct batchnorm *norm = &stage->norm;
    *norm = (struct batchnorm){
        .c = out, .h = after, .w = after, .pool = pool, .eps = 1e-5F, .momentum = 0.1F};
    norm->weight = slice(out), norm->dweight = slice(out);
    norm->bias = slice(out), norm->dbias = slice(out);
    norm->running_mean = slice(out), norm->running_var = slice(out);
    norm->saved = slice(2 * out);
    snprintf(name, sizeof name, "Conv BN ReLU%s %d>%d, %dx%d", pool > 1 ? " MaxPool" : "", in, out,
             side, side);
    const struct op forward = {OP_STAGE, .stage = stage};
    const struct op backward = {OP_STAGE_BACKWARD, .stage = stage};
    add(name, "", operations, &forward, 1, batch)->is_stage = true;
    add(name, ", backward", (dx ? 2 : 1) * operations, &backward, 1, batch)->is_stage = true;
}

static void make_head(void) {
    enum { IN = 2400 };
    head =
        (struct head){.in = IN, .out = CLASSES, .x = tensor(24, 10, 10), .dx = tensor(24, 10, 10)};
    head.weight = slice(IN * CLASSES), head.dweight = slice(IN * CLASSES);
    head.bias = slice(CLASSES), head.dbias = slice(CLASSES);
    head.y = tensor(CLASSES, 1, 1), head.dy = tensor(CLASSES, 1, 1);
}

static void add_optimizer(const char *name, struct tensor *pixels, struct op op) {
    const struct op ops[] = {{OP_LOAD, .images = pixels}, op};
    add(name, "", 0, ops, 2, 1);
}

/* What is not in the step stands in brackets. */
static void add_rest(void) {
    const double operations = 2.0 * batch * 24000;
    struct tensor *pixels = tensor(1, 1, 1);
    make_head();
    adam = (struct adam){1e-3, 0.9, 0.999, 1e-8, 1e-4, .ranges = 1, .range = {{0, PARAMETERS}}};
    adam.parameters = slice(PARAMETERS).block, adam.gradients = slice(PARAMETERS).block;
    adam.exp_avg = slice(PARAMETERS).block, adam.exp_avg_sq = slice(PARAMETERS).block;
    sgd = (struct sgd){1e-3,           0.9,         1e-4, 1, {{0, PARAMETERS}}, adam.parameters,
                       adam.gradients, adam.exp_avg};
    muon = (struct muon){1e-3,
                         0.95,
                         STAGES,
                         {{0, 12, 75}, {900, 12, 300}, {4500, 24, 300}, {11700, 24, 600}},
                         adam.parameters,
                         adam.gradients,
                         adam.exp_avg};
    average = (struct average){PARAMETERS, 0.999, adam.exp_avg_sq, adam.parameters};
    const struct op load = {OP_LOAD, .images = pixels};
    const struct op forward[] = {load, {OP_HEAD, .head = &head}};
    const struct op backward = {OP_HEAD_BACKWARD, .head = &head};
    add("Linear 2400>10", "", operations, forward, 2, batch);
    add("Linear 2400>10", ", backward", 2 * operations, &backward, 1, batch);
    add_optimizer("Adam", pixels, (struct op){OP_ADAM, .adam = &adam});
    in_step = row_count;
    add_optimizer("(SGD)", pixels, (struct op){OP_SGD, .sgd = &sgd});
    add_optimizer("(Muon, of the convolutions' weights)", pixels,
                  (struct op){OP_MUON, .muon = &muon});
    add_optimizer("(average)", pixels, (struct op){OP_AVERAGE, .average = &average});
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
    batch = n;
    random_seed(&dice, 0);
    make_pass();
    add_stage(&stages[0], 3, 12, 32, 1, false);
    add_stage(&stages[1], 12, 12, 30, 2, true);
    add_stage(&stages[2], 12, 24, 14, 1, true);
    add_stage(&stages[3], 24, 24, 12, 1, true);
    add_rest();

    int rounds = 0;
    const double began = clock_seconds();
    for (; rounds < MOST_ROUNDS && (rounds < 5 || clock_seconds() - began < seconds); rounds++) {
        peaks[rounds] = probe_all(threads);
        for (int i = 0; i < row_count; i++) {
            device->ops->pass_begin(device, pass, &script);
            const double start = clock_seconds();
            device->ops->step_run(device, rows[i].step, 1);
            rows[i].times[rounds] = clock_seconds() - start;
        }
    }
    const double peak = median(peaks, rounds);
    double total = 0, stages_time = 0, operations = 0;
    device->ops->describe(device, description, sizeof description);
    printf("%s: %s, %d thread%s; batch %d; peak %.0f GFLOP/s; medians of %d rounds\n\n",
           device->ops->name, description, threads, threads > 1 ? "s" : "", n, peak * 1e-9, rounds);
    printf("| op | us | %% of the step | GFLOP/s | %% of peak |\n|---|---|---|---|---|\n");
    for (int i = 0; i < row_count; i++)
        rows[i].time = median(rows[i].times, rounds);
    for (int i = 0; i < in_step; i++)
        total += rows[i].time;
    for (int i = 0; i < row_count; i++) {
        const double time = rows[i].time;
        printf("| %s | %.0f | %.1f |", rows[i].name, 1e6 * time, 100 * time / total);
        if (rows[i].operations > 0)
            printf(" %.0f | %.0f |\n", 1e-9 * rows[i].operations / time,
                   100 * rows[i].operations / time / peak);
        else
            printf(" | |\n");
        if (rows[i].is_stage) {
            stages_time += time;
            operations += rows[i].operations;
        }
        free(rows[i].times);
    }
    printf("| all stages | %.0f | %.1f | %.0f | %.0f |\n", 1e6 * stages_time,
           100 * stages_time / total, 1e-9 * operations / stages_time,
           100 * operations / stages_time / peak);
    printf("| all ops | %.0f | 100 | | |\n", 1e6 * total);
    device->ops->close(device);
    free(views);
    return 0;
}
