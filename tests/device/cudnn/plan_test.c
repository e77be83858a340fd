/* The choice of cuDNN's engines, by the real library and the description of an H100, without a GPU.
 * Prints what was chosen for every convolution of the network. */
#include "device/cudnn/plan.h"
#include "net/network.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* As cuDNN describes a device; the numbers are those of NVIDIA's data sheets. */
static const char H100[] =
    "{\"deviceName\":\"NVIDIA H100 80GB HBM3\",\"maxGridSize\":[2147483647,65535,65535],"
    "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":132,"
    "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":84929347584,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"cudaDeviceId\":0,\"deviceVer\":900,"
    "\"driverVer\":13000}";

/* For the leak sanitizer: cuDNN's engines ask cuBLAS and never give back. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libcublasLt.so\n";
}

static struct cudnn_library cudnn;

static struct planner planner_of(bool tf32) {
    struct planner planner = {.cudnn = &cudnn, .tf32 = tf32};
    assert_int_equal(
        cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &planner.described),
        CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnn.cudnnBackendSetAttribute(planner.described,
                                                    CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                                    CUDNN_TYPE_CHAR, (int64_t)strlen(H100), H100),
                     CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnn.cudnnBackendFinalize(planner.described), CUDNN_STATUS_SUCCESS);
    return planner;
}

/* cuDNN's number of a plan's engine, and its numerical notes as a set of bits. */
static unsigned notes_of(const struct plan *plan, int64_t *number) {
    cudnnBackendDescriptor_t config, engine;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    unsigned set = 0;
    cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config);
    cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine);
    assert_int_equal(
        cudnn.cudnnBackendGetAttribute(plan->execution, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &config),
        CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnn.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                                    &engine),
                     CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnn.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                                    CUDNN_TYPE_INT64, 1, &count, number),
                     CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnn.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                    CUDNN_TYPE_NUMERICAL_NOTE,
                                                    CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes),
                     CUDNN_STATUS_SUCCESS);
    for (int64_t i = 0; i < count; i++)
        set |= 1U << notes[i];
    cudnn.cudnnBackendDestroyDescriptor(engine);
    cudnn.cudnnBackendDestroyDescriptor(config);
    return set;
}

static void plan_all(bool tf32) {
    static const char *const kinds[] = {"forward", "data gradient"};
    static const int batches[] = {1, 10, 80, 128, 512, 2000, 4096};
    const unsigned tensor_cores = 1U << CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    const unsigned allowed = 1U << CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP | (tf32 ? tensor_cores : 0);
    struct planner planner = planner_of(tf32);
    int rounded = 0; /* plans that use tensor cores */
    const struct network_plan *network = network_plan();
    printf("| layer | product | batch | engine | rank | precision | workspace, KB |\n"
           "|---|---|---|---|---|---|---|\n");
    for (int layer = 0; layer < NETWORK_LAYERS; layer++)
        for (int kind = CONV_FORWARD; kind <= CONV_BACKWARD_DATA; kind++)
            for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
                const struct layer *l = &network_layers[layer];
                if (l->kind != CONV2D || (layer == 0 && kind == CONV_BACKWARD_DATA))
                    continue;
                const struct convolution convolution = {.kind = kind,
                                                        .n = batches[i],
                                                        .in = l->in,
                                                        .out = l->out,
                                                        .kernel = l->kernel,
                                                        .pad = l->pad,
                                                        .h = network->input[layer].h,
                                                        .w = network->input[layer].w};
                struct error error;
                struct plan *plan = plan_new(&planner, &convolution, &error);
                if (plan == NULL)
                    fail_msg("%s", error.text);
                int64_t engine;
                const unsigned notes = notes_of(plan, &engine);
                printf("| %s | %s | %d | %lld | %d | %s | %.1f |\n", l->name, kinds[kind],
                       batches[i], (long long)engine, plan->rank,
                       notes & tensor_cores ? "TF32" : "float32", (double)plan->workspace / 1024);
                assert_int_equal(notes & ~allowed, 0);
                rounded += (notes & tensor_cores) != 0;
                assert_true(plan->workspace <= PLAN_WORKSPACE);
                plan_free(plan, &planner);
            }
    assert_true(tf32 == (rounded > 0));
    cudnn.cudnnBackendDestroyDescriptor(planner.described);
}

static void every_convolution_has_a_strict_plan(void **state) {
    (void)state;
    plan_all(false);
}

static void every_convolution_has_a_tf32_plan(void **state) {
    (void)state;
    plan_all(true);
}

int main(void) {
    struct error error;
    if (!load_cudnn(&cudnn, &error)) {
        print_message("skipped: %s\n", error.text);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_convolution_has_a_strict_plan),
        cmocka_unit_test(every_convolution_has_a_tf32_plan),
    };
    return cmocka_run_group_tests_name("cuDNN plans", tests, NULL, NULL);
}
