/* The driver. Streams are as lazy as can be: whatever is asynchronous is put into the stream and
 * runs when somebody waits for it, so that a host that reads too early or reuses a buffer too early
 * sees wrong data. The device's memory is closed to the host. */
#include "emulator.h"
#include "fake.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- objects: streams, events, modules, graphs ---- */

struct kind {
    const char *name;
    int made;
};

static struct kind streams = {.name = "stream"}, events = {.name = "event"};
static struct kind modules = {.name = "module"}, graphs = {.name = "graph"};
static struct kind graph_execs = {.name = "executable graph"};
static struct kind pinned_buffers = {.name = "pinned buffer"};

/* What all of them begin with. */
struct object {
    struct object *next;
    struct kind *kind;
    int number;
};

static struct object *objects; /* all that were not destroyed */

static void *object_new(struct kind *kind, size_t size) {
    struct object *object = fake_new(size);
    object->kind = kind;
    object->number = ++kind->made;
    object->next = objects;
    objects = object;
    return object;
}

static bool known(const struct kind *kind, const void *address) {
    for (const struct object *o = objects; o != NULL; o = o->next)
        if (o == address)
            return o->kind == kind;
    return false;
}

static int number_of(const struct kind *kind, const void *address) {
    return known(kind, address) ? ((const struct object *)address)->number : 0;
}

static void object_free(void *address) {
    struct object **link = &objects;
    while (*link != address)
        link = &(*link)->next;
    *link = (*link)->next;
    free(address);
}

/* Work for the device, with its copied arguments. */
struct work {
    struct work *next;
    char label[96];
    void (*run)(const void *data);
    size_t size;
    _Alignas(max_align_t) unsigned char data[];
};

struct works {
    struct work *first, *last;
};

struct CUstream_st {
    struct object object;
    struct works works;    /* that wait to be run */
    long long given, done; /* works so far */
};

struct CUevent_st {
    struct object object;
    CUstream stream; /* NULL: nothing to wait for */
    long long given; /* what the stream had been given when the event was recorded */
};

struct CUfunc_st {
    const struct emulated *kernel;
};

struct CUmod_st {
    struct object object;
    struct CUfunc_st functions[KERNEL_COUNT];
};

struct CUgraph_st {
    struct object object;
    struct works nodes;
};

struct CUgraphExec_st {
    struct object object;
    struct works nodes;
};

struct pinned {
    struct object object;
    size_t size;
    unsigned char *data;
};

static void works_add(struct works *works, struct work *work) {
    if (works->first == NULL)
        works->first = work;
    else
        works->last->next = work;
    works->last = work;
}

static struct work *work_copy(const struct work *work) {
    const size_t size = sizeof *work + work->size;
    struct work *copy = fake_new(size);
    memcpy(copy, work, size);
    copy->next = NULL;
    return copy;
}

static void works_add_copies(struct works *to, const struct works *from) {
    for (const struct work *work = from->first; work != NULL; work = work->next)
        works_add(to, work_copy(work));
}

static void works_free(struct works *works) {
    for (struct work *next; works->first != NULL; works->first = next) {
        next = works->first->next;
        free(works->first);
    }
}

/* ---- the state of the driver ---- */

static bool initialised;
static int context_references;
static _Thread_local bool context_is_current;
static struct CUctx_st { char unused; } context;

/* The one capture that can be going on. */
static struct {
    CUstream stream; /* NULL: none */
    CUgraph graph;
    bool spoilt;
} capture;

int fake_stream_number(CUstream stream) {
    return number_of(&streams, stream);
}

bool fake_capturing(CUstream stream) {
    return stream != NULL && capture.stream == stream;
}

bool fake_any_capture(void) {
    return capture.stream != NULL;
}

void fake_spoil_capture(const char *function) {
    fake_message("%s during the capture of stream %d", function,
                 fake_stream_number(capture.stream));
    capture.spoilt = true;
}

/* ---- what all calls have in common ---- */

enum {
    ANYTIME = 0,
    AFTER_INIT = 1,
    IN_CONTEXT = 2,
    NOT_CAPTURED = 4,
};

