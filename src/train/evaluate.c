#include "train/evaluate.h"

#include "base/clock.h"
#include "base/memory.h"

#include <stdlib.h>

double evaluation_accuracy(const struct evaluation *evaluation) {
    return 100.0 * (double)evaluation->correct / (double)evaluation->images;
}

void evaluator_init(struct evaluator *e, struct network *network, const struct resident *data,
                    int batch) {
    const size_t images = (size_t)data->images->count;
    require(data->images->classes > 0);
    e->images = data->images;
    steps_init(&e->steps, network, data, NULL, batch);
    e->views = memory_new(images, sizeof *e->views);
    for (size_t i = 0; i < images; i++)
        e->views[i].image = (uint32_t)i;
    e->losses = memory_new((size_t)e->steps.count, sizeof *e->losses);
    e->logits = memory_new(images * CIFAR10_CLASSES, sizeof *e->logits);
    e->predicted = memory_new(images, sizeof *e->predicted);
}

void evaluator_free(struct evaluator *e) {
    free(e->views);
    free(e->losses);
    free(e->logits);
    free(e->predicted);
}

static uint8_t largest(const float logits[CIFAR10_CLASSES], int classes) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return (uint8_t)best;
}

bool evaluate(struct evaluator *e, struct evaluation *evaluation, struct error *error) {
    const int64_t images = e->images->count;
    const double began = clock_seconds();
    steps_begin(&e->steps, e->views, NULL, 0, 0);
    steps_run(&e->steps, 0, e->steps.count);
    if (!steps_losses(&e->steps, e->losses, 0, e->steps.count, error) ||
        !steps_logits(&e->steps, e->logits, images, error))
        return false;

    *evaluation = (struct evaluation){.images = images, .seconds = clock_seconds() - began};
    for (int64_t i = 0; i < e->steps.count; i++)
        evaluation->loss += (double)e->losses[i] * steps_batch(&e->steps, i);
    evaluation->loss /= (double)images;
    for (int64_t i = 0; i < images; i++) {
        const int label = e->images->records[i * CIFAR10_RECORD];
        e->predicted[i] = largest(e->logits + i * CIFAR10_CLASSES, e->images->classes);
        evaluation->confusion[label][e->predicted[i]]++;
        evaluation->correct += label == e->predicted[i];
    }
    return true;
}
