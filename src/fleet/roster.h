/* Who exists: one entry per URL that was ever added, with its reserved id; the registered ones
 * in order, and the publication of the fleet's snapshot. Internal to the fleet's control side
 * (registry.h is the interface of the house). Control loop only. */
#pragma once

#include "base/rand.h"
#include "fleet/fleet.h"
#include "fleet/health_state.h"
#include "io/fiber.h"
#include "io/timer.h"

/* Publications are at least so far apart, so that a burst of changes costs one array, not one
 * each. */
#define ROSTER_PUBLISH_MS 10
/* Reserved ids of workers that are gone: the oldest is forgotten past this. */
#define ROSTER_RESERVED_MAX 16384

/* What the health checker keeps per worker (health.c). */
struct health_watch {
    struct timer timer;
    struct list due; /* waiting for a free probe */
    struct health_machine machine;
    bool on, probing;
    bool again; /* asked for while one was under way */
};

struct roster_entry {
    char id[UUID_LEN + 1];
    struct str url;        /* as registered; owned */
    struct worker *worker; /* one reference; NULL: the id is reserved only */
    struct list link;      /* registered: in order; reserved: the one unused for longest first */
    uint64_t revision;     /* of the registered worker, rising over the entry's life */
    unsigned adds;         /* AddWorker jobs that have not ended */
    unsigned pins;         /* who else points here: the entry must not go */
    bool listed;           /* from --worker-urls: tried again when its start failed */
    bool counted;          /* in roster_expected */
    struct timer retry;    /* of a listed one */
    uint32_t faults;       /* discover_faults */
    struct health_watch health;
};

void roster_start(void);
/* Lets go of every worker; publishes nothing. */
FIBER_FN void roster_stop(void);
bool roster_running(void);

/* The entry of a URL, made with a new id when there is none. */
struct roster_entry *roster_reserve(struct str url);
/* NULL when unknown. Entries without a worker are found too. */
struct roster_entry *roster_by_url(struct str url);
struct roster_entry *roster_by_id(struct str id);
/* Registered entries in order, as a list of `link`. */
struct list *roster_live(void);
size_t roster_live_count(void);
/* Registered workers and those whose AddWorker job is under way; any thread. */
size_t roster_expected(void);
void roster_adding(struct roster_entry *entry, int delta);
void roster_pin(struct roster_entry *entry);
void roster_unpin(struct roster_entry *entry);

/* A small number for a new worker (its index), given back by roster_leave. */
uint32_t roster_take_index(void);
/* Registers a worker, or puts a new version in the place of the old one; takes the reference
 * over. The revision of both is the worker's. */
void roster_enter(struct roster_entry *entry, struct worker *worker);
/* Takes the worker out; its id stays reserved. */
void roster_leave(struct roster_entry *entry);
/* Sets the status of a registered worker, with its gauges and the ready counts. */
void roster_set_status(struct roster_entry *entry, enum worker_status status);

/* Waits until every loop shows the registry as it is now. 0 or -ECANCELED. */
FIBER_FN int roster_settle(void);
