/* See fiber.h. The struct of a fiber lies at the top of its own stack, so a spawn takes no allocation.
 * Fibers run only from the loop's stack: a wake there switches at once, a wake on a fiber queues, and the
 * queue is drained when the loop's stack is reached again. */
#include "io/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/panic.h"
#include "io/context.h"
#include "io/fiber_sched.h"
#include "io/loop.h"
#include "io/sanitize.h"
#include "io/stack.h"
#include "io/watchdog.h"

enum fiber_state { FIBER_READY, FIBER_RUNNING, FIBER_PARKED, FIBER_PARKED_HARD, FIBER_DONE };
#define FIBER_ALIVE_MARK 0x66696265

struct fiber {
    struct context context;
    struct stack stack;
    struct list link; /* in the ready queue */
    struct list all;  /* in world.all */
    struct timer timer;
    struct list sibling;
    struct fiber_group *group;
    fiber_main *main;
    void *arg;
    unsigned mark;
    int result;
    enum fiber_state state;
    bool woken, cancelled;
#if HAVE_ASAN
    void *fake_stack;
#endif
#if HAVE_TSAN
    void *tsan;
#endif
};

static _Thread_local struct {
    struct fiber *current;
    struct list ready, all;
    struct context loop;
    size_t alive;
    bool started;
#if HAVE_ASAN
    void *fake_stack;
    const void *loop_low;
    size_t loop_size;
#endif
#if HAVE_TSAN
    void *tsan;
#endif
} world;

/* The compiler may keep the address of a thread-local over a switch; fibers never change threads, so that
 * is right here. */

static void world_start(void) {
    if (world.started)
        return;
    list_init(&world.ready);
    list_init(&world.all);
    world.started = true;
#if HAVE_TSAN
    world.tsan = __tsan_get_current_fiber();
#endif
}

struct fiber *fiber_self(void) {
    return world.current;
}
bool fiber_cancelled(const struct fiber *fiber) { return fiber->cancelled; }

/* --- switching --- */

#if HAVE_TSAN
/* ThreadSanitizer keeps a signal for the fiber that happened to run when it came, and that one may never run again.
 * So signals wait until the loop's stack is reached. */
static void signals_hold(sigset_t *before) {
    static const int wanted[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    sigset_t held;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        sigdelset(&held, wanted[i]);
    /* This one must find the fiber that stalls; when it is lost, that is only a trace less. */
    sigdelset(&held, WATCHDOG_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &held, before);
}
#endif

static void switch_in(struct fiber *fiber) {
#if HAVE_TSAN
    sigset_t before;
    signals_hold(&before);
#endif
    world.current = fiber;
    fiber->state = FIBER_RUNNING;
#if HAVE_ASAN
    __sanitizer_start_switch_fiber(&world.fake_stack, fiber->stack.low, fiber->stack.size);
#endif
#if HAVE_TSAN
    __tsan_switch_to_fiber(fiber->tsan, 0);
#endif
    context_switch(&world.loop, &fiber->context);
#if HAVE_ASAN
    __sanitizer_finish_switch_fiber(world.fake_stack, NULL, NULL);
#endif
    world.current = NULL;
#if HAVE_TSAN
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
}

static void switch_out(struct fiber *fiber) {
#if HAVE_ASAN
    bool done = fiber->state == FIBER_DONE;
    __sanitizer_start_switch_fiber(done ? NULL : &fiber->fake_stack, world.loop_low,
                                   world.loop_size);
#endif
#if HAVE_TSAN
    __tsan_switch_to_fiber(world.tsan, 0);
#endif
    context_switch(&fiber->context, &world.loop);
#if HAVE_ASAN
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &world.loop_low, &world.loop_size);
#endif
}

static void group_leave(struct fiber *fiber) {
    struct fiber_group *group = fiber->group;
    if (group == NULL)
        return;
    list_remove(&fiber->sibling);
    if (--group->running == 0 && group->waiter != NULL)
        fiber_wake(group->waiter);
}

static void fiber_entry(void *arg) {
    struct fiber *fiber = arg;
#if HAVE_ASAN
    __sanitizer_finish_switch_fiber(NULL, &world.loop_low, &world.loop_size);
#endif
#if HAVE_TSAN /* with ucontext a fiber has a mask of its own */
    sigset_t before;
    signals_hold(&before);
#endif
    fiber->main(fiber->arg);
    group_leave(fiber);
    fiber->state = FIBER_DONE;
    switch_out(fiber);
    panic_here("a finished fiber was resumed");
}

static void fiber_release(struct fiber *fiber) {
    list_remove(&fiber->all);
    timer_clear(&fiber->timer);
    fiber->mark = 0;
    world.alive--;
    context_end(&fiber->context);
#if HAVE_TSAN
    __tsan_destroy_fiber(fiber->tsan);
#endif
    stack_put(fiber->stack);
}

static void run_one(struct fiber *fiber) {
    switch_in(fiber);
    if (fiber->state == FIBER_DONE)
        fiber_release(fiber);
}

static void run_ready(void) {
    struct list *item;
    while ((item = list_pop_front(&world.ready)) != NULL)
        run_one(container_of(item, struct fiber, link));
}

static void make_ready(struct fiber *fiber) {
    fiber->state = FIBER_READY;
    if (world.current != NULL) {
        list_push_back(&world.ready, &fiber->link);
        return;
    }
    run_one(fiber);
    run_ready();
}

/* --- life --- */

static void fiber_timed_out(struct timer *timer);

