/* What the backends on an NVIDIA GPU share: the driver, memory, the data set and the passes over
 * it, the recording of steps, errors.
 *
 * Everything is queued on one stream, in float32 [n][c][h][w]. The data set, the script of a pass
 * and its results live on the device, so a step is the same each time: it is recorded into a CUDA
 * graph, and that is replayed. The host waits only where it reads a result. */
#pragma once

#include "cursor.h"
#include "device/device.h"
#include "driver.h"

struct gpu;

/* A pointer marked [D] is to the device's memory: the host hands it on and never looks through it.
 */
struct tensor {
    float *data;            /* [D] */
    int capacity, c, plane; /* images; channels; h * w */
};

struct block {
    float *data; /* [D] */
    size_t count;
};

struct dataset {
    uint8_t *records; /* [D] [][1 + c*h*w] */
    int classes, c, h, w;
};

/* How many of a pass's losses are on their way to the host, and what tells that they are there. */
struct published {
    int64_t steps;
    CUevent event;
};

struct pass {
    struct pass_data data; /* what its kernels get; the pointers are [D] */
    bool has_schedule;     /* the script has */
    struct {
        int64_t images, steps;
    } most, script, queued;     /* that there is room for; of the script; of what is queued */
    struct cursor *host_cursor; /* pinned memory, through which the script goes */
    struct view *host_views;    /* [most.images] */
    double *host_schedule;      /* [most.steps] */
    CUevent sent;               /* which may be written again */
    float *host_losses;         /* [most.steps], pinned */
    struct published newer, older;
};

/* A backend's own step begins with it. */
struct step {
    void (*queue)(struct gpu *d, struct step *step); /* all its work, once */
    struct pass *pass;                               /* or NULL */
    int images;                                      /* that it loads */
    bool has_loss, needs_schedule;
    CUgraphExec one, many;
    int many_steps; /* in `many` */
    bool prepared;  /* it has run once: all that the libraries load is there */
};

/* What is given back in the opposite order of its making. */
struct owned {
    struct owned *next;
    void (*give_back)(struct gpu *d, void *thing);
    void *thing;
    size_t bytes; /* of the device's memory */
};

/* A backend's own device begins with it. */
struct gpu {
    struct device base;
    struct cuda_library cuda;
    CUdevice number;
    CUcontext context;
    CUstream stream;
    CUmodule module; /* the backend's kernels */
    char name[256];
    int driver;
    bool use_graphs, drawn; /* CIFAR_CUDA_GRAPH; CIFAR_CUDA_DOT has been written */
    bool recording;         /* the stream, which therefore cannot be waited for */
    struct owned *owned, *lasting;
    size_t bytes;         /* of the device's memory */
    void *working_memory; /* [D] */
    size_t working_size;

    /* The first failure. After it nothing is called any more, and whoever reads a result gets it.
     */
    bool failed;
    struct error failure;
};

static inline struct gpu *gpu_of(struct device *device) {
    return (struct gpu *)(void *)device;
}

static inline float *slice_data(struct slice slice) {
    return slice.block->data + slice.offset;
}

static inline CUdeviceptr address(const void *device_memory) {
    return (CUdeviceptr)(uintptr_t)device_memory;
}

/* ---- calling the libraries (gpu.c) ---- */

/* The advice where a GPU's memory is full. */
extern const char gpu_full[];

/* Keeps the first failure. A fault of the GPU shows in whichever call comes next, so where another
 * library complains, the driver is asked first. */
void gpu_failed(struct gpu *d, const struct error *error);

/* CUDA(d, cuMemAlloc, &memory, bytes) calls a function unless the device has failed; true if all
 * has gone well, this call too. */
#define CUDA(d, function, ...)                                                                     \
    cuda_went_well((d), (d)->failed ? CUDA_SUCCESS : (d)->cuda.function(__VA_ARGS__), #function)
bool cuda_went_well(struct gpu *d, CUresult result, const char *call);

/* ---- memory (gpu.c) ---- */

/* give_back(d, thing) will be called in its turn. Answers the thing. */
void *gpu_own(struct gpu *d, void (*give_back)(struct gpu *d, void *thing), void *thing);

void *gpu_host_memory(struct gpu *d, size_t bytes);   /* zeroed */
void *gpu_device_memory(struct gpu *d, size_t bytes); /* zeroed; NULL if the device has failed */
void *gpu_pinned_memory(struct gpu *d, size_t bytes); /* on the host; likewise */
CUevent gpu_event_new(struct gpu *d);

/* At least so many bytes of device memory for one op at a time; NULL if the device has failed. They
 * stay until the device is closed, smaller ones of before, too: graphs may have them. */
void *gpu_working_memory(struct gpu *d, size_t bytes);

/* Both wait until it is done. */
void gpu_copy_to_device(struct gpu *d, void *to, const void *from, size_t bytes);
bool gpu_copy_to_host(struct gpu *d, void *to, const void *from, size_t bytes, struct error *error);

/* ---- for a backend's open() and step_new() ---- */

/* Takes the first GPU, whose driver is loaded, makes a stream and loads the kernels of a fat
 * binary.
 */
void gpu_open(struct gpu *d, const void *kernels);

/* Completes a backend's own step, whose work is there to be queued. */
void gpu_step_init(struct gpu *d, struct step *step, const struct step_description *description,
                   void (*queue)(struct gpu *d, struct step *step));

/* Sends the losses of the steps queued so far on their way to the host (pass.c). */
void gpu_publish(struct gpu *d, struct pass *pass);

/* ---- for a backend's table; see device.h ---- */

#define GPU_OPS                                                                                    \
    .close = gpu_close, .memory = gpu_memory, .mark = gpu_mark, .release = gpu_release,            \
    .tensor_new = gpu_tensor_new, .block_new = gpu_block_new, .upload = gpu_upload,                \
    .download = gpu_download, .tensor_upload = gpu_tensor_upload,                                  \
    .tensor_download = gpu_tensor_download, .dataset_new = gpu_dataset_new,                        \
    .pass_new = gpu_pass_new, .pass_begin = gpu_pass_begin, .losses = gpu_losses,                  \
    .logits = gpu_logits, .step_run = gpu_step_run

void gpu_close(struct device *device);
size_t gpu_memory(const struct device *device);
void *gpu_mark(struct device *device);
void gpu_release(struct device *device, void *mark);
struct tensor *gpu_tensor_new(struct device *device, int n, int c, int h, int w);
struct block *gpu_block_new(struct device *device, size_t count);
void gpu_upload(struct device *device, struct slice to, const float *from, size_t count);
bool gpu_download(struct device *device, float *to, struct slice from, size_t count,
                  struct error *error);
void gpu_tensor_upload(struct device *device, struct tensor *to, const float *from, int n);
bool gpu_tensor_download(struct device *device, float *to, const struct tensor *from, int n,
                         struct error *error);
struct dataset *gpu_dataset_new(struct device *device, const struct images *images);
struct pass *gpu_pass_new(struct device *device, struct dataset *dataset, int64_t images,
                          int64_t steps);
void gpu_pass_begin(struct device *device, struct pass *pass, const struct script *script);
bool gpu_losses(struct device *device, const struct pass *pass, float *losses, int64_t first,
                int64_t count, struct error *error);
bool gpu_logits(struct device *device, const struct pass *pass, float *logits, int64_t count,
                struct error *error);
void gpu_step_run(struct device *device, struct step *step, int64_t times);
