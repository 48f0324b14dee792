/* Entries are found by id and by URL through two maps. A change of membership marks the roster
 * as dirty; one publisher fiber builds a snapshot at most every ROSTER_PUBLISH_MS, waits until
 * all loops show it, and wakes those who wait for their change. Status is atomic in the worker,
 * so it needs no publication. */
#include "fleet/roster.h"

#include <errno.h>

#include "base/log.h"
#include "base/map.h"
#include "base/panic.h"
#include "base/rand.h"
#include "base/vec.h"
#include "io/snapshot.h"

struct settler {
    struct list link;
    struct fiber *fiber;
    uint64_t version;
    bool done;
};

static struct {
    struct map by_id, by_url;
    struct list live, reserved;
    size_t live_count, reserved_count;
    VEC(uint32_t) free_indexes;
    uint32_t next_index;
    uint64_t version, published; /* `version` rises with each change */
    int64_t published_ms;
    struct fiber *publisher; /* while it sleeps for want of changes */
    struct fiber_group fibers;
    struct list settlers;
    bool running, stopping;
} roster;

static _Atomic size_t expected;

bool roster_running(void) { return roster.running && !roster.stopping; }
struct list *roster_live(void) {
    return &roster.live;
}
size_t roster_live_count(void) { return roster.live_count; }
size_t roster_expected(void) { return atomic_load_explicit(&expected, memory_order_relaxed); }

/* --- publication ----------------------------------------------------------------------------- */

static struct fleet *build(void) {
    struct worker **workers = mem_alloc((roster.live_count + 1) * sizeof *workers);
    size_t count = 0;
    list_for (item, &roster.live)
        workers[count++] = container_of(item, struct roster_entry, link)->worker;
    struct fleet *fleet = fleet_build(workers, count, roster.version);
    mem_free(workers);
    return fleet;
}

static void wake_settlers(void) {
    struct list *head = &roster.settlers;
    for (struct list *at = head->next, *next; at != head; at = next) {
        struct settler *settler = container_of(at, struct settler, link);
        next = at->next;
        if (settler->version > roster.published && !roster.stopping)
            continue;
        settler->done = true;
        list_remove(at);
        fiber_wake(settler->fiber);
    }
}

static FIBER_FN int wait_for_change(void) {
    while (roster.published == roster.version) {
        roster.publisher = fiber_self();
        int err = fiber_park(DEADLINE_NEVER);
        roster.publisher = NULL;
        if (err)
            return err;
    }
    int64_t wait = roster.published_ms + ROSTER_PUBLISH_MS - clock_ms();
    return wait > 0 ? fiber_sleep(wait) : 0;
}

static FIBER_FN void publisher_main(void *arg) {
    (void)arg;
    while (wait_for_change() == 0) {
        uint64_t version = roster.version;
        snapshot_publish(SNAPSHOT_FLEET, build(), fleet_destroy);
        roster.published_ms = clock_ms();
        snapshot_settle(SNAPSHOT_FLEET);
        roster.published = version;
        wake_settlers();
    }
}

static void touch(void) {
    struct fiber *publisher = roster.publisher;
    roster.version++;
    roster.publisher = NULL;
    if (publisher != NULL)
        fiber_wake(publisher);
}

FIBER_FN int roster_settle(void) {
    struct settler settler = {.fiber = fiber_self(), .version = roster.version};
    if (!roster_running())
        return -ECANCELED;
    if (roster.published >= settler.version)
        return 0;
    list_push_back(&roster.settlers, &settler.link);
    int err = 0;
    while (!settler.done && !err)
        err = fiber_park(DEADLINE_NEVER);
    if (err && settler.done)
        fiber_park_hard(); /* woken as well: takes the wake back */
    list_remove(&settler.link);
    return settler.done && !roster.stopping ? 0 : -ECANCELED;
}

/* --- entries --------------------------------------------------------------------------------- */

struct roster_entry *roster_by_url(struct str url) {
    return map_get(&roster.by_url, url);
}

struct roster_entry *roster_by_id(struct str id) {
    char lower[UUID_LEN];
    if (id.len != UUID_LEN)
        return NULL;
    for (size_t i = 0; i < UUID_LEN; i++)
        lower[i] = id.ptr[i] >= 'A' && id.ptr[i] <= 'F' ? (char)(id.ptr[i] + 32) : id.ptr[i];
    return map_get(&roster.by_id, str_make(lower, UUID_LEN));
}

static void entry_free(struct roster_entry *entry) {
    map_remove(&roster.by_id, str_from(entry->id));
    map_remove(&roster.by_url, entry->url);
    mem_free((char *)entry->url.ptr);
    mem_free(entry);
}

static bool forgettable(const struct roster_entry *entry) {
    return entry->pins == 0 && entry->adds == 0 && !list_linked(&entry->retry.link);
}

static void forget_oldest(void) {
    list_for (item, &roster.reserved) {
        struct roster_entry *entry = container_of(item, struct roster_entry, link);
        if (!forgettable(entry))
            continue;
        list_remove(item);
        roster.reserved_count--;
        entry_free(entry);
        return;
    }
}

