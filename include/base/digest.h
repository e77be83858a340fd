/* Digests: what tells bytes that differ apart, by accident that is; they are no protection against
 * forgery. XXH3 of 128 bits (https://xxhash.com), as 32 hexadecimal digits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { DIGEST_DIGITS = 32 };

void digest_bytes(char digits[DIGEST_DIGITS + 1], const void *bytes, size_t size);

/* Of all that a file holds. False: it cannot be read. */
bool digest_file(char digits[DIGEST_DIGITS + 1], const char *path);
