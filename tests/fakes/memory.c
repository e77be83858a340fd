#include "memory.h"

#include "fake.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if FAKE_SANITIZED
#    include <sanitizer/asan_interface.h>
#else
#    define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#    define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

enum {
    PAGE = 4096,
    ALIGNMENT = 256,
    GUARD = 256, /* bytes before, and at least as many behind */
    GUARD_BYTE = 0xA5,
};

#define ADDRESS_SPACE ((size_t)1 << 38)

struct allocation {
    struct allocation *next;
    int number; /* of the calls of cuMemAlloc: 1, 2, ... */
    size_t size, pages_size;
    unsigned char *pages, *data;
};

static struct allocation *allocations;
static size_t bytes_used;
static unsigned char *space; /* all addresses of the device */
static const char *running;  /* whom the memory is open for; NULL: nobody */

/* Says whose fault it is, then lets the program crash where it stands. */
static void explain_crash(int number, siginfo_t *information, void *context) {
    const unsigned char *address = information->si_addr;
    (void)context;
    if (address >= space && address < space + ADDRESS_SPACE) {
        if (running == NULL)
            fake_message("the host touched memory of the device");
        else
            fake_message("%s touched memory of the device that is not allocated", running);
    }
    signal(number, SIG_DFL);
}

/* Address space in which nothing is allocated yet. */
static unsigned char *fresh_pages(size_t size) {
    static unsigned char *next;
    if (space == NULL) {
        const struct sigaction action = {.sa_sigaction = explain_crash, .sa_flags = SA_SIGINFO};
        if (!FAKE_SANITIZED) /* the sanitizer explains crashes itself */
            sigaction(SIGSEGV, &action, NULL);
        space = mmap(NULL, ADDRESS_SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
        if (space == MAP_FAILED)
            fake_stop("no address space for the device's memory");
        next = space;
    }
    unsigned char *pages = next;
    if (size + PAGE > (size_t)(space + ADDRESS_SPACE - next))
        fake_stop("the address space of the device's memory is used up");
    next += size + PAGE; /* a page that is never opened between any two */
    return pages;
}

static void protect(const struct allocation *a, int protection) {
    if (mprotect(a->pages, a->pages_size, protection) != 0)
        fake_stop("mprotect failed");
}

void *memory_allocate(size_t size) {
    static int number;
    number++;
    const size_t limit = fake_setting("FAKE_GPU_MEMORY", (size_t)8 << 30);
    if (size > limit || bytes_used > limit - size)
        return NULL;
    struct allocation *a = fake_new(sizeof *a);
    const size_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    a->pages_size = (GUARD + rounded + GUARD + PAGE - 1) / PAGE * PAGE;
    a->pages = fresh_pages(a->pages_size);
    a->data = a->pages + a->pages_size - GUARD - rounded; /* far overruns meet the closed page */
    a->size = size;
    a->number = number;
    a->next = allocations;
    allocations = a;
    bytes_used += size;
    protect(a, PROT_READ | PROT_WRITE);
    memset(a->pages, GUARD_BYTE, a->pages_size);
    memset(a->data, 0xFF, size);
    protect(a, PROT_NONE);
    ASAN_POISON_MEMORY_REGION(a->pages, a->pages_size);
    ASAN_UNPOISON_MEMORY_REGION(a->data, size);
    return a->data;
}

bool memory_free(void *address) {
    for (struct allocation **link = &allocations; *link != NULL; link = &(*link)->next) {
        struct allocation *a = *link;
        if (a->data != address)
            continue;
        ASAN_POISON_MEMORY_REGION(a->pages, a->pages_size);
        madvise(a->pages, a->pages_size, MADV_DONTNEED);
        bytes_used -= a->size;
        *link = a->next;
        free(a);
        return true;
    }
    return false;
}

bool fake_is_device(const void *address, size_t bytes) {
    const uintptr_t first = (uintptr_t)address;
    for (const struct allocation *a = allocations; a != NULL; a = a->next) {
        const uintptr_t data = (uintptr_t)a->data;
        if (first >= data && first - data <= a->size)
            return bytes <= a->size - (first - data);
    }
    return false;
}

void memory_open(void) {
    for (const struct allocation *a = allocations; a != NULL; a = a->next)
        protect(a, PROT_READ | PROT_WRITE);
}

void memory_close(void) {
    for (const struct allocation *a = allocations; a != NULL; a = a->next)
        protect(a, PROT_NONE);
}

/* The sanitizer has no say here: guards are poison to all others. */
__attribute__((no_sanitize("address"))) static void
check_guard(const struct allocation *a, const unsigned char *begin, const unsigned char *end) {
    for (const unsigned char *byte = begin; byte < end; byte++)
        if (*byte != GUARD_BYTE)
            fake_stop("%s wrote outside of allocation %d of %zu bytes, at byte %td", running,
                      a->number, a->size, byte - a->data);
}

void memory_begin(const char *what) {
    running = what;
}

void memory_end(void) {
    for (const struct allocation *a = allocations; a != NULL; a = a->next) {
        check_guard(a, a->data - GUARD, a->data);
        check_guard(a, a->data + a->size, a->pages + a->pages_size);
    }
    running = NULL;
}

void memory_check_leaks(void) {
    if (allocations == NULL)
        return;
    for (const struct allocation *a = allocations; a != NULL; a = a->next)
        fake_message("allocation %d of %zu bytes was never freed", a->number, a->size);
    fake_stop("the context is released with %zu bytes still allocated", bytes_used);
}
