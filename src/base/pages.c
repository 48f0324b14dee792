/* The kernel aligns mappings to its page only: twice the size is mapped and the ends cut off. Its
 * neighbours have the same flags, so the kernel joins them into few maps. */
#include "base/pages.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/panic.h"

void *pages_map(size_t size) {
    assert_always(size >= PAGES_MIN && (size & (size - 1)) == 0);
    char *raw = mmap(NULL, size * 2, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        panic_here("out of memory: cannot map %zu bytes: %s", size * 2, strerror(errno));
    size_t before = -(uintptr_t)raw & (size - 1);
    if (before > 0)
        pages_unmap(raw, before);
    pages_unmap(raw + before + size, size - before);
    /* Fails on kernels built without huge pages, where there is nothing to ask for. */
    (void)madvise(raw + before, size, MADV_NOHUGEPAGE);
    return raw + before;
}

void pages_unmap(void *ptr, size_t size) {
    if (munmap(ptr, size) != 0)
        panic_here("cannot unmap %zu bytes: %s", size, strerror(errno));
}

void pages_discard(void *ptr, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)ptr + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)ptr + size) & ~(page - 1);
    if (start < end && madvise((void *)start, end - start, MADV_DONTNEED) != 0)
        panic_here("cannot discard %zu bytes: %s", size, strerror(errno));
}
