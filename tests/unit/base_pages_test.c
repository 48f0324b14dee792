/* Mappings: aligned, zero, no huge pages, and gone when given back. */
#include "base/pages.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* Pages of [ptr, ptr + size) that the kernel holds in memory; -1 when it is not mapped. */
static int resident(void *ptr, size_t size) {
    unsigned char pages[1024];
    size_t count = size / (size_t)sysconf(_SC_PAGESIZE);
    assert_true(count <= sizeof pages);
    if (mincore(ptr, size, pages) != 0)
        return -1;
    int found = 0;
    for (size_t i = 0; i < count; i++)
        found += pages[i] & 1;
    return found;
}

/* True when the mapping that holds `ptr` has the flag (two letters) in its VmFlags. */
static bool has_vm_flag(const void *ptr, const char *flag) {
    FILE *maps = fopen("/proc/self/smaps", "r");
    assert_non_null(maps);
    char line[512], want[8];
    bool inside = false, found = false;
    snprintf(want, sizeof want, " %s", flag);
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = (uintptr_t)ptr >= start && (uintptr_t)ptr < end;
        if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, want) != NULL;
    }
    fclose(maps);
    return found;
}

static void aligned_and_zero(void **state) {
    (void)state;
    static const size_t sizes[] = {PAGES_MIN, 256 * 1024, 1024 * 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *all[20];
        for (int k = 0; k < 20; k++) {
            all[k] = pages_map(sizes[i]);
            assert_int_equal((uintptr_t)all[k] % sizes[i], 0);
            assert_int_equal(all[k][0], 0);
            assert_int_equal(all[k][sizes[i] - 1], 0);
            all[k][0] = all[k][sizes[i] - 1] = 1;
        }
        for (int k = 0; k < 20; k++)
            pages_unmap(all[k], sizes[i]);
    }
}

static void unmapped_is_gone(void **state) {
    (void)state;
    const size_t size = 1024 * 1024;
    char *ptr = pages_map(size);
    assert_int_equal(resident(ptr, size), 0);
    memset(ptr, 1, size);
    assert_int_equal(resident(ptr, size), (int)size / sysconf(_SC_PAGESIZE));
    pages_unmap(ptr, size);
    assert_int_equal(resident(ptr, size), -1);
}

static void discarded_is_free(void **state) {
    (void)state;
    const size_t size = 1024 * 1024, page = (size_t)sysconf(_SC_PAGESIZE);
    const int all = (int)(size / page);
    char *ptr = pages_map(size);
    memset(ptr, 1, size);
    pages_discard(ptr + 2 * page, 3 * page);
    assert_int_equal(resident(ptr, size), all - 3);
    /* Neighbours keep their contents, and so do pages that are covered in part only. */
    assert_int_equal(ptr[2 * page - 1], 1);
    assert_int_equal(ptr[5 * page], 1);
    pages_discard(ptr + 6 * page + 1, 2 * page);
    assert_int_equal(resident(ptr, size), all - 4);
    assert_int_equal(ptr[6 * page + 1], 1);
    assert_int_equal(ptr[8 * page], 1);
    pages_discard(ptr + 9 * page + 1, page / 2);
    pages_discard(ptr + 9 * page, 0);
    assert_int_equal(resident(ptr, size), all - 4);
    assert_int_equal(ptr[9 * page + 1], 1);
    pages_unmap(ptr, size);
}

static void no_huge_pages(void **state) {
    (void)state;
    FILE *supported = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (supported == NULL)
        skip();
    fclose(supported);
    char *ptr = pages_map(256 * 1024);
    assert_true(has_vm_flag(ptr, "nh"));
    pages_unmap(ptr, 256 * 1024);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_and_zero),
        cmocka_unit_test(unmapped_is_gone),
        cmocka_unit_test(discarded_is_free),
        cmocka_unit_test(no_huge_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
