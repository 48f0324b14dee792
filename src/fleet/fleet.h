/* The fleet as every loop sees it: an immutable snapshot of the registry (snapshot.h,
 * SNAPSHOT_FLEET). Published on the control loop (roster.c); read without locks. Pointers are
 * valid until the next park, or with a reference on the worker. */
#pragma once

#include "fleet/worker.h"
#include "io/loop.h"

struct fleet_group {
    struct worker **workers; /* in order of registration */
    size_t count;
};

struct fleet {
    uint64_t version;
    struct fleet_group all;
    struct fleet_group by_role[ROLE_COUNT]; /* HTTP workers of that role */
    uint32_t *names; /* hash table of ids and URLs: place in `all` + 1, 0 = free */
    size_t names_mask;
    struct arena *arena;
    struct message ending; /* takes it to the control loop, which gives it back */
};

/* The snapshot this loop shows; never NULL (an empty fleet before the first publication). */
const struct fleet *fleet_now(void);
/* By UUID (lower case) or URL as registered; NULL when unknown. O(1). */
struct worker *fleet_find(const struct fleet *fleet, struct str id_or_url);
/* Ready workers of a role, any loop, O(1). */
size_t fleet_ready_count(enum worker_role role);

/* For roster.c. A snapshot of these workers: takes a reference on each. */
struct fleet *fleet_build(struct worker *const *workers, size_t count, uint64_t version);
/* Gives one back with its references; any loop (the work is done on the control loop). */
void fleet_destroy(void *arg);
void fleet_count_ready(enum worker_role role, int delta);
/* Makes the gauges of the fleet and keeps them right at each scrape; once at start. */
void fleet_metrics_start(void);
