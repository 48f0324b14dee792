/* See offload.h. */
#include "io/offload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/vec.h"
#include "io/loop.h"

struct job {
    struct message message;
    struct list link;
    int (*fn)(void *arg);
    void *arg;
    int result;
    bool done;
    struct fiber *fiber;
    struct loop *home;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct list queue;
    size_t queued, queue_max;
    bool stop;
    VEC(pthread_t) threads;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

static struct job *job_take(void) {
    pthread_mutex_lock(&pool.lock);
    while (list_empty(&pool.queue) && !pool.stop)
        pthread_cond_wait(&pool.filled, &pool.lock);
    struct list *item = list_pop_front(&pool.queue);
    if (item != NULL)
        pool.queued--;
    pthread_mutex_unlock(&pool.lock);
    return item ? container_of(item, struct job, link) : NULL;
}

static void job_done(struct message *message) {
    struct job *job = container_of(message, struct job, message);
    job->done = true;
    fiber_wake(job->fiber);
}

static void *pool_thread(void *arg) {
    (void)arg;
    struct job *job;
    while ((job = job_take()) != NULL) {
        job->result = job->fn(job->arg);
        job->message.run = job_done;
        loop_post(job->home, &job->message);
    }
    return NULL;
}

int offload_start(unsigned threads, size_t queue_max) {
    list_init(&pool.queue);
    pool.queue_max = queue_max;
    pool.stop = false;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    for (unsigned i = 0; i < threads && rc == 0; i++) {
        pthread_t thread;
        rc = pthread_create(&thread, NULL, pool_thread, NULL);
        if (rc == 0)
            vec_push(&pool.threads, thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

void offload_stop(void) {
    pthread_mutex_lock(&pool.lock);
    pool.stop = true;
    pthread_cond_broadcast(&pool.filled);
    pthread_mutex_unlock(&pool.lock);
    for (size_t i = 0; i < pool.threads.len; i++)
        pthread_join(pool.threads.items[i], NULL);
    vec_free(&pool.threads);
}

static int job_queue(struct job *job) {
    pthread_mutex_lock(&pool.lock);
    bool room = pool.queued < pool.queue_max && !pool.stop;
    if (room) {
        list_push_back(&pool.queue, &job->link);
        pool.queued++;
        pthread_cond_signal(&pool.filled);
    }
    pthread_mutex_unlock(&pool.lock);
    return room ? 0 : -EBUSY;
}

FIBER_FN int offload(int (*fn)(void *arg), void *arg) {
    struct job job = {.fn = fn, .arg = arg, .fiber = fiber_self(), .home = loop_here()};
    int rc = job_queue(&job);
    if (rc < 0)
        return rc;
    while (!job.done)
        fiber_park_hard();
    return job.result;
}
