/* Adam as torch.optim.Adam computes it (Kingma and Ba, 2014, with L2 decay added to the gradient):
 *
 *     g = g + weight_decay w
 *     m = m + (1 - beta1) (g - m)
 *     v = beta2 v + (1 - beta2) g^2
 *     w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * The factors of a step are computed in double, then rounded to float. */
#include "openblas.h"

#include <math.h>

void openblas_adam_step(struct device *device, const struct adam *adam) {
    struct host *d = host_of(device);
    const double t = (double)++d->adam_steps;
    const float step_size = (float)(adam->lr / (1 - pow(adam->beta1, t)));
    const float correction = (float)sqrt(1 - pow(adam->beta2, t));
    const float decay = (float)adam->weight_decay, eps = (float)adam->eps;
    const float rest1 = (float)(1 - adam->beta1);
    const float beta2 = (float)adam->beta2, rest2 = (float)(1 - adam->beta2);
    float *restrict w = adam->parameters->data, *restrict m = adam->exp_avg->data;
    float *restrict v = adam->exp_avg_sq->data;
    const float *restrict dw = adam->gradients->data;
#pragma omp parallel for simd num_threads(d->threads) schedule(static)
    for (size_t i = 0; i < adam->count; i++) {
        float g = dw[i] + decay * w[i];
        m[i] += rest1 * (g - m[i]);
        v[i] = beta2 * v[i] + rest2 * g * g;
        w[i] -= step_size * (m[i] / (sqrtf(v[i]) / correction + eps));
    }
}
