/* cuBLAS: the product of matrices in column-major order, with sums in double. */
#include "fake.h"

#include <cublas_v2.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cublasContext {
    CUstream stream; /* NULL until it is set */
    void *workspace; /* NULL: cuBLAS would allocate one */
    size_t workspace_size;
    bool tf32;
};

/* Begins a call on a handle. */
#define ENTER(handle, ...)                                                                         \
    do {                                                                                           \
        int status;                                                                                \
        if (fake_call(&status, __VA_ARGS__))                                                       \
            return (cublasStatus_t)status;                                                         \
        if ((handle) == NULL)                                                                      \
            return CUBLAS_STATUS_NOT_INITIALIZED;                                                  \
    } while (0)

/* Says why; the format is a literal. */
#define invalid(...) (fake_message("cuBLAS: " __VA_ARGS__), CUBLAS_STATUS_INVALID_VALUE)

cublasStatus_t cublasCreate(cublasHandle_t *handle) {
    ENTER(handle, "cublasCreate");
    if (fake_any_capture()) {
        fake_spoil_capture("cublasCreate");
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *handle = fake_new(sizeof **handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    ENTER(handle, "cublasDestroy");
    if (fake_any_capture())
        fake_spoil_capture("cublasDestroy");
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

/* Forgets the workspace, as documented. */
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    ENTER(handle, "cublasSetStream stream %d", fake_stream_number(stream));
    if (fake_stream_number(stream) == 0)
        return invalid("cublasSetStream with the default stream or with none");
    handle->stream = stream;
    handle->workspace = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t size) {
    ENTER(handle, "cublasSetWorkspace %zu", size);
    if ((uintptr_t)workspace % 256 != 0 || !fake_is_device(workspace, size))
        return invalid("a workspace that is not aligned to 256 or not memory of the device");
    handle->workspace = workspace;
    handle->workspace_size = size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    ENTER(handle, "cublasSetMathMode %d", (int)mode);
    if (mode != CUBLAS_DEFAULT_MATH && mode != CUBLAS_PEDANTIC_MATH &&
        mode != CUBLAS_TF32_TENSOR_OP_MATH)
        return invalid("math mode %d is not faked", (int)mode);
    handle->tf32 = mode == CUBLAS_TF32_TENSOR_OP_MATH;
    return CUBLAS_STATUS_SUCCESS;
}

/* A matrix as it lies in memory, and what its elements are after op(). */
struct matrix {
    const float *data;
    int64_t row_step, column_step;
};

static struct matrix matrix_of(const float *data, cublasOperation_t op, int ld) {
    if (op == CUBLAS_OP_N)
        return (struct matrix){data, 1, ld};
    return (struct matrix){data, ld, 1};
}

struct product {
    struct matrix a, b;
    float *c;
    int m, n, k, ldc;
    double alpha, beta;
    bool tf32;
    void *workspace;
    size_t workspace_size;
};

static double element(const struct product *p, const struct matrix *m, int64_t row,
                      int64_t column) {
    const float value = m->data[row * m->row_step + column * m->column_step];
    return (double)(p->tf32 ? fake_tf32(value) : value);
}

enum { MOST_USED = 1 << 18 }; /* bytes of the workspace */

static void run_product(const void *data) {
    const struct product *p = data;
    if (p->workspace != NULL) /* NaN, as far as a product may go: it is nobody else's */
        memset(p->workspace, 0xFF, p->workspace_size < MOST_USED ? p->workspace_size : MOST_USED);
    for (int64_t j = 0; j < p->n; j++)
        for (int64_t i = 0; i < p->m; i++) {
            float *c = p->c + i + j * p->ldc;
            double sum = 0;
            for (int64_t l = 0; l < p->k; l++)
                sum += element(p, &p->a, i, l) * element(p, &p->b, l, j);
            *c = (float)(p->alpha * sum + (p->beta == 0 ? 0 : p->beta * (double)*c));
        }
}

static const char *letter(cublasOperation_t op) {
    return op == CUBLAS_OP_N ? "N" : op == CUBLAS_OP_T ? "T" : "C";
}

/* Whether columns * ld floats, but for the end of the last column, are on the device. */
static bool on_device(const float *data, int rows, int columns, int ld) {
    return fake_is_device(data, ((size_t)ld * (size_t)(columns - 1) + (size_t)rows) * sizeof *data);
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                           int m, int n, int k, const float *alpha, const float *a, int lda,
                           const float *b, int ldb, const float *beta, float *c, int ldc) {
    ENTER(handle, "cublasSgemm %s %s %d %d %d stream %d", letter(op_a), letter(op_b), m, n, k,
          fake_stream_number(handle == NULL ? NULL : handle->stream));
    const int rows_a = op_a == CUBLAS_OP_N ? m : k, columns_a = op_a == CUBLAS_OP_N ? k : m;
    const int rows_b = op_b == CUBLAS_OP_N ? k : n, columns_b = op_b == CUBLAS_OP_N ? n : k;
    if (handle->stream == NULL)
        return invalid("cublasSgemm on the default stream");
    if (fake_capturing(handle->stream) && handle->workspace == NULL) {
        fake_spoil_capture("cublasSgemm without a workspace");
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    if (m < 1 || n < 1 || k < 1 || lda < rows_a || ldb < rows_b || ldc < m)
        return invalid("cublasSgemm %d %d %d with leading dimensions %d %d %d", m, n, k, lda, ldb,
                       ldc);
    if (alpha == NULL || beta == NULL || fake_is_device(alpha, 0) || fake_is_device(beta, 0))
        return invalid("cublasSgemm: alpha and beta must be on the host");
    if (!on_device(a, rows_a, columns_a, lda) || !on_device(b, rows_b, columns_b, ldb) ||
        !on_device(c, m, n, ldc))
        return invalid("cublasSgemm with a matrix that is not in one allocation of the device");
    const struct product product = {.a = matrix_of(a, op_a, lda),
                                    .b = matrix_of(b, op_b, ldb),
                                    .c = c,
                                    .m = m,
                                    .n = n,
                                    .k = k,
                                    .ldc = ldc,
                                    .alpha = (double)*alpha,
                                    .beta = (double)*beta,
                                    .tf32 = handle->tf32,
                                    .workspace = handle->workspace,
                                    .workspace_size = handle->workspace_size};
    if (fake_enqueue(handle->stream, run_product, &product, sizeof product, "sgemm %s %s %d %d %d",
                     letter(op_a), letter(op_b), m, n, k) != CUDA_SUCCESS)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
#define NAME(status)                                                                               \
    case status:                                                                                   \
        return #status
        NAME(CUBLAS_STATUS_SUCCESS);
        NAME(CUBLAS_STATUS_NOT_INITIALIZED);
        NAME(CUBLAS_STATUS_ALLOC_FAILED);
        NAME(CUBLAS_STATUS_INVALID_VALUE);
        NAME(CUBLAS_STATUS_ARCH_MISMATCH);
        NAME(CUBLAS_STATUS_MAPPING_ERROR);
        NAME(CUBLAS_STATUS_EXECUTION_FAILED);
        NAME(CUBLAS_STATUS_INTERNAL_ERROR);
        NAME(CUBLAS_STATUS_NOT_SUPPORTED);
        NAME(CUBLAS_STATUS_LICENSE_ERROR);
#undef NAME
    }
    return "unknown status";
}
