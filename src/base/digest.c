#include "base/digest.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

static void write_digits(char digits[DIGEST_DIGITS + 1], XXH128_hash_t hash) {
    snprintf(digits, DIGEST_DIGITS + 1, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

void digest_bytes(char digits[DIGEST_DIGITS + 1], const void *bytes, size_t size) {
    write_digits(digits, XXH3_128bits(bytes, size));
}

bool digest_file(char digits[DIGEST_DIGITS + 1], const char *path) {
    enum { PART = 1 << 16 };
    struct file file;
    struct error error;
    ssize_t got;
    if (!file_open(&file, path, STATUS_FAILURE, &error))
        return false;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        memory_failed(PART);
    char *part = memory_new(PART, 1);
    XXH3_128bits_reset(state);
    while ((got = TEMP_FAILURE_RETRY(read(file.descriptor, part, PART))) > 0)
        XXH3_128bits_update(state, part, (size_t)got);
    write_digits(digits, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    free(part);
    file_close(&file);
    return got == 0;
}
