#include "train/pass.h"

static void run_step(void *context) {
    const struct step *step = context;
    const bool training = step->adam != NULL;
    struct device *device = network_device(step->network);
    network_forward(step->network, step->loader, training, step->n);
    if (training) {
        network_backward(step->network, step->n);
        device->ops->adam_step(device, step->adam);
    }
}

void pass_init(struct pass *pass, struct network *network, struct loader *loader,
               const struct adam *adam, int64_t images, int batch) {
    pass->images = images;
    pass->steps = (images + batch - 1) / batch;
    pass->whole = (struct step){network, loader, adam, batch};
    pass->rest = (struct step){network, loader, adam, (int)(images % batch)};
    pass->run_whole = (struct program){run_step, &pass->whole, NULL};
    pass->run_rest = (struct program){run_step, &pass->rest, NULL};
}

int pass_batch(const struct pass *pass, int64_t step) {
    return step < pass->images / pass->whole.n ? pass->whole.n : pass->rest.n;
}

void pass_run(struct pass *pass, int64_t first, int64_t count) {
    struct device *device = network_device(pass->whole.network);
    const int64_t whole = pass->images / pass->whole.n, last = first + count;
    require(first >= 0 && last <= pass->steps);
    if (first < whole)
        device->ops->repeat(device, &pass->run_whole, (last < whole ? last : whole) - first);
    if (last > whole)
        device->ops->repeat(device, &pass->run_rest, 1);
}
