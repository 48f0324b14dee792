/* Calls to many workers at once, on the control loop: so many lanes (fibers), each taking the next
 * worker when it is done with one. */
#pragma once

#include "base/arena.h"
#include "fleet/fleet.h"
#include "io/fiber.h"

struct fanout_target {
    struct worker *worker; /* referenced by the list */
    struct str base;       /* its URL without the @rank of a DP group */
};
struct fanout_list {
    struct fanout_target *items;
    size_t count;
};

/* The registered HTTP workers of any health, one for each base URL, in order of registration; with
 * `only` (a URL, or ptr NULL for all) those that are called so. The references are held until the
 * arena ends. */
struct fanout_list fanout_list_make(struct arena *arena, struct str only);
/* The URL without "@rank"; a slice of the worker's. */
struct str fanout_base_url(const struct worker *worker);

/* One worker's turn. `scratch` ends with it. */
typedef FIBER_FN void fanout_one(void *ctx, size_t index, const struct fanout_target *target,
                                 struct arena *scratch);
struct fanout {
    size_t parallel; /* most at once */
    fanout_one *one;
    void *ctx;
    const bool *enough; /* NULL, or: when it becomes true those on their way get linger_ms more */
    int64_t linger_ms;
};
/* Calls `one` for each target; returns when all lanes have ended. 0, or -ECANCELED (some were not
 * called). */
FIBER_FN int fanout_run(const struct fanout *fanout, const struct fanout_list *list);

/* One request to one worker, with the worker's key. */
struct fanout_fetch {
    struct str method, route; /* route: goes behind the worker's base path */
    struct str head;          /* further header lines */
    struct str body;
    bool has_body;
    size_t max_body; /* of the answer */
    int64_t timeout_ms;
};
/* Status with *body (in the arena), or a negative errno with *why. */
FIBER_FN int fanout_call(struct arena *arena, const struct worker *worker,
                         const struct fanout_fetch *fetch, struct str *body, struct str *why);
/* Base path and route in one. */
struct str fanout_route(struct arena *arena, const struct worker *worker, struct str route);
