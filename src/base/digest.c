#include "base/digest.h"

#include <stdio.h>
#include <xxhash.h>

static void write_digits(char digits[DIGEST_DIGITS + 1], XXH128_hash_t hash) {
    snprintf(digits, DIGEST_DIGITS + 1, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

void digest_bytes(char digits[DIGEST_DIGITS + 1], const void *bytes, size_t size) {
    write_digits(digits, XXH3_128bits(bytes, size));
}

bool digest_file(char digits[DIGEST_DIGITS + 1], const char *path) {
    char part[4096];
    FILE *stream = fopen(path, "re");
    XXH3_state_t *state = XXH3_createState();
    bool good = stream != NULL && state != NULL && XXH3_128bits_reset(state) == XXH_OK;
    while (good && !feof(stream)) {
        const size_t got = fread(part, 1, sizeof part, stream);
        good = !ferror(stream) && XXH3_128bits_update(state, part, got) == XXH_OK;
    }
    if (good)
        write_digits(digits, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    if (stream != NULL)
        fclose(stream);
    return good;
}
