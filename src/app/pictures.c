#include "app/pictures.h"

#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Enough to keep many threads busy. */
enum { AT_ONCE = 512 };

void picture_reader_init(struct picture_reader *r, char *const *words, int word_count,
                         enum picture_crop crop, int threads) {
    *r = (struct picture_reader){
        .crop = crop, .threads = threads, .words = words, .word_count = word_count};
    r->pictures = memory_new(AT_ONCE, sizeof *r->pictures);
    r->images.records = memory_new(AT_ONCE, CIFAR10_RECORD);
}

/* ---- what there is ---- */

static struct picture_read *add(struct picture_reader *r) {
    struct picture_read *p = &r->pictures[r->count++];
    p->path = strcpy(memory_take(strlen(r->path) + 1), r->path);
    p->good = true;
    return p;
}

/* What cannot be read, and will be told of in its turn. */
#define add_unreadable(r, ...)                                                                     \
    do {                                                                                           \
        struct picture_read *p = add(r);                                                           \
        p->good = error_set_file(&p->error, STATUS_DATA, p->path, __VA_ARGS__);                    \
    } while (0)

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

int pictures_list(const char *folder, struct dirent ***entries) {
    const int count = scandir(folder, entries, is_visible, by_name);
    if (count < 0 && errno == ENOMEM)
        memory_failed(0);
    return count;
}

/* A folder whose entries are being gone through. */
struct folder {
    struct folder *above;
    struct dirent **entries;
    int count, next;
    size_t length; /* of its path */
    dev_t device;
    ino_t inode;
};

static void enter(struct picture_reader *r, const struct stat *info) {
    struct dirent **entries;
    for (const struct folder *f = r->folder; f != NULL; f = f->above)
        if (f->device == info->st_dev && f->inode == info->st_ino) {
            add_unreadable(r, "is a link to a folder that it lies in itself, and is not followed");
            return;
        }
    const int count = pictures_list(r->path, &entries);
    if (count < 0) {
        add_unreadable(r, "cannot be read: %s", strerror(errno));
        return;
    }
    struct folder *folder = memory_take(sizeof *folder);
    *folder =
        (struct folder){r->folder, entries, count, 0, strlen(r->path), info->st_dev, info->st_ino};
    r->folder = folder;
}

static void leave(struct picture_reader *r) {
    struct folder *folder = r->folder;
    r->folder = folder->above;
    for (int i = 0; i < folder->count; i++)
        free(folder->entries[i]);
    free(folder->entries);
    free(folder);
}

/* What r->path names: what is no folder is a picture, or the reader of pictures says what it is. */
static void meet(struct picture_reader *r, bool by_word) {
    struct stat info;
    if (stat(r->path, &info) == 0 && S_ISDIR(info.st_mode))
        enter(r, &info);
    else if (by_word || picture_has_name(r->path))
        add(r);
    else
        r->others++;
}

static void find(struct picture_reader *r) {
    while (r->count < AT_ONCE && (r->folder != NULL || r->word_count > 0)) {
        struct folder *f = r->folder;
        size_t at = 0;
        const char *name;
        if (f != NULL && f->next == f->count) {
            leave(r);
            continue;
        }
        if (f != NULL) {
            at = f->length;
            name = f->entries[f->next++]->d_name;
            if (r->path[at - 1] != '/' && at + 1 < sizeof r->path)
                r->path[at++] = '/';
        } else {
            name = *r->words++;
            r->word_count--;
        }
        if ((size_t)snprintf(r->path + at, sizeof r->path - at, "%s", name) >= sizeof r->path - at)
            add_unreadable(r, "the name is longer than %zu bytes", sizeof r->path - 1);
        else if (f == NULL && strcmp(name, "-") == 0)
            add(r);
        else
            meet(r, f == NULL);
    }
}

static void forget(struct picture_reader *r) {
    for (int i = 0; i < r->count; i++)
        free(r->pictures[i].path);
    r->count = 0;
}

void picture_reader_free(struct picture_reader *r) {
    forget(r);
    while (r->folder != NULL)
        leave(r);
    free(r->pictures);
    cifar10_free(&r->images);
}

/* ---- what they hold ---- */

static void take(const struct picture_reader *r, int i) {
    struct picture_read *p = &r->pictures[i];
    uint8_t *record = r->images.records + (size_t)i * CIFAR10_RECORD;
    struct picture picture;
    p->good = p->good && picture_load(&picture, p->path, &p->error);
    if (!p->good)
        return;
    record[0] = 0;
    picture_fit(&picture, r->crop, record + 1);
    picture_free(&picture);
}

bool picture_reader_next(struct picture_reader *r) {
    uint8_t *records = r->images.records;
    forget(r);
    find(r);
#pragma omp parallel for schedule(dynamic) num_threads(r->threads)
    for (int i = 0; i < r->count; i++)
        take(r, i);
    r->images.count = 0;
    for (int i = 0; i < r->count; i++)
        if (r->pictures[i].good)
            memmove(records + r->images.count++ * CIFAR10_RECORD,
                    records + (size_t)i * CIFAR10_RECORD, CIFAR10_RECORD);
    r->good += r->images.count;
    r->bad += r->count - r->images.count;
    return r->count > 0;
}
