/* Waiting for each other inside one loop: semaphore (a mutex is one of 1) and channel. FIFO among waiters. What
 * was granted counts, even when the fiber was cancelled at the same time. */
#pragma once

#include "io/fiber.h"

struct semaphore {
    size_t free;
    struct list waiters;
};
void semaphore_init(struct semaphore *sem, size_t permits);
/* 0, -ECANCELED or -ETIMEDOUT. */
FIBER_FN int semaphore_take(struct semaphore *sem, deadline_ms deadline);
bool semaphore_try(struct semaphore *sem);
void semaphore_give(struct semaphore *sem);

/* A bounded queue of pointers (not NULL; cap >= 1); many senders, many receivers. */
struct channel {
    void **items;
    size_t cap, len, head;
    bool closed;
    struct list readers, writers;
};
void channel_init(struct channel *channel, size_t cap);
void channel_free(struct channel *channel);
/* 0, -ECANCELED, -ETIMEDOUT, or -EPIPE when closed (then the item was not taken). */
FIBER_FN int channel_send(struct channel *channel, void *item, deadline_ms deadline);
/* Without waiting: 0, -EAGAIN when full, -EPIPE. */
int channel_try_send(struct channel *channel, void *item);
/* 0 with *item, -ECANCELED, -ETIMEDOUT, or -EPIPE when closed and drained. */
FIBER_FN int channel_receive(struct channel *channel, void **item, deadline_ms deadline);
void channel_close(struct channel *channel);
