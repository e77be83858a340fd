/* The table of ops for one instruction set, with Adam, which needs nothing but the compiler. */
#include "cpu.h"

static void adam_step(struct device *device, const struct adam *adam) {
    host_adam_step(host_of(device), adam);
}

extern const struct device_ops CPU_SET(cpu_ops);
const struct device_ops CPU_SET(cpu_ops) = {
    .name = "cpu",
    .open = cpu_open,
    .close = host_close,
    .describe = cpu_describe,
    .memory = host_bytes,
    .tensor_new = cpu_tensor_new,
    .block_new = host_block_new,
    .upload = host_upload,
    .download = host_download,
    .tensor_upload = cpu_tensor_upload,
    .tensor_download = cpu_tensor_download,
    .loader_new = host_loader_new,
    .loader_rewind = host_loader_rewind,
    .losses = host_losses,
    .predictions = host_predictions,
    .repeat = host_repeat,
    .load_batch = cpu_load_batch,
    .conv2d_forward = CPU_SET(cpu_conv2d_forward),
    .conv2d_backward = CPU_SET(cpu_conv2d_backward),
    .batchnorm_forward = CPU_SET(cpu_batchnorm_forward),
    .batchnorm_backward = CPU_SET(cpu_batchnorm_backward),
    .linear_forward = CPU_SET(cpu_linear_forward),
    .linear_backward = CPU_SET(cpu_linear_backward),
    .cross_entropy = cpu_cross_entropy,
    .adam_step = adam_step,
    .adam_seek = host_adam_seek,
};