static struct fiber *fiber_new(fiber_main *main, void *arg) {
    world_start();
    struct stack stack = stack_get();
    size_t size = (sizeof(struct fiber) + 63) & ~(size_t)63;
    struct fiber *fiber = (struct fiber *)(stack.low + stack.size - size);
    *fiber = (struct fiber){.stack = stack, .main = main, .arg = arg, .mark = FIBER_ALIVE_MARK};
    fiber->timer.fire = fiber_timed_out;
    context_make(&fiber->context, stack.low, stack.size - size, fiber_entry, fiber);
#if HAVE_TSAN
    fiber->tsan = __tsan_create_fiber(0);
#endif
    list_push_back(&world.all, &fiber->all);
    world.alive++;
    return fiber;
}

void fiber_spawn(fiber_main *main, void *arg) { make_ready(fiber_new(main, arg)); }

static int park(struct fiber *fiber, enum fiber_state state) {
    fiber->state = state;
    switch_out(fiber);
    return fiber->result;
}

static struct fiber *fiber_parking(void) {
    struct fiber *fiber = world.current;
    if (fiber == NULL)
        panic_here("a function that parks was called off a fiber");
    return fiber;
}

FIBER_FN int fiber_park(deadline_ms deadline) {
    struct fiber *fiber = fiber_parking();
    if (fiber->cancelled)
        return -ECANCELED;
    if (fiber->woken) {
        fiber->woken = false;
        return 0;
    }
    if (deadline != DEADLINE_NEVER)
        timer_set(&fiber->timer, deadline);
    int result = park(fiber, FIBER_PARKED);
    timer_clear(&fiber->timer);
    return result;
}

FIBER_FN void fiber_park_hard(void) {
    struct fiber *fiber = fiber_parking();
    if (fiber->woken)
        fiber->woken = false;
    else
        (void)park(fiber, FIBER_PARKED_HARD);
}

static void unpark(struct fiber *fiber, int result) {
    fiber->result = result;
    make_ready(fiber);
}

void fiber_wake(struct fiber *fiber) {
    assert_always(fiber->mark == FIBER_ALIVE_MARK);
    if (fiber->state == FIBER_PARKED || fiber->state == FIBER_PARKED_HARD)
        unpark(fiber, 0);
    else
        fiber->woken = true;
}

void fiber_cancel(struct fiber *fiber) {
    assert_always(fiber->mark == FIBER_ALIVE_MARK);
    fiber->cancelled = true;
    if (fiber->state == FIBER_PARKED)
        unpark(fiber, -ECANCELED);
}

static void fiber_timed_out(struct timer *timer) {
    struct fiber *fiber = container_of(timer, struct fiber, timer);
    if (fiber->state == FIBER_PARKED)
        unpark(fiber, -ETIMEDOUT);
}

FIBER_FN int fiber_sleep(int64_t ms) {
    deadline_ms until = deadline_in(ms);
    int result;
    while ((result = fiber_park(until)) == 0)
        continue;
    return result == -ETIMEDOUT ? 0 : result;
}

struct yield {
    struct message message;
    struct fiber *fiber;
    bool over;
};

static void yield_over(struct message *message) {
    struct yield *yield = container_of(message, struct yield, message);
    yield->over = true;
    fiber_wake(yield->fiber);
}

FIBER_FN int fiber_yield(void) {
    struct yield yield = {.message.run = yield_over, .fiber = fiber_parking()};
    loop_post(loop_here(), &yield.message);
    while (!yield.over) /* the loop holds the message, which lives here */
        fiber_park_hard();
    return yield.fiber->cancelled ? -ECANCELED : 0;
}

/* --- groups --- */

void fiber_group_init(struct fiber_group *group) {
    list_init(&group->members);
    group->waiter = NULL;
    group->running = 0;
}

void fiber_group_spawn(struct fiber_group *group, fiber_main *main, void *arg) {
    struct fiber *fiber = fiber_new(main, arg);
    fiber->group = group;
    group->running++;
    list_push_back(&group->members, &fiber->sibling);
    make_ready(fiber);
}

void fiber_group_cancel(struct fiber_group *group) {
    /* A cancelled member may end, or end others, while we walk: start anew after each. */
    for (bool again = true; again;) {
        again = false;
        list_for (item, &group->members) {
            struct fiber *fiber = container_of(item, struct fiber, sibling);
            if (!fiber->cancelled) {
                fiber_cancel(fiber);
                again = true;
                break;
            }
        }
    }
}

FIBER_FN int fiber_group_join(struct fiber_group *group) {
    int result = 0;
    group->waiter = fiber_parking();
    while (group->running > 0) {
        if (result == 0 && fiber_park(DEADLINE_NEVER) == -ECANCELED) {
            result = -ECANCELED;
            fiber_group_cancel(group);
        } else if (result != 0) {
            fiber_park_hard();
        }
    }
    group->waiter = NULL;
    return result;
}

/* --- for the loop --- */

struct fiber_stats fiber_stats_here(void) {
    return (struct fiber_stats){
        .alive = world.alive, .stacks_cached = stack_cached(), .deepest_stack = stack_deepest()};
}

/* A cancelled fiber may run, end, and end others: so the list is turned around once instead of walked. */
size_t fibers_cancel_all(void) {
    if (!world.started)
        return 0;
    for (size_t left = world.alive; left > 0 && !list_empty(&world.all); left--) {
        struct fiber *fiber = container_of(list_pop_front(&world.all), struct fiber, all);
        list_push_back(&world.all, &fiber->all);
        if (!fiber->cancelled)
            fiber_cancel(fiber);
    }
    return world.alive;
}
