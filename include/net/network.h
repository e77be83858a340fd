/* The network: 14 rows, fixed.
 *
 * The table `network_layers` is the network. Shapes, the places of parameters, the names and shapes
 * of a checkpoint's tensors and the initial weights all derive from it. */
#pragma once

#include "base/random.h"
#include "device/device.h"

enum layer_kind { CONV2D, BATCHNORM2D, RELU, MAXPOOL2D, LINEAR };

struct layer {
    enum layer_kind kind;
    const char *name;        /* as in PyTorch's state_dict; NULL if it has no parameters */
    int in, out;             /* channels (features of LINEAR); 0 where they stay as they are */
    int kernel, pad, stride; /* of CONV2D and MAXPOOL2D */
};

enum {
    NETWORK_LAYERS = 14,
    NETWORK_STAGES = 4,   /* convolutions, each with what follows it up to the next */
    NETWORK_TENSORS = 30, /* in the state_dict */
    NETWORK_CHANNELS = 3, /* of the images */
    NETWORK_SIDE = 32,
    NETWORK_CLASSES = 10,
    NETWORK_UPDATES = 4, /* at most */
};

/* What batch normalisation adds to a variance. */
#define NETWORK_EPSILON 1e-5F

extern const struct layer network_layers[NETWORK_LAYERS];

/* One tensor of PyTorch's state_dict, in its order. */
struct network_tensor {
    char name[40]; /* conv1.weight, bn1.running_var, ... */
    enum { PARAMETER, STATISTIC, COUNTER } kind;
    int rank, shape[4];
    size_t count;  /* elements: the product of the shape */
    size_t offset; /* in network_state.parameters or .statistics */
};

/* What derives from the table. */
struct network_plan {
    struct network_tensor tensors[NETWORK_TENSORS];
    struct {
        int c, h, w;
    } input[NETWORK_LAYERS + 1];      /* shape of a layer's input; the last one is the logits' */
    int first_tensor[NETWORK_LAYERS]; /* index of a layer's first tensor */
    size_t parameters;                /* floats: 50,326 */
    size_t statistics;                /* floats: the running means and variances */
};
const struct network_plan *network_plan(void);

/* All that a network has learned, on the host: what a checkpoint holds. */
struct network_state {
    float *parameters; /* [plan.parameters], owned */
    float *statistics; /* [plan.statistics], owned */
    int64_t batches;   /* num_batches_tracked: training steps so far */
};
void network_state_new(struct network_state *state); /* zeroed */
void network_state_free(struct network_state *state);
void network_state_copy(struct network_state *to, const struct network_state *from);

/* The tensor's floats in a state; NULL for a COUNTER. */
float *network_tensor_data(const struct network_state *state, const struct network_tensor *tensor);

/* The state of a new network as PyTorch draws it, layer by layer, weight before bias: uniform in
 * +-1/sqrt(fan_in) for CONV2D and LINEAR (kaiming_uniform with a = sqrt 5, torch.nn.init), 1 and 0
 * for batch normalisation. */
void network_init(struct network_state *state, struct random *random);

/* The network on a device, with room for batches of up to `capacity` images. Its memory there goes
 * with a mark of before (device.h), or with the device; network_free() frees the host's part. */
struct network;
struct network *network_new(struct device *device, int capacity);
void network_free(struct network *network);

struct device *network_device(const struct network *network);
struct block *network_parameters(const struct network *network); /* [plan.parameters] */
struct block *network_gradients(const struct network *network);  /* [plan.parameters] */

/* Copies all but the batch counter to the device, or from it. Errors of the latter: the device
 * failed. */
void network_upload(struct network *network, const struct network_state *state);
bool network_download(const struct network *network, struct network_state *state,
                      struct error *error);

/* Copies `parameters` [plan.parameters] alone to the device. */
void network_upload_parameters(struct network *network, const float *parameters);

/* What belongs to a step of training beside the network. */
struct network_training {
    double label_smoothing;
    struct op updates[NETWORK_UPDATES]; /* the optimisers, and what comes after them */
    int count;
};

/* A step over the pass's next n images: the forward pass up to the loss; in training, by the
 * batch's statistics, which move the running ones, then the backward pass to the gradients of all
 * parameters, and the updates; in evaluation, which is with NULL, by the running statistics, and no
 * more. The network, and what the updates point to, must outlive it. All steps of training smooth
 * labels alike. */
struct step *network_step(struct network *network, struct pass *pass,
                          const struct network_training *training, int n);

/* A step that is the forward pass of training up to the last stage alone, for what it does to the
 * running statistics. The network must outlive it. */
struct step *network_statistics_step(struct network *network, struct pass *pass, int n);

/* Takes the forward pass over the pass's next n images layer by layer and looks for a number that
 * is not finite in what the layers make of them. Answers, with an empty `name` if all are finite,
 * the first layer's name and that number. Errors: the device failed. */
bool network_find_infinite(struct network *network, struct pass *pass, bool training, int n,
                           const char **name, double *value, struct error *error);
