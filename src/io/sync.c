/* See sync.h. A waiter is a node on its own stack; what it waits for is handed to it directly, so a late
 * arrival can never overtake. */
#include "io/sync.h"

#include <errno.h>

#include "base/panic.h"

struct waiter {
    struct list link;
    struct fiber *fiber;
    void *item;
    bool granted;
};

static void waiter_grant(struct list *waiters, void *item) {
    struct waiter *waiter = container_of(list_pop_front(waiters), struct waiter, link);
    waiter->item = item;
    waiter->granted = true;
    fiber_wake(waiter->fiber);
}

/* Waits in line. What was granted counts even when the park says otherwise. */
static FIBER_FN int waiter_wait(struct list *waiters, struct waiter *waiter, deadline_ms deadline) {
    waiter->fiber = fiber_self();
    list_push_back(waiters, &waiter->link);
    int rc = 0;
    while (!waiter->granted && rc == 0)
        rc = fiber_park(deadline);
    list_remove(&waiter->link);
    return waiter->granted ? 0 : rc;
}

void semaphore_init(struct semaphore *sem, size_t permits) {
    sem->free = permits;
    list_init(&sem->waiters);
}

bool semaphore_try(struct semaphore *sem) {
    if (sem->free == 0)
        return false;
    sem->free--;
    return true;
}

FIBER_FN int semaphore_take(struct semaphore *sem, deadline_ms deadline) {
    if (semaphore_try(sem))
        return 0;
    struct waiter waiter = {0};
    return waiter_wait(&sem->waiters, &waiter, deadline);
}

void semaphore_give(struct semaphore *sem) {
    if (list_empty(&sem->waiters))
        sem->free++;
    else
        waiter_grant(&sem->waiters, NULL);
}

void channel_init(struct channel *channel, size_t cap) {
    assert_always(cap > 0);
    *channel = (struct channel){.items = mem_alloc(cap * sizeof(void *)), .cap = cap};
    list_init(&channel->readers);
    list_init(&channel->writers);
}

void channel_free(struct channel *channel) {
    mem_free(channel->items);
    channel->items = NULL;
}

static void ring_push(struct channel *channel, void *item) {
    channel->items[(channel->head + channel->len++) % channel->cap] = item;
}

static void *ring_pop(struct channel *channel) {
    void *item = channel->items[channel->head];
    channel->head = (channel->head + 1) % channel->cap;
    channel->len--;
    return item;
}

int channel_try_send(struct channel *channel, void *item) {
    assert_always(item != NULL); /* means "closed" to a waiter */
    if (channel->closed)
        return -EPIPE;
    if (!list_empty(&channel->readers))
        waiter_grant(&channel->readers, item);
    else if (channel->len < channel->cap)
        ring_push(channel, item);
    else
        return -EAGAIN;
    return 0;
}

FIBER_FN int channel_send(struct channel *channel, void *item, deadline_ms deadline) {
    int rc = channel_try_send(channel, item);
    if (rc != -EAGAIN)
        return rc;
    struct waiter waiter = {.item = item};
    rc = waiter_wait(&channel->writers, &waiter, deadline);
    return rc == 0 && waiter.item == NULL ? -EPIPE : rc;
}

/* A waiting writer's item moves into the place that just came free; its own copy stays non-NULL to say so. */
static void admit_writer(struct channel *channel) {
    if (list_empty(&channel->writers))
        return;
    struct waiter *writer = container_of(channel->writers.next, struct waiter, link);
    ring_push(channel, writer->item);
    waiter_grant(&channel->writers, writer->item);
}

FIBER_FN int channel_receive(struct channel *channel, void **item, deadline_ms deadline) {
    if (channel->len > 0) {
        *item = ring_pop(channel);
        admit_writer(channel);
        return 0;
    }
    if (channel->closed)
        return -EPIPE;
    struct waiter waiter = {0};
    int rc = waiter_wait(&channel->readers, &waiter, deadline);
    *item = waiter.item;
    return rc == 0 && waiter.item == NULL ? -EPIPE : rc;
}

void channel_close(struct channel *channel) {
    channel->closed = true;
    while (!list_empty(&channel->readers))
        waiter_grant(&channel->readers, NULL);
    while (!list_empty(&channel->writers))
        waiter_grant(&channel->writers, NULL);
}
