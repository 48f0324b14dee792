/* See loop.h. Timers: a prepare hook arms one libuv timer for the wheel's next slot before each wait.
 * Messages: a lock-free stack per loop, woken through uv_async only when it was empty. */
#include "io/loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/panic.h"
#include "io/fiber_sched.h"
#include "io/loop_core.h"
#include "io/sanitize.h"
#include "io/watchdog.h"

#define STOP_PATIENCE_MS 2000
#define STOP_TURN_MS 10

static struct loop *loops[LOOPS_MAX];
static unsigned loop_total;
static _Thread_local struct loop *here;
static _Atomic bool stop_asked;

struct loop_boot {
    struct loop *loop;
    void (*set_up)(void *arg);
    void *arg;
};

unsigned loops_count(void) { return loop_total; }
struct loop *loop_at(unsigned index) {
    return loops[index];
}
struct loop *loop_control(void) {
    return loops[0];
}
struct loop *loop_here(void) {
    return here;
}
unsigned loop_index(const struct loop *loop) { return loop->index; }
uv_loop_t *loop_uv(struct loop *loop) { return &loop->uv; }
int64_t loop_now_ms(void) { return here ? (int64_t)uv_now(&here->uv) : clock_ms(); }
char *loop_read_buffer(void) { return here->read_buffer; }
struct wheel *loop_wheel(void) {
    return &here->wheel;
}
struct loop_stats *loop_stats(struct loop *loop) {
    return &loop->stats;
}

/* --- turning --- */

void loop_entered(struct loop *loop) {
    if (atomic_load_explicit(&loop->stats.turn_started_ms, memory_order_relaxed) == 0)
        atomic_store_explicit(&loop->stats.turn_started_ms, (int64_t)uv_now(&loop->uv),
                              memory_order_relaxed);
}

static void stats_refresh(struct loop *loop) {
    struct fiber_stats now = fiber_stats_here();
    atomic_store_explicit(&loop->stats.fibers, now.alive, memory_order_relaxed);
    atomic_store_explicit(&loop->stats.stack_high, now.deepest_stack, memory_order_relaxed);
    atomic_fetch_add_explicit(&loop->stats.turns, 1, memory_order_relaxed);
    atomic_store_explicit(&loop->stats.turn_started_ms, 0, memory_order_relaxed);
}

static void on_clock(uv_timer_t *handle) {
    struct loop *loop = handle->data;
    loop_entered(loop);
    loop->armed_ms = 0;
    wheel_advance(&loop->wheel, (int64_t)uv_now(&loop->uv));
}

static void stop_step(struct loop *loop) {
    if (fibers_cancel_all() == 0 || (int64_t)uv_now(&loop->uv) >= loop->stop_by_ms)
        uv_stop(&loop->uv);
}

static void on_prepare(uv_prepare_t *handle) {
    struct loop *loop = handle->data;
    if (loop->stopping)
        stop_step(loop);
    stats_refresh(loop);
    int64_t now = (int64_t)uv_now(&loop->uv);
    int64_t left = wheel_next(&loop->wheel, now);
    if (loop->stopping) /* keeps turning, so that stop_step sees the last fiber go */
        left = STOP_TURN_MS;
    if (left < 0 || now + left == loop->armed_ms)
        return;
    loop->armed_ms = now + left;
    uv_timer_start(&loop->clock, on_clock, (uint64_t)left, 0);
}

/* --- messages --- */

static struct message *inbox_take(struct loop *loop) {
    struct message *stack = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
    struct message *queue = NULL;
    while (stack != NULL) {
        struct message *next = stack->next;
        stack->next = queue;
        queue = stack;
        stack = next;
    }
    return queue;
}

static void on_wake(uv_async_t *handle) {
    struct loop *loop = handle->data;
    loop_entered(loop);
    struct message *message = inbox_take(loop);
    while (message != NULL) {
        struct message *next = message->next;
        message->run(message);
        message = next;
    }
}

void loop_post(struct loop *loop, struct message *message) {
    struct message *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
    do
        message->next = head;
    while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &head, message,
                                                  memory_order_release, memory_order_relaxed));
    if (head == NULL)
        uv_async_send(&loop->wake);
}

/* --- calls into other loops --- */

struct remote_call {
    struct message message;
    int (*fn)(void *arg);
    void *arg;
    int result;
    bool done;
    struct fiber *caller;
    struct loop *home;
};

static void remote_done(struct message *message) {
    struct remote_call *call = container_of(message, struct remote_call, message);
    call->done = true;
    fiber_wake(call->caller);
}

static void remote_fiber(void *arg) {
    struct remote_call *call = arg;
    call->result = call->fn(call->arg);
    call->message.run = remote_done;
    loop_post(call->home, &call->message);
}

static void remote_run(struct message *message) {
    fiber_spawn(remote_fiber, container_of(message, struct remote_call, message));
}

