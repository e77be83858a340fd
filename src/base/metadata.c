#include "base/metadata.h"

#include "base/error.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void metadata_set(struct metadata *metadata, const char *key, const char *format, ...) {
    int i = 0;
    while (i < metadata->count && strcmp(metadata->entry[i].key, key) != 0)
        i++;
    require(i < METADATA_MOST);
    if (i == metadata->count)
        metadata->count++;
    snprintf(metadata->entry[i].key, sizeof metadata->entry[i].key, "%s", key);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(metadata->entry[i].value, sizeof metadata->entry[i].value, format, arguments);
    va_end(arguments);
}

bool metadata_remove(struct metadata *metadata, const char *key) {
    int kept = 0;
    for (int i = 0; i < metadata->count; i++)
        if (strcmp(metadata->entry[i].key, key) != 0)
            metadata->entry[kept++] = metadata->entry[i];
    const bool removed = kept < metadata->count;
    metadata->count = kept;
    return removed;
}

bool metadata_holds(const char *text) {
    json_t *string = json_string(text);
    json_decref(string);
    return string != NULL && strlen(text) < METADATA_VALUE;
}

const char *metadata_get(const struct metadata *metadata, const char *key) {
    for (int i = 0; i < metadata->count; i++)
        if (strcmp(metadata->entry[i].key, key) == 0)
            return metadata->entry[i].value;
    return NULL;
}
