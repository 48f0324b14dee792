/* Timers of one loop: a wheel of 4 ms slots, so that setting and clearing a deadline costs a list
 * operation, not a heap. */
#pragma once

#include "base/clock.h"
#include "base/list.h"

/* Embedded in its owner; zero it before first use. Calls back on the loop's stack, once. */
struct timer {
    struct list link;
    deadline_ms expires;
    void (*fire)(struct timer *timer);
};
/* (Re)sets; DEADLINE_NEVER clears. Same loop only. */
void timer_set(struct timer *timer, deadline_ms expires);
void timer_clear(struct timer *timer);

#define WHEEL_SLOTS 1024
#define WHEEL_TICK_MS 4
struct wheel {
    struct list slots[WHEEL_SLOTS];
    uint64_t occupied[WHEEL_SLOTS / 64];
    int64_t tick;
};
/* For loop.c: the wheel of the calling thread. */
void wheel_init(struct wheel *wheel, int64_t now_ms);
/* Milliseconds until the next slot that may hold something due, or -1. */
int64_t wheel_next(const struct wheel *wheel, int64_t now_ms);
/* Fires what is due. */
void wheel_advance(struct wheel *wheel, int64_t now_ms);
