/* The pictures that the words of a command name, read many at a time on all threads. */
#pragma once

#include "data/picture.h"

#include <dirent.h>
#include <limits.h>

/* A picture, or what could not be read as one. */
struct picture_read {
    char *path;
    bool good;
    struct error error; /* if not */
};

struct picture_reader {
    enum picture_crop crop;
    int threads;
    char *const *words; /* that are left */
    int word_count;
    struct folder *folder; /* that the last word named, or one below; NULL: none */
    char path[PATH_MAX];   /* of that, and more behind it */

    /* What was read last, and what all of it comes to so far. */
    struct picture_read *pictures; /* [count] */
    int count;
    struct cifar10 images; /* of the good ones among them, in their order, label 0 */
    int64_t good, bad;
    int64_t others; /* files in folders that have no picture's name and were not looked at */
};

/* A word is a picture's path, a folder, which stands for all pictures in it and below, in order of
 * name, but for hidden ones, or "-", a picture on standard input. The words must outlive it. */
void picture_reader_init(struct picture_reader *reader, char *const *words, int word_count,
                         enum picture_crop crop, int threads);

/* Reads the next ones, as many as are worth while at once. False: there are no more. */
bool picture_reader_next(struct picture_reader *reader);

void picture_reader_free(struct picture_reader *reader);

/* The entries of a folder in order of name, as scandir(), but for hidden ones. */
int pictures_list(const char *folder, struct dirent ***entries);
