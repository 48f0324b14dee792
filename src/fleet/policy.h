/* The seam of load balancing: facts and candidates in, choice with reasons out. One file per
 * policy in policies/, one line in the table of policy.c. State (counters, sticky maps, indexes)
 * is one per process and policy instance, atomic or under sharded locks: any loop calls pick().
 * pick() never parks. */
#pragma once

#include "fleet/worker.h"

/* All that routing may look at. */
struct facts {
    struct str model; /* "unknown" when none was named */
    bool has_model;
    bool stream;
    const char *endpoint;                  /* "chat", "generate", ... (spec 06 section 1.4) */
    struct str route;                      /* template, "/v1/chat/completions" */
    int64_t tokens;                        /* estimated prompt tokens */
    struct str routing_key, target_worker; /* headers; ptr NULL when absent */
    struct str authorization, forwarded_for, cookie;
    /* later: routed text blocks, token ids, priority, tenant */
};

/* Why a candidate stands in the list or not is told by explain; names as in spec 01 section
 * 3.11. */
struct choice {
    struct worker *worker; /* NULL: none */
    const char *reason;    /* static text: "round_robin", "random", "only_candidate", ... */
    double matched;        /* share of the routed key found there, 0..1 */
    int64_t load;          /* its requests in flight before this one */
    size_t candidates;     /* how many could be chosen from */
};

struct policy;
struct policy_ops {
    const char *name;
    bool implemented; /* false: a name that a later version brings; served by round_robin */
    /* Allocates the state; options come from the fleet settings. */
    void *(*make)(void);
    void (*destroy)(void *state);
    /* Picks one of `count` > 0 available candidates; index, or -1 for none. With `dry` no state
     * changes. */
    int (*pick)(void *state, struct worker *const *candidates, size_t count,
                const struct facts *facts, bool dry, struct choice *out);
};

/* Case-insensitive, with or without '_'; NULL when unknown. */
const struct policy_ops *policy_find(struct str name);
/* Names of the table in order; NULL past the end. Rows are the slots of worker->metrics. */
const char *policy_name_at(size_t index);
/* Says that decisions of this policy (or what serves it) are going to be counted: workers
 * registered from now on get their series. policy_new does it by itself, so policies are made
 * before fleet_start. NULL is allowed. */
void policy_use(const struct policy_ops *ops);
bool policy_in_use(int slot);

/* An instance. A policy that is not implemented yet is served by round_robin. */
struct policy *policy_new(const struct policy_ops *ops);
void policy_free(struct policy *policy);
/* Name of what really decides. */
const char *policy_name(const struct policy *policy);
/* Filters candidates of the role (available, not in `tried`) out of the present fleet, picks,
 * and counts the decision. `out->worker` is NULL with reason "none" when nobody is left. `tried`
 * may be NULL; it counts by identity, so an older version of a worker excludes its newer one.
 * With --cb-fail-open, when the circuits of all ready workers are open, the one opened least
 * recently is chosen (reason "fail_open"). A lone candidate goes through the policy like any
 * other, with reason "only_candidate". Any loop; allocates nothing. */
void policy_choose(struct policy *policy, enum worker_role role, const struct facts *facts,
                   struct worker *const *tried, size_t tried_count, bool dry, struct choice *out);
