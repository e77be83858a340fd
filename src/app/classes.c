#include "app/classes.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

const char classes_key[] = "classes";

void classes_record(struct metadata *about, const struct cifar10_names *names) {
    char text[METADATA_VALUE]; /* the longest names have room in it */
    json_t *list = json_array();
    for (int i = 0; i < cifar10_count_names(names); i++)
        json_array_append_new(list, json_string(names->name[i]));
    metadata_set(about, classes_key, "%.*s", (int)json_dumpb(list, text, sizeof text, JSON_COMPACT),
                 text);
    json_decref(list);
}

bool classes_find(struct cifar10_names *names, bool *told, const struct metadata *about,
                  const char *path, struct error *error) {
    const char *text = metadata_get(about, classes_key);
    *names = cifar10_official_names;
    *told = text != NULL;
    if (!*told)
        return true;
    json_t *list = json_loads(text, 0, NULL);
    const size_t count = json_array_size(list); /* what is no array has size 0 */
    bool good = count > 0 && count <= CIFAR10_CLASSES;
    *names = (struct cifar10_names){0};
    for (size_t i = 0; good && i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        good = name != NULL && cifar10_can_be_name(name);
        if (good)
            snprintf(names->name[i], CIFAR10_NAME, "%s", name);
    }
    json_decref(list);
    return good || error_set(error, STATUS_CHECKPOINT,
                             "%s: its metadata's %s is %.80s; a JSON array of the names of "
                             "one to ten classes, each of 1 to %d bytes of UTF-8 without control "
                             "characters, is expected: the "
                             "file is damaged or was changed",
                             path, classes_key, text, CIFAR10_NAME - 1);
}
