/* Memory that slabs and blocks cost just now: what the kernel keeps resident of those mappings that
 * have the no-huge-pages flag. Unlike the process's RSS it is exact, and valgrind's own memory does
 * not count. ThreadSanitizer's shadow has the flag too: there the test is skipped, as it is on a
 * kernel without huge pages, or with pages of other than 4 KiB, for which the bounds are not made. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static inline size_t slab_resident_bytes(void) {
#ifdef __SANITIZE_THREAD__
    skip();
#endif
    if (sysconf(_SC_PAGESIZE) != 4096 ||
        access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) != 0)
        skip();
    FILE *maps = fopen("/proc/self/smaps", "r");
    assert_non_null(maps);
    char line[512];
    size_t total = 0, kib = 0;
    while (fgets(line, sizeof line, maps)) {
        (void)sscanf(line, "Rss: %zu kB", &kib);
        if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh") != NULL)
            total += kib * 1024;
    }
    fclose(maps);
    return total;
}
