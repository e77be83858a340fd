/* A pretended GPU: stand-ins for NVIDIA's driver, cuBLAS and cuDNN that compute on the CPU, so that
 * the unmodified program can be tested where there is no GPU. They do what the real ones document
 * and refuse what the real ones refuse, or merely punish; a fault that the real ones would not see
 * stops the program with a message. Used with LD_LIBRARY_PATH=BUILD/tests/fakes and
 *
 *     FAKE_GPU_LOG=FILE           every call is added to it as a line: the name and what matters
 *     FAKE_GPU_FAIL=F:S[:N]       function F answers the number S from its Nth call on (the first)
 *     FAKE_GPU_MEMORY=BYTES       of the device (8 GiB)
 *     FAKE_GPU_ORDER=ORDER        of blocks and threads: forward, reverse or random
 *     FAKE_GPU_DRIVER=NUMBER      version of the driver, as 13000
 *     FAKE_GPU_CAPABILITY=NUMBER  of the device, as 90
 *     FAKE_CUDNN_VERSION=NUMBER   of cuDNN, as 91900
 *     FAKE_CUDNN_ENGINES=NUMBER   of its five engines, so many are offered
 *
 * Here is what the three share. It lives in the driver, libcuda.so.1. */
#pragma once

#include <cuda.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Whether the address sanitizer is at work. */
#if defined __SANITIZE_ADDRESS__
#    define FAKE_SANITIZED 1
#elif defined __has_feature
#    define FAKE_SANITIZED __has_feature(address_sanitizer)
#else
#    define FAKE_SANITIZED 0
#endif

/* ---- every call, and what all need (fake.c) ---- */

/* Begins a call: logs it, the name being the first word of `format`. True: it must answer `status`
 * and do nothing, because FAKE_GPU_FAIL says so. */
bool fake_call(int *status, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool fake_call_v(int *status, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

/* Says on standard error why a call is refused. */
void fake_message(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says what is wrong and aborts. */
_Noreturn void fake_stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number from the environment. */
size_t fake_setting(const char *name, size_t otherwise);

/* Zeroed memory that is there. */
void *fake_new(size_t size);

/* The value with the 10 bits behind the point that TF32 keeps. */
float fake_tf32(float value);

/* ---- streams (cuda.c) ---- */

/* The stream's number in the log: 1, 2, ...; 0 if it is none. */
int fake_stream_number(CUstream stream);

/* Whether work given to the stream is recorded; any_capture(): whether any stream's is. */
bool fake_capturing(CUstream stream);
bool fake_any_capture(void);

/* Refuses a call that a capture forbids, and spoils the capture. */
void fake_spoil_capture(const char *function);

/* Gives the stream work to be done later, run(data) with a copy of the data. The rest names it. */
CUresult fake_enqueue(CUstream stream, void (*run)(const void *data), const void *data, size_t size,
                      const char *format, ...) __attribute__((format(printf, 5, 6)));

/* ---- device memory (memory.c) ---- */

/* Whether all of it is in one allocation. */
bool fake_is_device(const void *address, size_t bytes);
