/* Limits read from trees of files made for the purpose, in the layouts of both cgroup versions. */
#include "base/cpus.c"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[64], self[96];

static int make_root(void **state) {
    (void)state;
    snprintf(root, sizeof root, "%s/sluice-cpus-XXXXXX", P_tmpdir);
    if (mkdtemp(root) == NULL)
        return -1;
    snprintf(self, sizeof self, "%s/self", root);
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static int remove_root(void **state) {
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes a file under the root, with the folders above it. */
static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void nothing_means_no_limit(void **state) {
    (void)state;
    assert_int_equal(cpus_quota_percent(root, self), 0);
    assert_int_equal(memory_group_limit(root, self), 0);
    assert_int_equal(cpus_allowed(root, self), affinity());
    assert_true(memory_allowed(root, self) == machine_memory());
}

static void v2_takes_the_tightest_group_on_the_way_up(void **state) {
    (void)state;
    put("self", "0::/a/b/c\n");
    put("cpu.max", "max 100000\n");
    put("a/cpu.max", "150000 100000\n");
    put("a/b/cpu.max", "max 100000\n");
    put("a/b/c/cpu.max", "400000 100000\n");
    put("memory.max", "max\n");
    put("a/b/memory.max", "1048576\n");
    put("a/b/c/memory.max", "2097152\n");
    assert_int_equal(cpus_quota_percent(root, self), 150);
    assert_int_equal(memory_group_limit(root, self), 1048576);
    assert_int_equal(memory_allowed(root, self), 1048576);
}

static void quotas_are_rounded_up_and_never_exceed_affinity(void **state) {
    (void)state;
    put("self", "0::/\n");
    put("cpu.max", "1000 100000\n");
    assert_int_equal(cpus_quota_percent(root, self), 1);
    assert_int_equal(cpus_allowed(root, self), 1);
    put("cpu.max", "10 100000\n");
    assert_int_equal(cpus_quota_percent(root, self), 1);
    put("cpu.max", "110000 100000\n");
    assert_int_equal(cpus_allowed(root, self), affinity() < 2 ? affinity() : 2);
    put("cpu.max", "100000000 100000\n");
    assert_int_equal(cpus_allowed(root, self), affinity());
}

static void inside_a_container_only_the_root_is_there(void **state) {
    (void)state;
    put("self", "0::/kubepods/pod1/x\n");
    put("cpu.max", "50000 100000\n");
    put("memory.max", "4194304\n");
    assert_int_equal(cpus_quota_percent(root, self), 50);
    assert_int_equal(memory_group_limit(root, self), 4194304);
}

static void v1_has_a_folder_for_each_controller(void **state) {
    (void)state;
    put("self", "5:memory:/m\n4:cpu,cpuacct:/c:d/e\n1:name=systemd:/x\n0::/\n");
    put("cpu/cpu.cfs_quota_us", "-1\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    put("cpu/c:d/e/cpu.cfs_quota_us", "250000\n");
    put("cpu/c:d/e/cpu.cfs_period_us", "100000\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("memory/m/memory.limit_in_bytes", "8388608\n");
    assert_int_equal(cpus_quota_percent(root, self), 250);
    assert_int_equal(memory_group_limit(root, self), 8388608);
}

static void limits_beyond_the_machine_are_none(void **state) {
    (void)state;
    put("self", "5:memory:/m\n");
    put("memory/m/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(memory_group_limit(root, self), 0);
    assert_true(memory_allowed(root, self) == machine_memory());
}

static void garbage_is_no_limit(void **state) {
    (void)state;
    static const char *const lines[] = {"", "0::", "::::", "x\n\n0:cpu\n", "0::/../..//\n"};
    put("cpu.max", "lots 0\n");
    put("memory.max", "-5\n");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        put("self", lines[i]);
        assert_int_equal(cpus_quota_percent(root, self), 0);
        assert_int_equal(memory_group_limit(root, self), 0);
    }
    put("self", "0::/\n");
    static const char *const quotas[] = {"100000", "100000 0", "0 100000", "1 2 3x", "9x 100000"};
    for (size_t i = 0; i < sizeof quotas / sizeof *quotas; i++) {
        put("cpu.max", quotas[i]);
        assert_true(cpus_allowed(root, self) >= 1);
    }
}

static void this_machine_has_something(void **state) {
    (void)state;
    assert_true(cpus_allowed(NULL, NULL) >= 1);
    assert_true(memory_allowed(NULL, NULL) > 0);
    assert_true(memory_allowed(NULL, NULL) <= machine_memory());
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_ROOT(nothing_means_no_limit),
        WITH_ROOT(v2_takes_the_tightest_group_on_the_way_up),
        WITH_ROOT(quotas_are_rounded_up_and_never_exceed_affinity),
        WITH_ROOT(inside_a_container_only_the_root_is_there),
        WITH_ROOT(v1_has_a_folder_for_each_controller),
        WITH_ROOT(limits_beyond_the_machine_are_none),
        WITH_ROOT(garbage_is_no_limit),
        cmocka_unit_test(this_machine_has_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
