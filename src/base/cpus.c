/* Limits may be set on any group between the process's own one and the root, so the path is walked
 * upwards and the tightest value counts. Inside a container the mount shows only the own subtree:
 * paths that do not exist are skipped and the root itself is always looked at. */
#include "base/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "base/str.h"

#define NO_LIMIT UINT64_MAX
#define PATH_LEN 768

static struct str read_file(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return STR_NONE;
    ssize_t len = read(fd, out, size);
    close(fd);
    return len < 0 ? STR_NONE : str_make(out, (size_t)len);
}

/* The path of the process's group in the hierarchy of `controller` ("" = v2): "0::/a/b" or
 * "4:cpu,cpuacct:/a/b". Empty when it is not there. */
static struct str own_group(const char *self, struct str controller, char *out, size_t size) {
    struct str rest = read_file(self ? self : "/proc/self/cgroup", out, size), line;
    while (rest.ptr != NULL && str_split(&rest, '\n', &line)) {
        struct str id, names, name;
        if (!str_split(&line, ':', &id) || !str_split(&line, ':', &names) || line.ptr == NULL)
            continue;
        while (str_split(&names, ',', &name))
            if (str_eq(name, controller))
                return line;
    }
    return STR("");
}

/* Reads one limit out of the files of one group's folder; NO_LIMIT when there is none. */
typedef uint64_t limit_reader(const char *folder);

static struct str group_file(const char *folder, const char *name, char *out, size_t size) {
    char path[PATH_LEN];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (len < 0 || (size_t)len >= sizeof path)
        return STR_NONE;
    return str_trim(read_file(path, out, size));
}

static uint64_t file_number(const char *folder, const char *name) {
    char text[64];
    uint64_t number;
    if (str_to_u64(group_file(folder, name, text, sizeof text), &number) != 0)
        return NO_LIMIT;
    return number;
}

static uint64_t quota_percent(uint64_t quota, uint64_t period) {
    if (quota == NO_LIMIT || quota == 0 || period == 0 || period == NO_LIMIT ||
        quota > NO_LIMIT / 100)
        return NO_LIMIT;
    return quota * 100 / period;
}

static uint64_t cpu_limit_v2(const char *folder) {
    char text[64];
    struct str rest = group_file(folder, "cpu.max", text, sizeof text), quota, period;
    uint64_t quota_us, period_us;
    if (rest.ptr == NULL || !str_split(&rest, ' ', &quota) || !str_split(&rest, ' ', &period))
        return NO_LIMIT;
    if (str_to_u64(quota, &quota_us) != 0 || str_to_u64(period, &period_us) != 0)
        return NO_LIMIT;
    return quota_percent(quota_us, period_us);
}

/* -1 (no quota) is no unsigned number and so no limit. */
static uint64_t cpu_limit_v1(const char *folder) {
    return quota_percent(file_number(folder, "cpu.cfs_quota_us"),
                         file_number(folder, "cpu.cfs_period_us"));
}

static uint64_t memory_limit_v2(const char *folder) { return file_number(folder, "memory.max"); }

static uint64_t memory_limit_v1(const char *folder) {
    return file_number(folder, "memory.limit_in_bytes");
}

/* The group above, "" for the root's children. */
static struct str parent_group(struct str group) {
    while (group.len > 0 && group.ptr[group.len - 1] != '/')
        group.len--;
    return group;
}

static struct str without_slashes(struct str group) {
    while (group.len > 0 && group.ptr[group.len - 1] == '/')
        group.len--;
    return group;
}

/* The tightest limit from `group` up to `base` itself. */
static uint64_t walk_up(const char *base, struct str group, limit_reader *reader) {
    char folder[PATH_LEN];
    uint64_t limit = NO_LIMIT;
    for (;;) {
        group = without_slashes(group);
        int len = snprintf(folder, sizeof folder, "%s%.*s", base, STR_ARG(group));
        uint64_t here = len > 0 && (size_t)len < sizeof folder ? reader(folder) : NO_LIMIT;
        limit = here < limit ? here : limit;
        if (group.len == 0)
            return limit;
        group = parent_group(group);
    }
}

struct controller {
    struct str name;
    limit_reader *v1, *v2;
};

static uint64_t group_limit(const char *root, const char *self,
                            const struct controller *controller) {
    char text[1024], base[PATH_LEN];
    root = root != NULL ? root : "/sys/fs/cgroup";
    uint64_t v2 = walk_up(root, own_group(self, STR(""), text, sizeof text), controller->v2);
    int len = snprintf(base, sizeof base, "%s/%.*s", root, STR_ARG(controller->name));
    if (len < 0 || (size_t)len >= sizeof base)
        return v2;
    uint64_t v1 =
        walk_up(base, own_group(self, controller->name, text, sizeof text), controller->v1);
    return v1 < v2 ? v1 : v2;
}

uint64_t cpus_quota_percent(const char *root, const char *self) {
    static const struct controller cpu = {STR_INIT("cpu"), cpu_limit_v1, cpu_limit_v2};
    uint64_t limit = group_limit(root, self, &cpu);
    return limit == NO_LIMIT ? 0 : limit > 0 ? limit : 1;
}

static unsigned affinity(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

unsigned cpus_allowed(const char *root, const char *self) {
    unsigned cpus = affinity();
    uint64_t quota = cpus_quota_percent(root, self);
    uint64_t whole = (quota + 99) / 100;
    return whole > 0 && whole < cpus ? (unsigned)whole : cpus;
}

static uint64_t machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : NO_LIMIT;
}

uint64_t memory_group_limit(const char *root, const char *self) {
    static const struct controller memory = {STR_INIT("memory"), memory_limit_v1, memory_limit_v2};
    uint64_t limit = group_limit(root, self, &memory);
    return limit >= machine_memory() ? 0 : limit;
}

uint64_t memory_allowed(const char *root, const char *self) {
    uint64_t limit = memory_group_limit(root, self);
    return limit != 0 ? limit : machine_memory();
}
