/* Stand-ins for what the readers call but is not tested here. */
#include "base/random.h"
#include "device/device.h"

#include <string.h>

const char *__asan_default_options(void);

/* For speed: a state is allocated anew for each input, and such memory, kept away from use for as
 * long as by default, would never be warm; and JSON is thousands of small pieces, whose allocation
 * need not be known in depth. */
const char *__asan_default_options(void) {
    return "quarantine_size_mb=8:malloc_context_size=4";
}

/* The help's list of backends, without the backends. */
const char *device_name(int i) {
    return i == 0 ? "cpu" : NULL;
}

/* A state that is loaded draws its 50,000 weights first, which would take most of the time. */
void random_seed(struct random *random, uint64_t seed) {
    memset(random, 0, sizeof *random);
    random->state[0] = (uint32_t)seed;
    random->next = 624;
}

float random_uniform(struct random *random, float low, float high) {
    (void)random, (void)low;
    return high;
}
