/* The inside of a loop that io/ shares with itself; nobody else includes this. */
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "io/loop.h"

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t clock;
    uv_prepare_t prepare;
    _Atomic(struct message *) inbox;
    struct wheel wheel;
    int64_t armed_ms; /* when `clock` will fire; 0: not set */
    unsigned index;
    bool stopping;
    int64_t stop_by_ms;
    pthread_t thread;
    sem_t over; /* its thread has left it */
    struct loop_stats stats;
    char *read_buffer;
};

struct wheel *loop_wheel(void);
/* Said at the start of each callback from libuv: the loop is at work (for the watchdog). */
void loop_entered(struct loop *loop);
