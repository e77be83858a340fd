#include "train/optimizer.h"

static void add(struct optimizer *o, struct op op) {
    o->training.updates[o->training.count++] = op;
}

/* Muon has the convolutions' weights, Adam what is between them. */
static void share_out(struct optimizer *o, const struct network_plan *plan) {
    size_t next = 0; /* that Adam has not yet */
    o->adam.ranges = 0;
    for (int i = 0; i < NETWORK_TENSORS; i++) {
        const struct network_tensor *t = &plan->tensors[i];
        if (t->kind != PARAMETER || t->rank != 4)
            continue;
        require(o->muon.matrices < MOST_MATRICES && o->adam.ranges < MOST_RANGES - 1);
        o->muon.matrix[o->muon.matrices++] =
            (struct matrix){t->offset, t->shape[0], t->shape[1] * t->shape[2] * t->shape[3]};
        if (t->offset > next)
            o->adam.range[o->adam.ranges++] = (struct range){next, t->offset - next};
        next = t->offset + t->count;
    }
    o->adam.range[o->adam.ranges++] = (struct range){next, plan->parameters - next};
}

void optimizer_init(struct optimizer *o, const struct network *network, const struct recipe *r) {
    struct device *device = network_device(network);
    const struct network_plan *plan = network_plan();
    struct block *parameters = network_parameters(network), *gradients = network_gradients(network);
    *o = (struct optimizer){.training.label_smoothing = r->label_smoothing};
    o->exp_avg = device->ops->block_new(device, plan->parameters);
    o->exp_avg_sq = device->ops->block_new(device, plan->parameters);
    o->adam = (struct adam){.lr = r->lr,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = r->weight_decay,
                            .decoupled = r->decoupled,
                            .ranges = 1,
                            .range = {{0, plan->parameters}},
                            .parameters = parameters,
                            .gradients = gradients,
                            .exp_avg = o->exp_avg,
                            .exp_avg_sq = o->exp_avg_sq};
    o->sgd = (struct sgd){.lr = r->lr,
                          .momentum = r->momentum,
                          .weight_decay = r->weight_decay,
                          .ranges = 1,
                          .range = {{0, plan->parameters}},
                          .parameters = parameters,
                          .gradients = gradients,
                          .momentum_buffer = o->exp_avg};
    o->muon = (struct muon){.lr = r->muon_lr,
                            .momentum = r->momentum,
                            .parameters = parameters,
                            .gradients = gradients,
                            .momentum_buffer = o->exp_avg};
    switch (r->optimizer) {
    case OPTIMIZER_MUON:
        share_out(o, plan);
        add(o, (struct op){OP_MUON, .muon = &o->muon});
        add(o, (struct op){OP_ADAM, .adam = &o->adam});
        break;
    case OPTIMIZER_ADAM:
        add(o, (struct op){OP_ADAM, .adam = &o->adam});
        break;
    case OPTIMIZER_SGD:
        add(o, (struct op){OP_SGD, .sgd = &o->sgd});
        break;
    }
    if (r->average == AVERAGE_EMA) {
        o->average = device->ops->block_new(device, plan->parameters);
        o->ema = (struct average){plan->parameters, r->average_decay, o->average, parameters};
        add(o, (struct op){OP_AVERAGE, .average = &o->ema});
    }
}
