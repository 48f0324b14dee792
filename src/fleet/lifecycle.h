/* What happens to a worker between its first mention and its end: the jobs that add, update and
 * remove it (spec 02 sections 4.2 to 4.8), and what follows from a change of its health. Control
 * loop only. */
#pragma once

#include "fleet/jobs.h"
#include "fleet/roster.h"
#include "fleet/worker_spec.h"

enum add_mode {
    ADD_CREATE, /* POST: fails when the URL is registered by then */
    ADD_UPSERT, /* start-up, legacy: replaces it */
    ADD_REPLACE /* PUT: replaces the revision that was seen, and nothing else */
};

struct add_order {
    struct roster_entry *entry;
    const struct worker_spec *spec; /* copied; its URL is the entry's */
    enum add_mode mode;
    uint64_t revision; /* for ADD_REPLACE */
    bool trusted;      /* from the command line: its address is not checked */
    struct job_watch *watch;
};

void lifecycle_start(const struct fleet_settings *given);
/* What to do when the rules of health have changed a worker's state. For health_start. */
void lifecycle_health_changed(struct roster_entry *entry, enum worker_status from,
                              enum worker_status to);

/* Each queues a job: 0, -EAGAIN (no room), -ESHUTDOWN or -ECANCELED. */
FIBER_FN int lifecycle_add(const struct add_order *order);
/* `body` is the checked JSON of PATCH; applied to what is registered when the job's turn comes. */
FIBER_FN int lifecycle_update(struct roster_entry *entry, struct str body);
/* Drops what is still being added under this URL first. `revision` 0: whichever is registered. */
FIBER_FN int lifecycle_remove(struct roster_entry *entry, uint64_t revision,
                              struct job_watch *watch);
/* A worker of the command line: not bound by the queue's capacity, tried again when its start
 * failed. */
void lifecycle_add_listed(struct str url);
