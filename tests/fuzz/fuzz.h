/* What the fuzz targets share: files that exist in memory only, and what every error and every
 * accepted command line must be. A condition that does not hold ends the target (require), and
 * libFuzzer keeps the input. */
#pragma once

#include "app/run_settings.h"
#include "base/error.h"

#include <getopt.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An empty file without a name, read through /proc/self/fd/`descriptor`. */
static inline void fuzz_file_new(int descriptor) {
    const int made = memfd_create("fuzz", 0);
    require(made >= 0 && dup2(made, descriptor) == descriptor && close(made) == 0);
}

/* Makes the file hold these bytes, and zeros behind them up to `size`. */
static inline void fuzz_file_fill(int descriptor, const void *bytes, size_t count, size_t size) {
    /* what was behind them is forgotten by the first call, and zeros once the second brings it back
     */
    require(ftruncate(descriptor, (off_t)count) == 0 && ftruncate(descriptor, (off_t)size) == 0);
    require(pwrite(descriptor, bytes, count, 0) == (ssize_t)count);
}

/* An error must be of that kind, say something, and give no orders to a terminal: no control
 * characters, neither of ASCII nor U+0080 .. U+009F. */
static inline void fuzz_check_error(const struct error *error, enum status status) {
    require(error->status == status);
    require(error->text[0] != '\0' && memchr(error->text, '\0', sizeof error->text) != NULL);
    for (const unsigned char *at = (const unsigned char *)error->text; *at != '\0'; at++)
        require(*at >= ' ' && *at != 0x7f && !(at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0));
}

/* settings_parse(), as often as wanted. The words end in NULL; their order may change. */
static inline bool fuzz_parse(struct settings *settings, const char **words, struct error *error) {
    int count = 0;
    while (words[count] != NULL)
        count++;
    optind = 0; /* glibc's way to begin anew */
    return settings_parse(settings, count, (char **)words, error);
}

static inline bool fuzz_is_share(double value) {
    return value >= 0 && value <= 1;
}

/* Also of a command that has none: it is the tutorial's. */
static inline void fuzz_check_recipe(const struct recipe *r) {
    require(r->epochs >= 1 && r->epochs <= 1000000 && r->batch >= 1 && r->batch <= 1000000);
    require(r->optimizer >= OPTIMIZER_ADAM && r->optimizer <= OPTIMIZER_MUON);
    require(r->lr >= 0 && r->lr <= 1e30 && r->weight_decay >= 0 && r->weight_decay <= 1e30);
    require(r->muon_lr >= 0 && r->muon_lr <= 1e30 && fuzz_is_share(r->momentum));
    require(r->schedule >= SCHEDULE_CONSTANT && r->schedule <= SCHEDULE_COSINE);
    require(fuzz_is_share(r->warmup) && fuzz_is_share(r->final_lr));
    require(r->flip >= FLIP_NONE && r->flip <= FLIP_ALTERNATING);
    require(r->shift >= 0 && r->shift <= 31);
    require(r->border == BORDER_ZERO || r->border == BORDER_REFLECT);
    require(fuzz_is_share(r->label_smoothing) && fuzz_is_share(r->average_decay));
    require(r->average == AVERAGE_NONE || r->average == AVERAGE_EMA);
    require(r->select == SELECT_BEST || r->select == SELECT_LAST);
}

/* The ranges that `cifar COMMAND --help` and settings.h tell of; of options that the command does
 * not have, 0. */
static inline void fuzz_check_settings(const struct settings *s) {
    const bool train = s->command == COMMAND_TRAIN, synth = s->command == COMMAND_SYNTH;
    const bool judge = s->command == COMMAND_TEST || s->command == COMMAND_CLASSES;
    const bool predict = s->command == COMMAND_PREDICT, import = s->command == COMMAND_IMPORT;
    const bool verify = s->command == COMMAND_VERIFY, export = s->command == COMMAND_EXPORT;
    require(train + judge + predict + export + import + synth + verify == 1);
    require(s->seed >= 0 && s->limit >= 0 && s->limit <= 1000000000);
    require(s->save_every >= 0 && s->save_every <= 1000000000);
    require(s->threads >= 0 && s->threads <= 1024);
    require(judge ? s->batch >= 1 && s->batch <= 1000000 : s->batch == 0);
    require(train ? s->log_every >= 1 && s->log_every <= 1000000000 : s->log_every == 0);
    fuzz_check_recipe(&s->recipe);
    require(s->validation >= 0 && s->validation <= 1000000000 && (train || s->init == NULL));
    require(synth ? s->synth_train >= 5 && s->synth_train <= 1000000 : s->synth_train == 0);
    require(synth ? s->synth_test >= 1 && s->synth_test <= 1000000 : s->synth_test == 0);
    require(predict || (s->grid != NULL) == (s->command == COMMAND_TEST));
    require(predict ? s->top >= 1 && s->top <= 10 : s->top == 0);
    require(export ? s->opset >= 7 && s->opset <= 21 && s->onnx[0] != '\0' : s->opset == 0);
    require(import ? s->test_share >= 0 && s->test_share <= 0.9 : s->test_share == 0);
    require(predict ? s->word_count >= 1 : s->word_count <= 2);
    require(!synth || s->word_count == 1);
    require(!import || s->word_count == 2);
    require(!(train || judge || export) || s->word_count == 0);
    for (int i = 0; i < s->word_count; i++)
        require(s->words[i][0] != '\0');
    require(predict || import ? s->crop >= 0 && s->crop <= 1 : s->crop == 0);
    require(train ? s->keep >= 1 && s->keep <= 10 : s->keep == 0);
    require(verify ? s->state != NULL : train || judge || s->state == NULL);
    if (train || judge || predict)
        require(s->device[0] != '\0' && s->model[0] != '\0');
    require(s->precision == PRECISION_FLOAT32 || s->precision == PRECISION_TF32);
    require(!train || s->last[0] != '\0');
    const char *texts[] = {s->data, s->state, s->log, s->grid, s->onnx, s->init};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        require(texts[i] == NULL || strlen(texts[i]) < SIZE_MAX); /* reads all of it */
}
