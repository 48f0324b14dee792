/* Building a snapshot is linear in the workers and happens on the control loop at most every few
 * ms; looking things up in it is constant. Gauges of load are set from the counters at a scrape,
 * so that no request pays for them. */
#include "fleet/fleet.h"

#include "base/hash.h"
#include "io/snapshot.h"

static _Atomic size_t ready[ROLE_COUNT];
static metric_ref active_workers;

const struct fleet *fleet_now(void) {
    static const struct fleet nobody;
    const struct fleet *fleet = snapshot_get(SNAPSHOT_FLEET);
    return fleet ? fleet : &nobody;
}

size_t fleet_ready_count(enum worker_role role) {
    return atomic_load_explicit(&ready[role], memory_order_relaxed);
}

void fleet_count_ready(enum worker_role role, int delta) {
    atomic_fetch_add_explicit(&ready[role], (size_t)delta, memory_order_relaxed);
}

/* --- names ----------------------------------------------------------------------------------- */

static bool is_called(const struct worker *worker, struct str name) {
    return str_eq(name, str_from(worker->id)) || str_eq(name, worker->url);
}

struct worker *fleet_find(const struct fleet *fleet, struct str id_or_url) {
    if (fleet->all.count == 0)
        return NULL;
    for (size_t at = hash_str(id_or_url);; at++) {
        uint32_t place = fleet->names[at & fleet->names_mask];
        if (place == 0)
            return NULL;
        if (is_called(fleet->all.workers[place - 1], id_or_url))
            return fleet->all.workers[place - 1];
    }
}

static void put_name(struct fleet *fleet, struct str name, size_t place) {
    size_t at = hash_str(name);
    while (fleet->names[at & fleet->names_mask] != 0)
        at++;
    fleet->names[at & fleet->names_mask] = (uint32_t)place + 1;
}

static void put_names(struct fleet *fleet) {
    size_t size = 8;
    while (size < fleet->all.count * 4)
        size *= 2;
    fleet->names_mask = size - 1;
    fleet->names = arena_zalloc(fleet->arena, size * sizeof *fleet->names);
    for (size_t i = 0; i < fleet->all.count; i++) {
        put_name(fleet, str_from(fleet->all.workers[i]->id), i);
        put_name(fleet, fleet->all.workers[i]->url, i);
    }
}

/* --- building -------------------------------------------------------------------------------- */

static void put_roles(struct fleet *fleet) {
    size_t counts[ROLE_COUNT] = {0};
    for (size_t i = 0; i < fleet->all.count; i++)
        counts[fleet->all.workers[i]->role] += fleet->all.workers[i]->mode == MODE_HTTP;
    for (int role = 0; role < ROLE_COUNT; role++)
        fleet->by_role[role].workers =
            arena_alloc(fleet->arena, (counts[role] + 1) * sizeof(struct worker *));
    for (size_t i = 0; i < fleet->all.count; i++) {
        struct worker *worker = fleet->all.workers[i];
        struct fleet_group *group = &fleet->by_role[worker->role];
        if (worker->mode == MODE_HTTP)
            group->workers[group->count++] = worker;
    }
}

struct fleet *fleet_build(struct worker *const *workers, size_t count, uint64_t version) {
    struct arena *arena = arena_new();
    struct fleet *fleet = arena_zalloc(arena, sizeof *fleet);
    fleet->arena = arena;
    fleet->version = version;
    fleet->all.workers = arena_alloc(arena, (count + 1) * sizeof *fleet->all.workers);
    fleet->all.count = count;
    for (size_t i = 0; i < count; i++)
        fleet->all.workers[i] = worker_ref(workers[i]);
    put_roles(fleet);
    put_names(fleet);
    return fleet;
}

static void give_back(struct fleet *fleet) {
    for (size_t i = 0; i < fleet->all.count; i++)
        worker_unref(fleet->all.workers[i]);
    arena_free(fleet->arena); /* the fleet lies in it */
}

static void give_back_here(struct message *message) {
    give_back(container_of(message, struct fleet, ending));
}

/* Data loops never do work that grows with the fleet. */
void fleet_destroy(void *arg) {
    struct fleet *fleet = arg;
    fleet->ending.run = give_back_here;
    if (loop_here() != NULL && loop_here() != loop_control())
        loop_post(loop_control(), &fleet->ending);
    else
        give_back(fleet);
}

/* --- gauges ---------------------------------------------------------------------------------- */

static void show_loads(void *arg) {
    (void)arg;
    size_t count = 0;
    for (int role = 0; role < ROLE_COUNT; role++)
        count += fleet_ready_count((enum worker_role)role);
    metric_set(active_workers, (double)count);
    if (loop_here() == NULL)
        return; /* a thread without a loop has no snapshot */
    const struct fleet *fleet = fleet_now();
    for (size_t i = 0; i < fleet->all.count; i++) {
        const struct worker_run *run = fleet->all.workers[i]->run;
        for (int gauge = 0; gauge < 3; gauge++)
            metric_set(run->metrics.running[gauge], (double)worker_load(fleet->all.workers[i]));
    }
}

void fleet_metrics_start(void) {
    if (active_workers != 0)
        return;
    active_workers = metric_ref_of(METRIC_SGL_ACTIVE_WORKERS);
    metric_on_scrape(show_loads, NULL);
}
