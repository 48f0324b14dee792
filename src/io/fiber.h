/* Stackful fibers: every request is one, and its code reads top to bottom.
 *
 * A fiber belongs to the loop that spawned it and never moves. Waiting is fiber_park(); whoever has
 * what it waits for calls fiber_wake() on the same loop (other threads use loop_post). Cancellation is
 * sticky: once asked, every park that can be interrupted returns -ECANCELED at once, so code unwinds by
 * its ordinary error returns. Misuse (parking off a fiber, waking a dead one) aborts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"

/* Marks functions that may park; checked by tools over the call graph. Callers run on a fiber. */
#define FIBER_FN

struct fiber;
struct loop;

typedef void fiber_main(void *arg);

/* Starts `main(arg)` as a fiber of the calling thread's loop. Called from the loop's stack it runs
 * right away until its first park; called from a fiber it runs when that one parks. Never fails
 * (panics when no stack can be mapped). The fiber is gone when main returns. */
void fiber_spawn(fiber_main *main, void *arg);

/* The running fiber, or NULL on the loop's own stack. */
struct fiber *fiber_self(void);
static inline bool fiber_running(void) { return fiber_self() != NULL; }

/* Waits for fiber_wake. 0 when woken, -ECANCELED, or -ETIMEDOUT when the deadline passes. */
FIBER_FN int fiber_park(deadline_ms deadline);
/* The same, but deaf to cancellation and without a deadline: for waiting until a lender has given
 * memory back. */
FIBER_FN void fiber_park_hard(void);
/* Makes a parked fiber run: at once when called from the loop's stack, else after the present fiber
 * parks. A wake before the park is remembered (one). Same loop only. */
void fiber_wake(struct fiber *fiber);
/* Asks the fiber to stop: it is woken with -ECANCELED if its park can be interrupted, and every later
 * such park fails at once. Same loop only; harmless when repeated. */
void fiber_cancel(struct fiber *fiber);
bool fiber_cancelled(const struct fiber *fiber);

/* Sleeps: 0 after the time, or -ECANCELED. */
FIBER_FN int fiber_sleep(int64_t ms);
/* Lets everything else that is ready run first. 0 or -ECANCELED. */
FIBER_FN int fiber_yield(void);

/* Children: joined before the group goes out of scope; cancelling the parent while it joins cancels
 * them all. */
struct fiber_group {
    struct list members;
    struct fiber *waiter;
    size_t running;
};
void fiber_group_init(struct fiber_group *group);
/* As fiber_spawn, and a member of the group. */
void fiber_group_spawn(struct fiber_group *group, fiber_main *main, void *arg);
void fiber_group_cancel(struct fiber_group *group);
/* Waits until all members are gone. 0, or -ECANCELED when the caller was cancelled meanwhile (the
 * members were cancelled then, and are gone too). */
FIBER_FN int fiber_group_join(struct fiber_group *group);

/* Figures of the calling thread's loop, for metrics. */
struct fiber_stats {
    size_t alive, stacks_cached;
    size_t deepest_stack; /* bytes, high-water mark (page steps) */
};
struct fiber_stats fiber_stats_here(void);
