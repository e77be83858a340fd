/* The device itself: the choice of an instruction set, activations in and out, the images of a
 * batch. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_ops cpu_ops;

/* ---- instruction sets ---- */

extern const struct host_kernels cpu_kernels_portable, cpu_kernels_avx2, cpu_kernels_avx512;

static bool always(void) {
    return true;
}

#ifdef CPU_X86
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

/* Best first. */
static const struct instruction_set {
    const char *name;
    const char *text; /* for people */
    const struct host_kernels *kernels;
    bool (*usable)(void);
} SETS[] = {
#ifdef CPU_X86
    {"avx512", "AVX-512", &cpu_kernels_avx512, has_avx512},
    {"avx2", "AVX2 and FMA", &cpu_kernels_avx2, has_avx2},
#endif
    {"portable", "any processor", &cpu_kernels_portable, always},
};
enum { SET_COUNT = sizeof SETS / sizeof *SETS };

/* The set that $CIFAR_CPU names, or the best one. */
static const struct instruction_set *choose_set(struct error *error) {
    const char *wanted = getenv("CIFAR_CPU");
    char names[64] = "";
    for (int i = 0; i < SET_COUNT; i++) {
        if (wanted == NULL || *wanted == '\0' ? SETS[i].usable() : !strcmp(wanted, SETS[i].name)) {
            if (SETS[i].usable())
                return &SETS[i];
            error_set(error, STATUS_USAGE, "CIFAR_CPU=%s: this processor has no %s", wanted,
                      SETS[i].text);
            return NULL;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ", ", SETS[i].name);
    }
    error_set(error, STATUS_USAGE,
              "CIFAR_CPU=%s: there is no such instruction set here; choose one of %s", wanted,
              names);
    return NULL;
}

static void cpu_describe(const struct device *device, char *text, size_t size) {
    struct error error;
    const struct instruction_set *set = device == NULL ? choose_set(&error) : SETS;
    if (set == NULL) {
        snprintf(text, size, "not usable here: %s", error.text);
        return;
    }
    while (device != NULL && set->kernels != ((const struct host *)(const void *)device)->kernels)
        set++;
    snprintf(text, size, "kernels for %s", set->text);
}

/* ---- activations ---- */

static struct tensor *tensor_new(struct device *device, int n, int c, int h, int w) {
    struct host *d = host_of(device);
    struct tensor *t = host_own(d, 1, sizeof *t);
    *t = (struct tensor){.c = c, .h = h, .w = w, .capacity = n, .n = n};
    const size_t rows = (size_t)block_count(n) * (size_t)(c * h);
    t->data = host_own(d, rows * row_pitch(w, least(n, BLOCK)) + BLOCK, sizeof *t->data);
    return t;
}

static void tensor_upload(struct device *device, struct tensor *to, const float *from, int n) {
    (void)device;
    tensor_write(to, n);
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(n, block);
        for (int i = 0; i < b; i++)
            for (int c = 0; c < to->c; c++)
                for (int y = 0; y < to->h; y++) {
                    float *row = tensor_row(to, block, b, c, y);
                    for (int x = 0; x < to->w; x++)
                        row[x * b + i] = *from++;
                    clear_rest(row, (size_t)(to->w * b), row_pitch(to->w, b));
                }
    }
}

static bool tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                            struct error *error) {
    (void)device, (void)error;
    require(n <= from->n);
    for (int block = 0; block < block_count(n); block++) {
        const int b = block_images(from->n, block);
        for (int i = 0; i < least(b, n - block * BLOCK); i++)
            for (int c = 0; c < from->c; c++)
                for (int y = 0; y < from->h; y++) {
                    const float *row = tensor_row(from, block, b, c, y);
                    for (int x = 0; x < from->w; x++)
                        *to++ = row[x * b + i];
                }
    }
    return true;
}

/* ---- a batch ---- */

void cpu_load(struct host *d, struct tensor *x, const struct pass *pass, int n) {
    const int rows = x->c * x->h, blocks = block_count(n);
    float values[256];
    host_pixel_values(values);
    tensor_write(x, n);
    require(rows == pass->images->c * pass->images->h && x->w == pass->images->w);
#pragma omp parallel for collapse(2) num_threads(d->base.threads) schedule(static)
    for (int block = 0; block < blocks; block++)
        for (int r = 0; r < rows; r++) {
            const int b = block_images(n, block);
            float *row = tensor_row(x, block, b, 0, r);
            for (int i = 0; i < b; i++)
                host_load_row(row + i, (size_t)b, pass, pass->next + block * BLOCK + i, r, values);
            clear_rest(row, (size_t)(x->w * b), row_pitch(x->w, b));
        }
}

/* ---- the table ---- */

static bool cpu_open(struct device **device, const struct device_options *options,
                     struct error *error) {
    const struct instruction_set *set = choose_set(error);
    if (set == NULL)
        return false;
    *device = host_new(&cpu_ops, set->kernels, options);
    return true;
}

const struct device_ops cpu_ops = {
    HOST_OPS,
    .name = "cpu",
    .open = cpu_open,
    .describe = cpu_describe,
    .tensor_new = tensor_new,
    .tensor_upload = tensor_upload,
    .tensor_download = tensor_download,
};
