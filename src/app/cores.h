/* The processor, as far as this process may use it. */
#pragma once

#include <stdint.h>

/* How many threads it can keep busy: the cores that it may run on (taskset), or fewer where its
 * control group, v1 or v2, or one above has a quota of their time, as in a container; rounded up.
 * `root` is a folder in the place of /, "" but for tests. */
int64_t cores_count(const char *root);
