/* Always the first candidate: for a fleet of one. Says so once when there are more. */
#include "base/log.h"
#include "fleet/policies/policies.h"

static void *make(void) { return mem_zalloc(sizeof(_Atomic bool)); }

static int pick(void *state, struct worker *const *candidates, size_t count,
                const struct facts *facts, bool dry, struct choice *out) {
    _Atomic bool *warned = state;
    (void)candidates, (void)facts;
    if (count > 1 && !dry && !atomic_exchange_explicit(warned, true, memory_order_relaxed))
        log_warn("fleet", "policy passthrough uses the first of several workers only",
                 F_INT("workers", (int64_t)count));
    out->reason = "first";
    return 0;
}

const struct policy_ops policy_passthrough = {"passthrough", true, make, mem_free, pick};
