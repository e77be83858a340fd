/* Stand-ins for what the readers call but is not tested here. */
#include "device/device.h"

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