/* Begins a call as fake_call() and applies the rules. Any answer but success is the call's. */
__attribute__((format(printf, 2, 3))) static CUresult enter(int rules, const char *format, ...) {
    int status;
    va_list arguments;
    va_start(arguments, format);
    const bool fails = fake_call_v(&status, format, arguments);
    va_end(arguments);
    if (fails)
        return (CUresult)status;
    if (rules != ANYTIME && !initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if ((rules & IN_CONTEXT) != 0 && !context_is_current)
        return CUDA_ERROR_INVALID_CONTEXT;
    if ((rules & NOT_CAPTURED) != 0 && fake_any_capture()) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(format, " "), format);
        fake_spoil_capture(name);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

/* Says why. */
#define invalid_value(...) (fake_message(__VA_ARGS__), CUDA_ERROR_INVALID_VALUE)

static CUresult check_stream(CUstream stream) {
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
        return invalid_value("the default stream is used");
    if (!known(&streams, stream)) {
        fake_message("the stream is none");
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return CUDA_SUCCESS;
}

static CUresult check_object(const struct kind *kind, const void *address) {
    if (known(kind, address))
        return CUDA_SUCCESS;
    fake_message("the %s is none", kind->name);
    return CUDA_ERROR_INVALID_HANDLE;
}

static CUresult check_device(CUdevice device) {
    return device == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* ---- work ---- */

static CUresult add_work(CUstream stream, struct work *work) {
    CUresult status = check_stream(stream);
    if (status == CUDA_SUCCESS && capture.stream == stream && capture.spoilt)
        status = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (status != CUDA_SUCCESS) {
        free(work);
    } else if (capture.stream == stream) {
        works_add(&capture.graph->nodes, work);
    } else {
        works_add(&stream->works, work);
        stream->given++;
    }
    return status;
}

CUresult fake_enqueue(CUstream stream, void (*run)(const void *data), const void *data, size_t size,
                      const char *format, ...) {
    struct work *work = fake_new(sizeof *work + size);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(work->label, sizeof work->label, format, arguments);
    va_end(arguments);
    work->run = run;
    work->size = size;
    memcpy(work->data, data, size);
    return add_work(stream, work);
}

/* Runs the first works of the stream, until it has done so many of all it was given. */
static void run_until(CUstream stream, long long given) {
    memory_open();
    while (stream->done < given) {
        struct work *work = stream->works.first;
        stream->works.first = work->next;
        memory_begin(work->label);
        work->run(work->data);
        memory_end();
        free(work);
        stream->done++;
    }
    memory_close();
}

static void run_all(void) {
    for (struct object *o = objects; o != NULL; o = o->next)
        if (o->kind == &streams) {
            CUstream stream = (CUstream)(void *)o;
            run_until(stream, stream->given);
        }
}

/* ---- versions and errors ---- */

CUresult cuInit(unsigned flags) {
    CUresult status = enter(ANYTIME, "cuInit");
    if (status == CUDA_SUCCESS && flags != 0)
        status = CUDA_ERROR_INVALID_VALUE;
    initialised = initialised || status == CUDA_SUCCESS;
    return status;
}

CUresult cuDriverGetVersion(int *version) {
    CUresult status = enter(ANYTIME, "cuDriverGetVersion");
    if (status == CUDA_SUCCESS)
        *version = (int)fake_setting("FAKE_GPU_DRIVER", CUDA_VERSION);
    return status;
}

static const struct {
    CUresult status;
    const char *name, *text;
} errors[] = {
#define ERROR(status, text)                                                                        \
    { status, #status, text }
    ERROR(CUDA_SUCCESS, "no error"),
    ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    ERROR(CUDA_ERROR_STUB_LIBRARY, "CUDA driver is a stub library"),
    ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    ERROR(CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
          "the provided PTX was compiled with an unsupported toolchain."),
    ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
          "system has unsupported display driver / cuda driver combination"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
          "operation not permitted when stream is capturing"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
          "operation failed due to a previous error during capture"),
    ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef ERROR
};

CUresult cuGetErrorName(CUresult error, const char **name) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].status == error) {
            *name = errors[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].status == error) {
            *text = errors[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

/* ---- the device and its context ---- */

CUresult cuDeviceGetCount(int *count) {
    CUresult status = enter(AFTER_INIT, "cuDeviceGetCount");
    if (status == CUDA_SUCCESS)
        *count = 1;
    return status;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    CUresult status = enter(AFTER_INIT, "cuDeviceGet %d", ordinal);
    if (status == CUDA_SUCCESS)
        status = check_device(ordinal);
    if (status == CUDA_SUCCESS)
        *device = 0;
    return status;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    CUresult status = enter(AFTER_INIT, "cuDeviceGetName");
    if (status == CUDA_SUCCESS)
        status = check_device(device);
    if (status == CUDA_SUCCESS && size < 1)
        status = CUDA_ERROR_INVALID_VALUE;
    if (status == CUDA_SUCCESS)
        snprintf(name, (size_t)size, "Fake GPU");
    return status;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *retained, CUdevice device) {
    CUresult status = enter(AFTER_INIT | NOT_CAPTURED, "cuDevicePrimaryCtxRetain");
    if (status == CUDA_SUCCESS)
        status = check_device(device);
    if (status == CUDA_SUCCESS) {
        context_references++;
        *retained = &context;
    }
    return status;
}

/* Runs what is left to do; whatever belongs to the context must be gone by then. */
CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    if (fake_any_capture())
        fake_stop("the context is released during a capture");
    CUresult status = enter(AFTER_INIT, "cuDevicePrimaryCtxRelease");
    if (status == CUDA_SUCCESS)
        status = check_device(device);
    if (status == CUDA_SUCCESS && context_references == 0)
        status = CUDA_ERROR_INVALID_CONTEXT;
    if (status != CUDA_SUCCESS || --context_references > 0)
        return status;
    run_all();
    for (const struct object *o = objects; o != NULL; o = o->next)
        fake_message("%s %d was never destroyed", o->kind->name, o->number);
    memory_check_leaks();
    if (objects != NULL)
        fake_stop("the context is released before what belongs to it");
    context_is_current = false;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext wanted) {
    CUresult status = enter(AFTER_INIT | NOT_CAPTURED, "cuCtxSetCurrent");
    if (status == CUDA_SUCCESS && wanted != NULL && (wanted != &context || context_references == 0))
        status = CUDA_ERROR_INVALID_CONTEXT;
    if (status == CUDA_SUCCESS)
        context_is_current = wanted != NULL;
    return status;
}

/* ---- modules ---- */

enum { OLDEST_CAPABILITY = 75 }; /* that the program's kernels are compiled for */

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    const uint32_t fat_binary = 0xBA55ED50;
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuModuleLoadData");
    if (status == CUDA_SUCCESS && (module == NULL || image == NULL))
        status = CUDA_ERROR_INVALID_VALUE;
    if (status == CUDA_SUCCESS && memcmp(image, &fat_binary, sizeof fat_binary) != 0)
        status = CUDA_ERROR_INVALID_IMAGE;
    if (status == CUDA_SUCCESS && fake_setting("FAKE_GPU_CAPABILITY", 90) < OLDEST_CAPABILITY)
        status = CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (status != CUDA_SUCCESS)
        return status;
    *module = object_new(&modules, sizeof **module);
    for (int i = 0; i < KERNEL_COUNT; i++)
        (*module)->functions[i].kernel = &emulator_kernels[i];
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuModuleUnload");
    if (status == CUDA_SUCCESS)
        status = check_object(&modules, module);
    if (status == CUDA_SUCCESS) {
        run_all();
        object_free(module);
    }
    return status;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    CUresult status = enter(IN_CONTEXT, "cuModuleGetFunction %s", name);
    if (status == CUDA_SUCCESS)
        status = check_object(&modules, module);
    if (status != CUDA_SUCCESS)
        return status;
    for (int i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(module->functions[i].kernel->name, name) == 0) {
            *function = &module->functions[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

/* The kernel of a function, NULL if its module is no more. */
static const struct emulated *kernel_of(CUfunction function) {
    for (const struct object *o = objects; o != NULL; o = o->next) {
        if (o->kind != &modules)
            continue;
        const struct CUmod_st *module = (const struct CUmod_st *)(const void *)o;
        for (int i = 0; i < KERNEL_COUNT; i++)
            if (function == &module->functions[i])
                return function->kernel;
    }
    return NULL;
}

struct launch {
    const struct emulated *kernel;
    unsigned x, y;
    _Alignas(max_align_t) unsigned char args[];
};

static void run_launch(const void *data) {
    const struct launch *launch = data;
    emulator_launch(launch->kernel, launch->x, launch->y, launch->args);
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                        void **params, void **extra) {
    const struct emulated *kernel = kernel_of(function);
    const char *name = kernel == NULL ? "?" : kernel->name;
    CUresult status = enter(IN_CONTEXT, "cuLaunchKernel %s %ux%u stream %d", name, x, y,
                            fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status != CUDA_SUCCESS)
        return status;
    if (kernel == NULL) {
        fake_message("the kernel is none");
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (x == 0 || y == 0 || z != 1 || x > 0x7FFFFFFF || y > 65535)
        return invalid_value("kernel %s with a grid of %ux%ux%u blocks", name, x, y, z);
    if (block_x != KERNEL_BLOCK || block_y != 1 || block_z != 1)
        return invalid_value("kernel %s with a block of %ux%ux%u threads", name, block_x, block_y,
                             block_z);
    if (shared_bytes != 0 || params == NULL || params[0] == NULL || extra != NULL)
        return invalid_value("kernel %s with dynamic shared memory or without arguments", name);
    const size_t size = sizeof(struct launch) + kernel->args_size;
    struct launch *launch = fake_new(size);
    launch->kernel = kernel;
    launch->x = x;
    launch->y = y;
    memcpy(launch->args, params[0], kernel->args_size);
    status = fake_enqueue(stream, run_launch, launch, size, "kernel %s %ux%u", name, x, y);
    free(launch);
    return status;
}

/* ---- memory ---- */

CUresult cuMemAlloc(CUdeviceptr *address, size_t size) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuMemAlloc %zu", size);
    if (status == CUDA_SUCCESS && (address == NULL || size == 0))
        status = invalid_value("cuMemAlloc of 0 bytes");
    if (status != CUDA_SUCCESS)
        return status;
    void *memory = memory_allocate(size);
    if (memory == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *address = (CUdeviceptr)(uintptr_t)memory;
    return CUDA_SUCCESS;
}

/* Waits for the device, as the real one does. */
CUresult cuMemFree(CUdeviceptr address) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuMemFree");
    if (status == CUDA_SUCCESS && address == 0)
        status = invalid_value("cuMemFree of 0");
    if (status != CUDA_SUCCESS)
        return status;
    run_all();
    if (!memory_free((void *)(uintptr_t)address))
        fake_stop("cuMemFree of what is not allocated, or no more");
    return CUDA_SUCCESS;
}

CUresult cuMemAllocHost(void **address, size_t size) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuMemAllocHost %zu", size);
    if (status == CUDA_SUCCESS && (address == NULL || size == 0))
        status = invalid_value("cuMemAllocHost of 0 bytes");
    if (status != CUDA_SUCCESS)
        return status;
    struct pinned *pinned = object_new(&pinned_buffers, sizeof *pinned);
    pinned->size = size;
    *address = pinned->data = fake_new(size);
    memset(pinned->data, 0xFF, size);
    return CUDA_SUCCESS;
}

/* The pinned buffer that this byte is in, or NULL. */
static struct pinned *pinned_of(const void *address) {
    const uintptr_t byte = (uintptr_t)address;
    for (struct object *o = objects; o != NULL; o = o->next) {
        if (o->kind != &pinned_buffers)
            continue;
        struct pinned *pinned = (struct pinned *)(void *)o;
        const uintptr_t data = (uintptr_t)pinned->data;
        if (byte >= data && byte - data < pinned->size)
            return pinned;
    }
    return NULL;
}

CUresult cuMemFreeHost(void *address) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuMemFreeHost");
    if (status != CUDA_SUCCESS)
        return status;
    struct pinned *pinned = pinned_of(address);
    if (pinned == NULL || pinned->data != address)
        fake_stop("cuMemFreeHost of what is not allocated, or no more");
    run_all();
    free(pinned->data);
    object_free(pinned);
    return CUDA_SUCCESS;
}

/* A copy of `size` bytes; those of a host that must not wait lie behind it. */
struct copy {
    void *to;
    const void *from; /* NULL: from behind this */
    size_t size;
    unsigned char bytes[];
};

static void run_copy(const void *data) {
    const struct copy *copy = data;
    memcpy(copy->to, copy->from == NULL ? copy->bytes : copy->from, copy->size);
}

/* What both copies check. pageable: whether the host's memory is not pinned. */
static CUresult check_copy(const char *function, CUstream stream, CUdeviceptr device,
                           const void *host, size_t size, bool *pageable) {
    CUresult status = check_stream(stream);
    if (status != CUDA_SUCCESS)
        return status;
    if (!fake_is_device((const void *)(uintptr_t)device, size))
        return invalid_value("%s: %zu bytes that are not in one allocation of the device", function,
                             size);
    if (host == NULL || fake_is_device(host, 0))
        return invalid_value("%s: the host's address is none", function);
    const struct pinned *pinned = pinned_of(host);
    *pageable = pinned == NULL;
    if (pinned != NULL &&
        size > pinned->size - (size_t)((const unsigned char *)host - pinned->data))
        return invalid_value("%s: the host's buffer ends before the %zu bytes", function, size);
    if (*pageable && fake_capturing(stream)) {
        fake_spoil_capture(function);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

/* From pageable memory the bytes are taken at once, from pinned memory when the copy runs. */
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    bool pageable = false;
    CUresult status =
        enter(IN_CONTEXT, "cuMemcpyHtoDAsync %zu stream %d", size, fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_copy("cuMemcpyHtoDAsync", stream, to, from, size, &pageable);
    if (status != CUDA_SUCCESS)
        return status;
    const size_t copy_size = sizeof(struct copy) + (pageable ? size : 0);
    struct copy *copy = fake_new(copy_size);
    copy->to = (void *)(uintptr_t)to;
    copy->from = pageable ? NULL : from;
    copy->size = size;
    if (pageable)
        memcpy(copy->bytes, from, size);
    status = fake_enqueue(stream, run_copy, copy, copy_size, "copy to the device, %zu", size);
    free(copy);
    return status;
}

/* To pageable memory the copy has happened when this returns. */
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    bool pageable = false;
    CUresult status =
        enter(IN_CONTEXT, "cuMemcpyDtoHAsync %zu stream %d", size, fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_copy("cuMemcpyDtoHAsync", stream, from, to, size, &pageable);
    if (status != CUDA_SUCCESS)
        return status;
    const struct copy copy = {.to = to, .from = (const void *)(uintptr_t)from, .size = size};
    status = fake_enqueue(stream, run_copy, &copy, sizeof copy, "copy from the device, %zu", size);
    if (status == CUDA_SUCCESS && pageable)
        run_until(stream, stream->given);
    return status;
}

struct fill {
    void *to;
    size_t size;
    int byte;
};

static void run_fill(const void *data) {
    const struct fill *fill = data;
    memset(fill->to, fill->byte, fill->size);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t size, CUstream stream) {
    CUresult status = enter(IN_CONTEXT, "cuMemsetD8Async %d %zu stream %d", byte, size,
                            fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status == CUDA_SUCCESS && !fake_is_device((void *)(uintptr_t)to, size))
        status = invalid_value("cuMemsetD8Async: %zu bytes that are not in one allocation", size);
    if (status != CUDA_SUCCESS)
        return status;
    const struct fill fill = {.to = (void *)(uintptr_t)to, .size = size, .byte = byte};
    return fake_enqueue(stream, run_fill, &fill, sizeof fill, "fill %d, %zu", byte, size);
}

/* ---- streams and events ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    CUresult status = enter(IN_CONTEXT, "cuStreamCreate %u", flags);
    if (status == CUDA_SUCCESS && flags != CU_STREAM_DEFAULT && flags != CU_STREAM_NON_BLOCKING)
        status = CUDA_ERROR_INVALID_VALUE;
    if (status == CUDA_SUCCESS)
        *stream = object_new(&streams, sizeof **stream);
    return status;
}

CUresult cuStreamDestroy(CUstream stream) {
    CUresult status =
        enter(IN_CONTEXT | NOT_CAPTURED, "cuStreamDestroy stream %d", fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status != CUDA_SUCCESS)
        return status;
    run_until(stream, stream->given);
    for (struct object *o = objects; o != NULL; o = o->next)
        if (o->kind == &events && ((CUevent)(void *)o)->stream == stream)
            ((CUevent)(void *)o)->stream = NULL;
    object_free(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuStreamSynchronize stream %d",
                            fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status == CUDA_SUCCESS)
        run_until(stream, stream->given);
    return status;
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
    CUresult status = enter(IN_CONTEXT, "cuEventCreate %u", flags);
    if (status == CUDA_SUCCESS)
        *event = object_new(&events, sizeof **event);
    return status;
}

CUresult cuEventDestroy(CUevent event) {
    CUresult status = enter(IN_CONTEXT, "cuEventDestroy event %d", number_of(&events, event));
    if (status == CUDA_SUCCESS)
        status = check_object(&events, event);
    if (status == CUDA_SUCCESS)
        object_free(event);
    return status;
}

/* In a capture it would stand for a place in the graph, which nobody here can want to wait for. */
CUresult cuEventRecord(CUevent event, CUstream stream) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuEventRecord event %d stream %d",
                            number_of(&events, event), fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_object(&events, event);
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status == CUDA_SUCCESS) {
        event->stream = stream;
        event->given = stream->given;
    }
    return status;
}

CUresult cuEventSynchronize(CUevent event) {
    CUresult status =
        enter(IN_CONTEXT | NOT_CAPTURED, "cuEventSynchronize event %d", number_of(&events, event));
    if (status == CUDA_SUCCESS)
        status = check_object(&events, event);
    if (status == CUDA_SUCCESS && event->stream != NULL)
        run_until(event->stream, event->given);
    return status;
}

/* ---- graphs ---- */

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    CUresult status =
        enter(IN_CONTEXT, "cuStreamBeginCapture stream %d", fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status == CUDA_SUCCESS && mode != CU_STREAM_CAPTURE_MODE_GLOBAL &&
        mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        status = CUDA_ERROR_INVALID_VALUE;
    if (status == CUDA_SUCCESS && fake_any_capture()) {
        fake_message("a capture begins within another");
        status = CUDA_ERROR_ILLEGAL_STATE;
    }
    if (status != CUDA_SUCCESS)
        return status;
    capture.stream = stream;
    capture.graph = object_new(&graphs, sizeof *capture.graph);
    capture.spoilt = false;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    CUresult status = enter(IN_CONTEXT, "cuStreamEndCapture stream %d", fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status != CUDA_SUCCESS)
        return status;
    *graph = NULL;
    if (capture.stream != stream) {
        fake_message("a capture ends that did not begin");
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    capture.stream = NULL;
    if (!capture.spoilt) {
        *graph = capture.graph;
        return CUDA_SUCCESS;
    }
    works_free(&capture.graph->nodes);
    object_free(capture.graph);
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuGraphInstantiateWithFlags graph %d %llu",
                            number_of(&graphs, graph), flags);
    if (status == CUDA_SUCCESS)
        status = check_object(&graphs, graph);
    if (status != CUDA_SUCCESS)
        return status;
    *exec = object_new(&graph_execs, sizeof **exec);
    works_add_copies(&(*exec)->nodes, &graph->nodes);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuGraphUpload graph %d stream %d",
                            number_of(&graph_execs, exec), fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_object(&graph_execs, exec);
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    return status;
}

/* The nodes are copied into the stream: the graph may be destroyed before they have run. */
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    CUresult status = enter(IN_CONTEXT | NOT_CAPTURED, "cuGraphLaunch graph %d stream %d",
                            number_of(&graph_execs, exec), fake_stream_number(stream));
    if (status == CUDA_SUCCESS)
        status = check_object(&graph_execs, exec);
    if (status == CUDA_SUCCESS)
        status = check_stream(stream);
    if (status != CUDA_SUCCESS)
        return status;
    for (const struct work *work = exec->nodes.first; work != NULL; work = work->next)
        add_work(stream, work_copy(work));
    return CUDA_SUCCESS;
}

/* One line for each node and one for each edge, with the real one's names. */
CUresult cuGraphDebugDotPrint(CUgraph graph, const char *path, unsigned flags) {
    CUresult status =
        enter(IN_CONTEXT, "cuGraphDebugDotPrint graph %d %u", number_of(&graphs, graph), flags);
    if (status == CUDA_SUCCESS)
        status = check_object(&graphs, graph);
    if (status != CUDA_SUCCESS)
        return status;
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return CUDA_ERROR_OPERATING_SYSTEM;
    const int number = graph->object.number;
    int node = 0;
    fprintf(file, "digraph dot {\n");
    for (const struct work *work = graph->nodes.first; work != NULL; work = work->next, node++) {
        fprintf(file, "\"graph_%d_node_%d\"[label=\"%s\"];\n", number, node, work->label);
        if (node > 0)
            fprintf(file, "\"graph_%d_node_%d\" -> \"graph_%d_node_%d\";\n", number, node - 1,
                    number, node);
    }
    fprintf(file, "}\n");
    return fclose(file) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    CUresult status =
        enter(IN_CONTEXT, "cuGraphExecDestroy graph %d", number_of(&graph_execs, exec));
    if (status == CUDA_SUCCESS)
        status = check_object(&graph_execs, exec);
    if (status == CUDA_SUCCESS) {
        works_free(&exec->nodes);
        object_free(exec);
    }
    return status;
}

CUresult cuGraphDestroy(CUgraph graph) {
    CUresult status = enter(IN_CONTEXT, "cuGraphDestroy graph %d", number_of(&graphs, graph));
    if (status == CUDA_SUCCESS)
        status = check_object(&graphs, graph);
    if (status == CUDA_SUCCESS) {
        works_free(&graph->nodes);
        object_free(graph);
    }
    return status;
}
