/* See watchdog.h. The watching thread signals the stalled one, whose handler takes the addresses; names are
 * looked up and logged by the watcher. */
#include "io/watchdog.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "io/loop_core.h"
#include "io/sanitize.h"

#define STALL_MS 100
#define LOOK_EVERY_MS 50
#define FRAMES 32

static struct {
    pthread_t thread;
    _Atomic bool stop;
    bool running;
} watchdog;

/* `wanted` is taken down by whoever gets there first: the handler, who then fills in the frames, or the
 * watcher, who has lost patience. */
static struct {
    void *frames[FRAMES];
    _Atomic int count; /* -1: none yet */
    _Atomic bool wanted;
} trace;

static void take_trace(int signo) {
    (void)signo;
    int saved = errno;
    if (atomic_exchange(&trace.wanted, false))
        atomic_store(&trace.count, backtrace(trace.frames, FRAMES));
    errno = saved;
}

static void pause_ms(int ms) {
    struct timespec time = {.tv_nsec = ms * 1000000L};
    (void)nanosleep(&time, NULL);
}

/* Asks the thread for its frames; how many came. */
static int trace_of(struct loop *loop) {
    atomic_store(&trace.count, -1);
    atomic_store(&trace.wanted, true);
    if (pthread_kill(loop->thread, WATCHDOG_SIGNAL) == 0)
        for (int i = 0; i < 20 && atomic_load(&trace.count) < 0; i++)
            pause_ms(5);
    if (atomic_exchange(&trace.wanted, false))
        return 0;
    while (atomic_load(&trace.count) < 0) /* the handler is at it */
        pause_ms(1);
    return atomic_load(&trace.count);
}

static void report(struct loop *loop, int64_t stalled_ms) {
    log_warn("io", "loop has not turned", F_INT("loop", loop->index), F_INT("ms", stalled_ms));
    int count = trace_of(loop);
    char **names = backtrace_symbols(trace.frames, count);
    for (int i = 0; names != NULL && i < count; i++)
        log_warn("io", "stalled at", F_INT("frame", i), F_CSTR("where", names[i]));
    (free)(names); /* backtrace_symbols allocates with malloc */
}

static void look_at(struct loop *loop, int64_t *reported) {
    int64_t since = atomic_load_explicit(&loop->stats.turn_started_ms, memory_order_relaxed);
    if (since == 0 || since == *reported)
        return;
    int64_t stalled = clock_ms() - since;
    if (stalled < STALL_MS)
        return;
    *reported = since;
    atomic_fetch_add_explicit(&loop->stats.stalls, 1, memory_order_relaxed);
    report(loop, stalled);
}

static void *watch(void *arg) {
    (void)arg;
    static int64_t reported[LOOPS_MAX];
    while (!atomic_load(&watchdog.stop)) {
        pause_ms(LOOK_EVERY_MS);
        for (unsigned i = 0; i < loops_count(); i++)
            look_at(loop_at(i), &reported[i]);
    }
    return NULL;
}

void watchdog_start(void) {
    void *warm_up[1];
    (void)backtrace(warm_up, 1); /* loads the unwinder now, not in a handler */
    struct sigaction action = {.sa_handler = take_trace, .sa_flags = SA_RESTART};
    sigaction(WATCHDOG_SIGNAL, &action, NULL);
    atomic_store(&watchdog.stop, false);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    watchdog.running = pthread_create(&watchdog.thread, NULL, watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void watchdog_stop(void) {
    if (!watchdog.running)
        return;
    atomic_store(&watchdog.stop, true);
    pthread_join(watchdog.thread, NULL);
    watchdog.running = false;
}
