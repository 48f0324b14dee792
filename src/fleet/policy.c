/* The table of policies, and the frame that all share: filter, pick, count. Candidates stand in
 * an array of the thread's own that only grows, so that a choice costs one pass over the workers
 * and no allocation. */
#include "fleet/policy.h"

#include <pthread.h>

#include "base/panic.h"
#include "fleet/fleet.h"
#include "fleet/policies/policies.h"
#include "io/loop.h"

static const struct policy_ops *const table[] = {
    &policy_random,
    &policy_round_robin,
    &policy_passthrough,
    &(const struct policy_ops){.name = "cache_aware"},
    &(const struct policy_ops){.name = "power_of_two"},
    &(const struct policy_ops){.name = "least_load"},
    &(const struct policy_ops){.name = "prefix_hash"},
    &(const struct policy_ops){.name = "consistent_hashing"},
    &(const struct policy_ops){.name = "manual"},
    &(const struct policy_ops){.name = "bucket"},
};
enum { POLICIES = sizeof table / sizeof *table };
_Static_assert(POLICIES == POLICY_SLOTS, "worker.h keeps a slot for each row");

struct policy {
    const struct policy_ops *ops;
    int slot;
    void *state;
};

static _Atomic unsigned in_use;

/* --- the table ------------------------------------------------------------------------------- */

/* Equal without case and without '_'. */
static bool same_name(struct str a, struct str b) {
    size_t i = 0, j = 0;
    for (;;) {
        while (i < a.len && a.ptr[i] == '_')
            i++;
        while (j < b.len && b.ptr[j] == '_')
            j++;
        if (i == a.len || j == b.len)
            return i == a.len && j == b.len;
        if (!str_ieq(str_make(a.ptr + i++, 1), str_make(b.ptr + j++, 1)))
            return false;
    }
}

const struct policy_ops *policy_find(struct str name) {
    for (int i = 0; i < POLICIES; i++) {
        if (same_name(name, str_from(table[i]->name)))
            return table[i];
    }
    return NULL;
}

const char *policy_name_at(size_t index) { return index < POLICIES ? table[index]->name : NULL; }

static int slot_of(const struct policy_ops *ops) {
    for (int i = 0; i < POLICIES; i++) {
        if (table[i] == ops)
            return i;
    }
    panic_here("policy %s is not in the table", ops->name);
}

static const struct policy_ops *served_by(const struct policy_ops *ops) {
    return ops->implemented ? ops : &policy_round_robin;
}

void policy_use(const struct policy_ops *ops) {
    if (ops != NULL)
        atomic_fetch_or(&in_use, 1u << slot_of(served_by(ops)));
}

bool policy_in_use(int slot) { return atomic_load(&in_use) & 1u << slot; }

struct policy *policy_new(const struct policy_ops *ops) {
    struct policy *policy = mem_zalloc(sizeof *policy);
    policy->ops = served_by(ops);
    policy->slot = slot_of(policy->ops);
    policy->state = policy->ops->make();
    policy_use(ops);
    return policy;
}

void policy_free(struct policy *policy) {
    if (policy == NULL)
        return;
    policy->ops->destroy(policy->state);
    mem_free(policy);
}

const char *policy_name(const struct policy *policy) { return policy->ops->name; }

/* --- candidates ------------------------------------------------------------------------------ */

static _Thread_local struct {
    struct worker **items;
    size_t cap;
} scratch;
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void make_scratch_key(void) {
    int err = pthread_key_create(&scratch_key, mem_free); /* frees it when the thread ends */
    assert_always(err == 0);
}

static struct worker **scratch_for(size_t count) {
    if (count > scratch.cap) {
        pthread_once(&scratch_once, make_scratch_key);
        scratch.cap = count * 2;
        scratch.items = mem_realloc(scratch.items, scratch.cap * sizeof *scratch.items);
        pthread_setspecific(scratch_key, scratch.items);
    }
    return scratch.items;
}

struct filter {
    struct worker *const *tried;
    size_t tried_count;
    int64_t now_ms;
    size_t allowed;          /* available ones, tried or not */
    struct worker *fallback; /* untried, ready, its circuit opened least recently */
};

static bool was_tried(const struct filter *filter, const struct worker *worker) {
    for (size_t i = 0; i < filter->tried_count; i++) {
        if (filter->tried[i]->run == worker->run)
            return true;
    }
    return false;
}

static int64_t opened_ms(const struct worker *worker) {
    return atomic_load_explicit(&worker->run->breaker.changed_ms, memory_order_relaxed);
}

static bool is_candidate(struct filter *filter, struct worker *worker) {
    if (worker_status(worker) != WORKER_READY)
        return false;
    bool allowed = breaker_allows(&worker->run->breaker, filter->now_ms);
    filter->allowed += allowed;
    if (was_tried(filter, worker))
        return false;
    if (!allowed && (filter->fallback == NULL || opened_ms(worker) < opened_ms(filter->fallback)))
        filter->fallback = worker;
    return allowed;
}

static size_t gather(const struct fleet_group *group, struct filter *filter,
                     struct worker **candidates) {
    size_t count = 0;
    for (size_t i = 0; i < group->count; i++) {
        if (is_candidate(filter, group->workers[i]))
            candidates[count++] = group->workers[i];
    }
    return count;
}

/* --- choosing -------------------------------------------------------------------------------- */

static void count_choice(const struct policy *policy, struct worker *worker) {
    atomic_fetch_add_explicit(&worker->run->processed, 1, memory_order_relaxed);
    metric_inc(worker->run->metrics.processed);
    metric_inc(worker->metrics.decisions[policy->slot]);
    metric_inc(worker->metrics.selection[policy->slot]);
}

static void pick(struct policy *policy, struct worker *const *candidates, size_t count,
                 const struct facts *facts, bool dry, struct choice *out) {
    int index = policy->ops->pick(policy->state, candidates, count, facts, dry, out);
    if (index < 0)
        return;
    assert_always((size_t)index < count);
    out->worker = candidates[index];
    if (count == 1)
        out->reason = "only_candidate";
}

void policy_choose(struct policy *policy, enum worker_role role, const struct facts *facts,
                   struct worker *const *tried, size_t tried_count, bool dry, struct choice *out) {
    const struct fleet_group *group = &fleet_now()->by_role[role];
    struct filter filter = {tried, tried ? tried_count : 0, loop_now_ms(), 0, NULL};
    struct worker **candidates = scratch_for(group->count);
    *out = (struct choice){.reason = "none"};
    out->candidates = gather(group, &filter, candidates);
    if (out->candidates > 0) {
        pick(policy, candidates, out->candidates, facts, dry, out);
    } else if (filter.allowed == 0 && filter.fallback != NULL && worker_fails_open()) {
        out->worker = filter.fallback;
        out->reason = "fail_open";
    }
    if (out->worker == NULL)
        return;
    out->load = worker_load(out->worker);
    if (!dry)
        count_choice(policy, out->worker);
}
