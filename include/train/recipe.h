/* A recipe: how a network is trained, all that decides what a run comes to beside its data, its
 * seed and the network that it begins with. What a recipe says of an epoch and of a step is
 * computed here, too: how each image is seen, and the learning rate. */
#pragma once

#include "base/error.h"
#include "base/random.h"
#include "device/device.h"

enum optimizer_kind { OPTIMIZER_ADAM, OPTIMIZER_SGD, OPTIMIZER_MUON };
enum schedule { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
enum flip { FLIP_NONE, FLIP_RANDOM, FLIP_ALTERNATING };
enum border { BORDER_ZERO, BORDER_REFLECT };
enum averaging { AVERAGE_NONE, AVERAGE_EMA };
enum selection { SELECT_BEST, SELECT_LAST };

/* The enums' numbers are the places of their words among those that the option takes. */
struct recipe {
    int64_t epochs, batch; /* images in a step */

    enum optimizer_kind optimizer; /* MUON has the convolutions' weights, Adam the rest */
    double lr, weight_decay;       /* of Adam and SGD */
    bool decoupled;                /* Adam's weight decay, as in torch.optim.AdamW */
    double muon_lr;
    double momentum; /* of SGD, Nesterov's, and of Muon */

    enum schedule schedule; /* of all learning rates */
    double warmup;          /* the share of the run's steps in which they rise to their whole */
    double final_lr;        /* the share of it to which they fall then, unless they are constant */

    enum flip flip;
    int64_t shift; /* pixels, up to which an image is moved either way */
    enum border border;
    double label_smoothing;

    enum averaging average; /* of the network, after each step */
    double average_decay;
    enum selection select; /* which epoch's network the run results in */
};

enum { RECIPE_TUTORIAL, RECIPE_BEST, RECIPE_COUNT };
extern const struct recipe recipes[RECIPE_COUNT];
extern const char *const recipe_names[RECIPE_COUNT]; /* tutorial, best */

/* Errors (STATUS_USAGE): two of its settings do not go together, or one is out of reason. */
bool recipe_check(const struct recipe *recipe, struct error *error);

/* Whether the learning rates depend on the number of epochs: such a run cannot become longer. */
bool recipe_has_end(const struct recipe *recipe);

/* What the learning rates are multiplied by in step number `step`, from 0, of a run of so many.
 * Over the first w = round(warmup * steps) steps it is (step + 1) / (w + 1), which rises to 1 in
 * step w. From there x = (step - w) / (steps - w) goes from 0 towards 1, which it would be one step
 * after the last, and with f = final_lr the factor is
 *
 *     linear: 1 - (1 - f) x    cosine: f + (1 - f) (1 + cos(pi x)) / 2
 *
 * In PyTorch: SequentialLR, at milestone w, of LinearLR(1 / (w + 1), 1, w) and LinearLR(1, f,
 * steps - w) or CosineAnnealingLR(steps - w, f * lr). */
double recipe_rate(const struct recipe *recipe, int64_t step, int64_t steps);

/* How the images are seen in `epoch` (from 1): views[i] becomes that of image order[i], of `count`.
 * What is random is drawn from the generator, for one image after the other: whether it is
 * mirrored, how far it is moved down, how far right; nothing where nothing is random. With
 * FLIP_ALTERNATING an image is mirrored in every other epoch, in the odd ones if its number in
 * `begins` is 0, in the even ones if it is 1: recipe_first_flips(). */
void recipe_views(const struct recipe *recipe, struct view *views, const uint32_t *order,
                  int64_t count, int64_t epoch, const uint8_t *begins, struct random *random);

/* Draws a 0 or 1 for each of `count` images, the same for every run of that seed, from a generator
 * of its own. */
void recipe_first_flips(uint8_t *begins, int64_t count, uint64_t seed);
