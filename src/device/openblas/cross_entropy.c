/* The loss: for logits z and label t of an image, log(sum of e^z) - z[t], averaged over the batch;
 * its gradient (softmax(z) - onehot(t)) / n. A few hundred operations an image, so in double. */
#include "openblas.h"

#include "base/error.h"

#include <math.h>

void openblas_cross_entropy(struct device *device, struct tensor *dlogits,
                            const struct tensor *logits, struct loader *loader, int n) {
    (void)device;
    const int classes = (int)logits->image;
    const int64_t first = loader->next - n; /* the batch that was loaded last */
    double total = 0;
    require(first >= 0);
    for (int i = 0; i < n; i++) {
        const float *z = logits->data + (size_t)i * logits->image;
        const uint32_t image = loader->order[first + i];
        const int label = loader->records[(size_t)image * (1 + loader->pixels)];
        int best = 0;
        for (int k = 1; k < classes; k++)
            if (z[k] > z[best])
                best = k;
        double sum = 0; /* of e^(z - largest z), which cannot overflow */
        for (int k = 0; k < classes; k++)
            sum += exp((double)z[k] - (double)z[best]);
        total += log(sum) + (double)z[best] - (double)z[label];
        loader->predicted[first + i] = (uint8_t)best;
        if (dlogits == NULL)
            continue;
        float *dz = dlogits->data + (size_t)i * dlogits->image;
        for (int k = 0; k < classes; k++) {
            double softmax = exp((double)z[k] - (double)z[best]) / sum;
            dz[k] = (float)((softmax - (k == label)) / n);
        }
    }
    loader->losses[loader->steps++] = (float)(total / n);
}
