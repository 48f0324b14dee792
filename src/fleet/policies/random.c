/* Uniform over the candidates, from the calling thread's own generator: no state. */
#include "base/rand.h"
#include "fleet/policies/policies.h"

static void *make(void) { return NULL; }
static void destroy(void *state) { (void)state; }

static int pick(void *state, struct worker *const *candidates, size_t count,
                const struct facts *facts, bool dry, struct choice *out) {
    (void)state, (void)candidates, (void)facts, (void)dry;
    out->reason = "random";
    return (int)rand_below(count);
}

const struct policy_ops policy_random = {"random", true, make, destroy, pick};
