/* CIFAR-10 in its binary version, as https://www.cs.toronto.edu/~kriz/cifar.html defines it: files
 * of records of one label byte (0..9) and 3,072 pixel bytes: the red plane, the green plane, the
 * blue plane, each 32 rows of 32. */
#pragma once

#include "base/error.h"

#include <stdint.h>

enum {
    CIFAR10_CLASSES = 10,
    CIFAR10_CHANNELS = 3,
    CIFAR10_SIDE = 32, /* height and width in pixels */
    CIFAR10_PIXELS = CIFAR10_CHANNELS * CIFAR10_SIDE * CIFAR10_SIDE,
    CIFAR10_RECORD = 1 + CIFAR10_PIXELS, /* bytes */
    CIFAR10_TRAIN_FILES = 5,
    CIFAR10_MOST = 350000, /* images in a batch file; 35 times the original */
    CIFAR10_NAME = 32,     /* room for a class name and its final zero */
};

enum cifar10_part { CIFAR10_TRAIN, CIFAR10_TEST };

/* The records of one part, in the order of its files. */
struct cifar10 {
    uint8_t *records; /* [count][CIFAR10_RECORD], owned */
    int64_t count;    /* images, at least 1 */
    int classes;      /* labels are smaller */
};

/* The names of the classes, by label. CIFAR-10 has ten; people's own data may have fewer, and then
 * the names behind the last are empty. */
struct cifar10_names {
    char name[CIFAR10_CLASSES][CIFAR10_NAME];
};

/* How many there are. */
int cifar10_count_names(const struct cifar10_names *names);

/* Whether it can be one: 1 to 31 bytes of UTF-8 without control characters. */
bool cifar10_can_be_name(const char *text);

/* The first label that two call by different names, or CIFAR10_CLASSES. */
int cifar10_compare_names(const struct cifar10_names *a, const struct cifar10_names *b);

/* The official names: airplane, automobile, ..., truck. */
extern const struct cifar10_names cifar10_official_names;

/* The file of the class names: batches.meta.txt */
extern const char cifar10_names_file[];

/* The name of batch file `index` of a part: data_batch_1.bin .. data_batch_5.bin, test_batch.bin */
const char *cifar10_file(enum cifar10_part part, int index);

/* The folder that holds the batches: `dir` itself, else `dir`/cifar-10-batches-bin, as torchvision
 * lays it out. Writes it to `folder` (at least 4,096 bytes). Errors (STATUS_DATA): neither holds
 * batches, with a word on what is there instead (nothing, the Python or MATLAB version, CIFAR-100,
 * the packed archive) and on how to get the right files. */
bool cifar10_find(char folder[4096], const char *dir, struct error *error);

/* Loads one part from the folder that cifar10_find() found, or its first `limit` images alone if
 * that is not 0: memory and time are for these, but every batch must be there. Their labels must be
 * such as have names. Errors (STATUS_DATA): a missing, unreadable, empty or cut batch, a label
 * that is too large, with file and byte. */
bool cifar10_load(struct cifar10 *images, const char *folder, const struct cifar10_names *names,
                  enum cifar10_part part, int64_t limit, struct error *error);

/* Moves `count` of the images, fewer than there are, to `held`: the last ones of a random order
 * that depends on the seed and on how many there are alone. Those that stay keep their order. */
void cifar10_hold_out(struct cifar10 *images, struct cifar10 *held, int64_t count, uint64_t seed);

/* A number that tells two data sets apart, by all their bytes; begin with `seed` 0, go on with the
 * number of the part before. As fast as memory is read; no protection against forgery. */
uint64_t cifar10_fingerprint(const struct cifar10 *images, uint64_t seed);

void cifar10_free(struct cifar10 *images);

/* Reads the class names from batches.meta.txt in the folder: one to ten lines, each a name.
 * Without that file they are the official ones. Errors (STATUS_DATA): a file that holds anything
 * else. */
bool cifar10_load_names(struct cifar10_names *names, const char *folder, struct error *error);

/* Writes records as the batch files of a part (training images spread evenly over the five files,
 * count >= 5; of files with more than CIFAR10_MOST none is read again). The folder must exist.
 * Errors as file_replace. */
bool cifar10_save(const struct cifar10 *images, const char *folder, enum cifar10_part part,
                  struct error *error);

/* Writes batches.meta.txt. Errors as file_replace. */
bool cifar10_save_names(const struct cifar10_names *names, const char *folder, struct error *error);

/* Whether a data set has a file of that name. */
bool cifar10_is_name(const char *name);

/* Whether a file is a batch, by what it holds, or has the name of one of a data set's files, so
 * that nothing is written over it. */
bool cifar10_is_file(const char *path);
