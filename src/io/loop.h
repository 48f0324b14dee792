/* Event loops: one per data thread plus the control loop, which runs on the main thread. A loop owns
 * its connections, timers, fibers and pools; loops talk by messages. libuv does the waiting.
 *
 * Index 0 is the control loop, 1..loops_count()-1 are data loops. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/clock.h"
#include "base/list.h"
#include "io/fiber.h"
#include "io/timer.h"

#define LOOPS_MAX 257

struct loop;

/* Makes the control loop on the calling thread and starts `data_loops` threads (>= 1), each running
 * `set_up(arg)` on its loop's stack before it turns (NULL: nothing). 0 or a negative errno. */
int loops_start(unsigned data_loops, void (*set_up)(void *arg), void *arg) MUST_CHECK;
/* Turns the control loop until loops_stop; then stops the data loops and joins their threads. */
void loops_run(void);
/* Ends loops_run; any thread. Fibers still alive are cancelled and given 2 s to unwind. */
void loops_stop(void);

unsigned loops_count(void);
struct loop *loop_at(unsigned index);
struct loop *loop_control(void);
/* The calling thread's loop; NULL on threads that have none. */
struct loop *loop_here(void);
unsigned loop_index(const struct loop *loop);
uv_loop_t *loop_uv(struct loop *loop);
/* Monotonic time as of this turn, without a system call. */
int64_t loop_now_ms(void);

/* A message: embedded in what it carries; `run` is called on the target loop's stack. The sender must
 * not touch it after posting. */
struct message {
    struct message *next;
    void (*run)(struct message *message);
};
/* Any thread. Messages from one thread to one loop stay in order. Never fails, never parks. */
void loop_post(struct loop *loop, struct message *message);

/* Runs `fn(arg)` on a fiber of `loop` and waits for it; deaf to cancellation (arg may live on the
 * caller's stack). On the loop itself it is a plain call. Returns what fn returned. */
FIBER_FN int loop_call(struct loop *loop, int (*fn)(void *arg), void *arg);
/* Starts a fiber on another loop and does not wait. `arg` belongs to fn. */
void loop_spawn(struct loop *loop, fiber_main *fn, void *arg);

/* Bytes shared by all reads of a loop: what a read callback sees is gone after it returns. */
#define LOOP_READ_SIZE 65536
char *loop_read_buffer(void);

/* Figures for metrics; read from any thread (relaxed). */
struct loop_stats {
    _Atomic uint64_t turns, stalls;
    _Atomic uint64_t fibers, stack_high;
    _Atomic uint64_t connections;    /* client connections, kept by listeners */
    _Atomic uint64_t upstream;       /* upstream connections, kept by the HTTP client */
    _Atomic int64_t turn_started_ms; /* 0 while it waits */
};
struct loop_stats *loop_stats(struct loop *loop);
