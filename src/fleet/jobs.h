/* Jobs on workers: adding, updating and removing take time, so they are queued and their status
 * can be asked for. At most 1000 wait, 200 work at once; the order is that of job_queue.h. A job
 * is a function that is called in steps: while it waits for something long (a worker that
 * starts, a worker that drains) it holds neither a place nor a fiber. Control loop only. */
#pragma once

#include "fleet/job_queue.h"
#include "io/fiber.h"

#define JOBS_CAPACITY 1000
#define JOBS_PLACES 200
/* What a step returns that wants to be called again. */
#define JOB_AGAIN 1

struct job;

/* Told at the end of a job, once: 0, -ECANCELED when it was dropped, or the error with its
 * message (valid during the call). Owned by the submitter; gone from the job afterwards. */
struct job_watch {
    struct job *job; /* NULL: over, or never attached */
    void (*over)(struct job_watch *watch, int result, struct str message);
};

struct job_options {
    enum job_kind kind;
    struct str key;     /* copied */
    int64_t timeout_ms; /* from its first step on */
    /* 0 done, JOB_AGAIN from job_again(), or a negative errno (say why with job_fail). On a
     * fiber; must return soon after a park said -ECANCELED. */
    FIBER_FN int (*step)(struct job *job, void *state);
    /* Called once at the end, before the watch; frees the state. */
    void (*ended)(void *state, int result);
    void *state;
    struct job_watch *watch; /* may be NULL */
};

void jobs_start(void);
/* Drops all jobs and waits until those at work have returned. */
FIBER_FN void jobs_stop(void);

/* Queues a job, waiting at most 30 s for room. 0, -EAGAIN when there was none, -ESHUTDOWN,
 * -ECANCELED; after a failure `ended` is not called. */
FIBER_FN int jobs_submit(const struct job_options *options);
/* Queues a job that is not bound by the capacity: those the gateway gives itself. 0 or
 * -ESHUTDOWN. */
int jobs_submit_now(const struct job_options *options) MUST_CHECK;
/* Drops the jobs of a kind under this key: waiting ones end at once, one at work soon. */
void jobs_cancel(struct str key, enum job_kind kind);
/* What to show for a key; texts are valid until the next park. */
bool jobs_status(struct str key, struct job_status *out);
/* Has the key an unfinished job of this kind? */
bool jobs_busy(struct str key, enum job_kind kind);
/* Takes the watch off its job: true when it was still on (it will not be told any more). */
bool jobs_unwatch(struct job_watch *watch);

/* For steps. */
/* "Call me again in `ms`": the value to return. */
int job_again(struct job *job, int64_t ms);
/* How far it is: shown as the job's message. */
void job_note(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The reason of a failure; returns `error`. */
int job_fail(struct job *job, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* When the job must be done. */
deadline_ms job_deadline(const struct job *job);
