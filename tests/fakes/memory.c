#include "memory.h"

#include "fake.h"

#include <signal.h>
#include <stdatomic.h>
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
    CHUNK = 256 * PAGE, /* that is opened at a time */
};

#define ADDRESS_SPACE ((size_t)1 << 38)

struct allocation {
    struct allocation *next;
    int number; /* of the calls of cuMemAlloc: 1, 2, ... */
    size_t size, pages_size;
    unsigned char *pages, *data;
    unsigned char *opened, *opened_end; /* of the pages; NULL: none */
};

static struct allocation *allocations;
static size_t bytes_used;
static unsigned char *space; /* all addresses of the device */
static const char *running;  /* who may touch them; NULL: nobody */
static struct sigaction other_faults;

static void protect(unsigned char *pages, unsigned char *end, int protection) {
    if (mprotect(pages, (size_t)(end - pages), protection) != 0)
        fake_stop("mprotect failed");
}

/* Opens what lies about the address, and what lies between it and what is open already. False: the
 * address is in no allocation. */
static bool open_at(unsigned char *address) {
    static atomic_flag busy = ATOMIC_FLAG_INIT; /* several threads may come */
    struct allocation *a = allocations;
    while (a != NULL && !(address >= a->pages && address < a->pages + a->pages_size))
        a = a->next;
    if (a == NULL)
        return false;
    while (atomic_flag_test_and_set(&busy))
        ;
    unsigned char *begin = a->pages + (address - a->pages) / CHUNK * CHUNK, *end = begin + CHUNK;
    end = end < a->pages + a->pages_size ? end : a->pages + a->pages_size;
    a->opened_end = a->opened == NULL || end > a->opened_end ? end : a->opened_end;
    a->opened = a->opened == NULL || begin < a->opened ? begin : a->opened;
    protect(a->opened, a->opened_end, PROT_READ | PROT_WRITE);
    atomic_flag_clear(&busy);
    return true;
}

/* Memory is opened where it is touched by who may, since opening and closing all of it each time
 * would take longer than all computing. For others: says whose fault it is, then lets the program
 * crash where it stands. */
static void handle_fault(int number, siginfo_t *information, void *context) {
    unsigned char *address = information->si_addr;
    (void)context;
    if (address >= space && address < space + ADDRESS_SPACE) {
        if (running != NULL && open_at(address))
            return;
        if (running == NULL)
            fake_message("the host touched memory of the device");
        else
            fake_message("%s touched memory of the device that is not allocated", running);
    }
    sigaction(number, &other_faults, NULL);
}

/* Address space in which nothing is allocated yet. */
static unsigned char *fresh_pages(size_t size) {
    static unsigned char *next;
    if (space == NULL) {
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
    protect(a->pages, a->pages + a->pages_size, PROT_READ | PROT_WRITE);
    memset(a->pages, GUARD_BYTE, a->pages_size);
    memset(a->data, 0xFF, size);
    protect(a->pages, a->pages + a->pages_size, PROT_NONE);
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

/* The sanitizer has no say here: guards are poison to all others. */
__attribute__((no_sanitize("address"))) static void
check_guard(const struct allocation *a, const unsigned char *begin, const unsigned char *end) {
    for (const unsigned char *byte = begin; byte < end; byte++)
        if (*byte != GUARD_BYTE)
            fake_stop("%s wrote outside of allocation %d of %zu bytes, at byte %td", running,
                      a->number, a->size, byte - a->data);
}

/* The program may have set a handler of its own meanwhile. */
void memory_open(void) {
    const struct sigaction action = {.sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO};
    struct sigaction before;
    sigaction(SIGSEGV, &action, &before);
    if (before.sa_sigaction != handle_fault)
        other_faults = before;
}

void memory_begin(const char *what) {
    running = what;
}

/* Guards that are closed have not been touched. */
void memory_end(void) {
    for (const struct allocation *a = allocations; a != NULL; a = a->next) {
        if (a->opened == a->pages)
            check_guard(a, a->data - GUARD, a->data);
        if (a->opened_end == a->pages + a->pages_size)
            check_guard(a, a->data + a->size, a->pages + a->pages_size);
    }
    running = NULL;
}

void memory_close(void) {
    for (struct allocation *a = allocations; a != NULL; a = a->next) {
        if (a->opened != NULL)
            protect(a->opened, a->opened_end, PROT_NONE);
        a->opened = a->opened_end = NULL;
    }
}

void memory_check_leaks(void) {
    if (allocations == NULL)
        return;
    for (const struct allocation *a = allocations; a != NULL; a = a->next)
        fake_message("allocation %d of %zu bytes was never freed", a->number, a->size);
    fake_stop("the context is released with %zu bytes still allocated", bytes_used);
}
