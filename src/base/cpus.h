/* What this process may use of the machine: CPUs and memory, as the cgroup (v2 or v1), the
 * affinity mask and the machine say, the least of them. `root` is where the control groups are
 * mounted ("/sys/fs/cgroup", NULL = that) and `self` the file that names the process's own group
 * ("/proc/self/cgroup", NULL = that); tests pass trees of their own. Nothing parks; any thread. */
#pragma once

#include <stdint.h>

/* CPUs, at least 1: the lesser of the affinity mask and the quota rounded up, over all groups from
 * the process's own one to the root. */
unsigned cpus_allowed(const char *root, const char *self);
/* The quota alone in hundredths of a CPU; 0 = none. */
uint64_t cpus_quota_percent(const char *root, const char *self);
/* The memory limit of the process's groups in bytes, 0 = none (also one above the machine's). */
uint64_t memory_group_limit(const char *root, const char *self);
/* The limit, or without one the machine's memory. */
uint64_t memory_allowed(const char *root, const char *self);
