/* Text about a file: a few keys and values, as they stand in a checkpoint. */
#pragma once

#include <stdbool.h>

enum { METADATA_MOST = 64, METADATA_KEY = 40, METADATA_VALUE = 1024 };
struct metadata {
    int count;
    struct {
        char key[METADATA_KEY], value[METADATA_VALUE];
    } entry[METADATA_MOST];
};

/* Adds a key with a formatted value, or changes it. */
void metadata_set(struct metadata *metadata, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Takes a key away; whether it was there. */
bool metadata_remove(struct metadata *metadata, const char *key);

/* Whether a file can hold it as a value: UTF-8, and short enough. */
bool metadata_holds(const char *text);

/* The value of a key, or NULL. */
const char *metadata_get(const struct metadata *metadata, const char *key);
