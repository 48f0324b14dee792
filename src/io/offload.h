/* CPU work off the loops: a pool of its own (one thread per CPU, bounded queue), not libuv's, so that a
 * hanging name look-up never stops it. */
#pragma once

#include "io/fiber.h"

/* Threads and the longest queue; once, before the loops. 0 or a negative errno. */
int offload_start(unsigned threads, size_t queue_max) MUST_CHECK;
void offload_stop(void);
/* Runs fn(arg) on a pool thread and waits, deaf to cancellation (arg may live on the stack). What fn
 * returned, or -EBUSY when the queue is full. */
FIBER_FN int offload(int (*fn)(void *arg), void *arg);
