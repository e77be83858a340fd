#include "train/divergence.h"

#include <math.h>
#include <stdio.h>

const char *divergence_word(double value) {
    return isnan(value) ? "NaN" : isinf(value) ? "infinite" : "negative";
}

bool divergence_of_numbers(struct divergence *d, struct learner *learner, int64_t steps,
                           struct train_state *room, struct error *error) {
    char tensor[SAFETENSORS_NAME];
    double value;
    d->text[0] = '\0';
    learner_put(learner);
    learner_begin(learner);
    for (int64_t step = learner->state.step; step < steps; step++) {
        steps_run(&learner->steps, step, 1);
        if (!learner_take(learner, room, error))
            return false;
        if (train_state_is_wrong(room, tensor, &value)) {
            snprintf(d->text, sizeof d->text,
                     " (first to go wrong: %s, which became %s in step %lld)", tensor,
                     divergence_word(value), (long long)step + 1);
            return true;
        }
    }
    return true;
}

bool divergence_of_layers(struct divergence *d, struct network *network, const struct steps *steps,
                          bool training, int64_t step, struct error *error) {
    const char *layer;
    double value;
    if (d->text[0] != '\0')
        return true;
    if (!network_find_infinite(network, steps->pass, training, steps_batch(steps, step), &layer,
                               &value, error))
        return false;
    if (layer[0] == '\0')
        snprintf(d->text, sizeof d->text, " (first to go wrong: the loss itself)");
    else
        snprintf(d->text, sizeof d->text, " (first to go wrong: the output of %s, with %s numbers)",
                 layer, divergence_word(value));
    return true;
}
