/* One counter per role, shared by all loops: of any N requests in a row over a fixed set of N
 * candidates each candidate gets exactly one, whichever loops they arrive on. The counter moves
 * for a lone candidate too. */
#include "fleet/policies/policies.h"

struct counter {
    _Atomic uint64_t next;
    char pad[64 - sizeof(uint64_t)];
};

static void *make(void) { return mem_zalloc(ROLE_COUNT * sizeof(struct counter)); }

static int pick(void *state, struct worker *const *candidates, size_t count,
                const struct facts *facts, bool dry, struct choice *out) {
    (void)facts;
    struct counter *counter = (struct counter *)state + candidates[0]->role;
    uint64_t turn = dry ? atomic_load_explicit(&counter->next, memory_order_relaxed)
                        : atomic_fetch_add_explicit(&counter->next, 1, memory_order_relaxed);
    out->reason = "round_robin";
    return (int)(turn % count);
}

const struct policy_ops policy_round_robin = {"round_robin", true, make, mem_free, pick};