static void put_reserved(struct roster_entry *entry) {
    if (roster.reserved_count >= ROSTER_RESERVED_MAX)
        forget_oldest();
    list_push_back(&roster.reserved, &entry->link);
    roster.reserved_count++;
}

struct roster_entry *roster_reserve(struct str url) {
    struct roster_entry *entry = roster_by_url(url);
    if (entry != NULL)
        return entry;
    entry = mem_zalloc(sizeof *entry);
    uuid_v7(entry->id);
    entry->url = str_make(str_dup(url), url.len);
    map_put(&roster.by_url, entry->url, entry);
    map_put(&roster.by_id, str_from(entry->id), entry);
    put_reserved(entry);
    return entry;
}

void roster_pin(struct roster_entry *entry) { entry->pins++; }

void roster_unpin(struct roster_entry *entry) {
    assert_always(entry->pins > 0);
    entry->pins--;
}

static void recount(struct roster_entry *entry) {
    bool counts = entry->worker != NULL || entry->adds > 0;
    if (counts == entry->counted)
        return;
    entry->counted = counts;
    if (counts)
        atomic_fetch_add(&expected, 1);
    else
        atomic_fetch_sub(&expected, 1);
}

void roster_adding(struct roster_entry *entry, int delta) {
    entry->adds += (unsigned)delta;
    recount(entry);
}

/* --- membership ------------------------------------------------------------------------------ */

uint32_t roster_take_index(void) {
    if (roster.free_indexes.len > 0)
        return roster.free_indexes.items[--roster.free_indexes.len];
    return roster.next_index++;
}

static bool counts_ready(const struct roster_entry *entry) {
    return entry->worker != NULL && worker_status(entry->worker) == WORKER_READY;
}

static void count_ready(const struct roster_entry *entry, int delta) {
    if (counts_ready(entry))
        fleet_count_ready(entry->worker->role, delta);
}

static void show_health(const struct worker *worker) {
    double value = worker_status(worker) == WORKER_READY ? 1 : 0;
    metric_set(worker->run->metrics.health[0], value);
    metric_set(worker->run->metrics.health[1], value);
}

void roster_enter(struct roster_entry *entry, struct worker *worker) {
    struct worker *old = entry->worker;
    count_ready(entry, -1);
    if (old == NULL) {
        list_remove(&entry->link);
        roster.reserved_count--;
        list_push_back(&roster.live, &entry->link);
        roster.live_count++;
    } else {
        metric_gauge_add(old->metrics.pool_size, -1);
    }
    entry->worker = worker;
    entry->revision = worker->revision;
    atomic_store(&worker->run->revision, worker->revision);
    metric_gauge_add(worker->metrics.pool_size, 1);
    count_ready(entry, 1);
    show_health(worker);
    recount(entry);
    worker_unref(old);
    touch();
}

void roster_leave(struct roster_entry *entry) {
    struct worker *worker = entry->worker;
    assert_always(worker != NULL);
    roster_set_status(entry, WORKER_DRAINING);
    metric_gauge_add(worker->metrics.pool_size, -1);
    entry->worker = NULL;
    list_remove(&entry->link);
    roster.live_count--;
    put_reserved(entry);
    vec_push(&roster.free_indexes, worker->index);
    recount(entry);
    worker_unref(worker);
    touch();
}

void roster_set_status(struct roster_entry *entry, enum worker_status status) {
    struct worker *worker = entry->worker;
    enum worker_status before = worker_status(worker);
    if (before == status)
        return;
    count_ready(entry, -1);
    atomic_store(&worker->run->status, status);
    count_ready(entry, 1);
    show_health(worker);
    log_debug("fleet", "worker status changed", F_STR("worker", entry->url),
              F_CSTR("from", worker_status_name(before)), F_CSTR("to", worker_status_name(status)));
}

/* --- start and stop -------------------------------------------------------------------------- */

void roster_start(void) {
    assert_always(!roster.running);
    memset(&roster, 0, sizeof roster);
    map_init(&roster.by_id);
    map_init(&roster.by_url);
    list_init(&roster.live);
    list_init(&roster.reserved);
    list_init(&roster.settlers);
    fiber_group_init(&roster.fibers);
    roster.running = true;
    fiber_group_spawn(&roster.fibers, publisher_main, NULL);
}

static void free_all(struct list *entries) {
    for (struct list *at = entries->next, *next; at != entries; at = next) {
        struct roster_entry *entry = container_of(at, struct roster_entry, link);
        next = at->next;
        count_ready(entry, -1);
        entry->adds = 0;
        timer_clear(&entry->retry);
        struct worker *worker = entry->worker;
        entry->worker = NULL;
        recount(entry);
        worker_unref(worker);
        entry_free(entry);
    }
}

FIBER_FN void roster_stop(void) {
    if (!roster.running)
        return;
    roster.stopping = true;
    wake_settlers();
    fiber_group_cancel(&roster.fibers);
    while (fiber_group_join(&roster.fibers) == -ECANCELED && roster.fibers.running > 0)
        continue;
    free_all(&roster.live);
    free_all(&roster.reserved);
    map_free(&roster.by_id);
    map_free(&roster.by_url);
    vec_free(&roster.free_indexes);
    roster.running = false;
}