FIBER_FN int loop_call(struct loop *loop, int (*fn)(void *arg), void *arg) {
    if (loop == here)
        return fn(arg);
    struct remote_call call = {
        .message.run = remote_run, .fn = fn, .arg = arg, .caller = fiber_self(), .home = here};
    loop_post(loop, &call.message);
    while (!call.done)
        fiber_park_hard();
    return call.result;
}

struct remote_spawn {
    struct message message;
    fiber_main *fn;
    void *arg;
};

static void remote_spawn_run(struct message *message) {
    struct remote_spawn spawn = *container_of(message, struct remote_spawn, message);
    mem_free(message);
    fiber_spawn(spawn.fn, spawn.arg);
}

void loop_spawn(struct loop *loop, fiber_main *fn, void *arg) {
    struct remote_spawn *spawn = mem_alloc(sizeof *spawn);
    *spawn = (struct remote_spawn){.message.run = remote_spawn_run, .fn = fn, .arg = arg};
    loop_post(loop, &spawn->message);
}

/* --- life --- */

static char *read_buffer_map(void) {
    char *buffer =
        mmap(NULL, LOOP_READ_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_always(buffer != MAP_FAILED);
    return buffer;
}

static int loop_init(struct loop *loop, unsigned index) {
    int rc = uv_loop_init(&loop->uv);
    if (rc < 0)
        return rc;
    loop->index = index;
    loop->read_buffer = read_buffer_map();
    sem_init(&loop->over, 0, 0);
    loop->wake.data = loop->clock.data = loop->prepare.data = loop->uv.data = loop;
    uv_async_init(&loop->uv, &loop->wake, on_wake);
    uv_timer_init(&loop->uv, &loop->clock);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_prepare_start(&loop->prepare, on_prepare);
    wheel_init(&loop->wheel, (int64_t)uv_now(&loop->uv));
    return 0;
}

static struct loop *loop_new(unsigned index) {
    struct loop *loop = mem_zalloc(sizeof *loop);
    int rc = loop_init(loop, index);
    if (rc < 0)
        panic_here("cannot make an event loop: %s", uv_strerror(rc));
    loops[index] = loop;
    return loop;
}

/* What threads keep in thread-local variables ends with the process. A leak checker would lose sight of it when
 * the thread ends, so with one they stay. */
static void thread_over(struct loop *loop) {
    (void)loop;
#if HAVE_ASAN
    sem_post(&loop->over);
    for (;;)
        pause();
#endif
}

static void thread_join(struct loop *loop) {
#if HAVE_ASAN
    while (sem_wait(&loop->over) != 0)
        continue;
#else
    pthread_join(loop->thread, NULL);
#endif
}

static void *loop_thread(void *arg) {
    struct loop_boot boot = *(struct loop_boot *)arg;
    mem_free(arg);
    here = boot.loop;
    uv_update_time(&here->uv);
    if (boot.set_up != NULL)
        boot.set_up(boot.arg);
    uv_run(&here->uv, UV_RUN_DEFAULT);
    thread_over(here);
    return NULL;
}

static int thread_start(struct loop *loop, void (*set_up)(void *arg), void *arg) {
    struct loop_boot *boot = mem_alloc(sizeof *boot);
    *boot = (struct loop_boot){loop, set_up, arg};
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, WATCHDOG_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&loop->thread, NULL, loop_thread, boot);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

int loops_start(unsigned data_loops, void (*set_up)(void *arg), void *arg) {
    if (data_loops == 0 || data_loops >= LOOPS_MAX)
        return -EINVAL;
    atomic_store(&stop_asked, false);
    for (unsigned i = 0; i <= data_loops; i++)
        loop_new(i);
    here = loops[0];
    here->thread = pthread_self();
    loop_total = data_loops + 1;
    for (unsigned i = 1; i <= data_loops; i++) {
        int rc = thread_start(loops[i], set_up, arg);
        if (rc < 0)
            return rc;
    }
    watchdog_start();
    return 0;
}

static void stop_begin(struct message *message) {
    mem_free(message);
    here->stopping = true;
    here->stop_by_ms = (int64_t)uv_now(&here->uv) + STOP_PATIENCE_MS;
}

static void stop_one(struct loop *loop) {
    struct message *message = mem_alloc(sizeof *message);
    message->run = stop_begin;
    loop_post(loop, message);
}

void loops_stop(void) {
    if (atomic_exchange(&stop_asked, true))
        return;
    stop_one(loops[0]);
}

void loops_run(void) {
    uv_run(&here->uv, UV_RUN_DEFAULT);
    watchdog_stop();
    for (unsigned i = 1; i < loop_total; i++)
        stop_one(loops[i]);
    for (unsigned i = 1; i < loop_total; i++)
        thread_join(loops[i]);
    /* The loops' memory stays: handles in it belong to objects that end with the process. */
}
