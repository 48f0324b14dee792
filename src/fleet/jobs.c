/* The runner of the job queue: each step is a fiber of one group, rests are timers. Figures for
 * the scrape are mirrored in atomics, because a scrape may come from any thread. */
#include "fleet/jobs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "base/metric.h"
#include "base/panic.h"
#include "io/loop.h"

#define PATIENCE_MS 30000

struct job {
    struct job_node node;
    struct job_options options;
    struct timer timer;   /* while it rests */
    struct fiber *fiber;  /* while a step runs */
    deadline_ms deadline; /* set at the first step */
    int64_t pause_ms;
    bool cancelled;
};

struct room_waiter {
    struct list link;
    struct fiber *fiber;
};

static struct {
    struct job_queue queue;
    struct fiber_group steps;
    struct list room_waiters;
    struct timer sweep;
    bool running;
    metric_ref ended[JOB_KIND_COUNT][2], duration[JOB_KIND_COUNT];
} runner;

static struct {
    _Atomic size_t pending, working;
    _Atomic int64_t oldest_ms; /* 0: none */
    metric_ref pending_ref, working_ref, oldest_ref;
    bool hooked;
} figures;

static struct job *job_of(struct job_node *node) { return container_of(node, struct job, node); }
static int64_t wall_s(void) { return clock_wall_ms() / 1000; }

/* --- metrics --------------------------------------------------------------------------------- */

static void set_figures(void) {
    const struct job_queue *queue = &runner.queue;
    int64_t oldest = 0;
    if (!list_empty(&queue->all))
        oldest = container_of(queue->all.next, struct job_node, in_all)->submitted_ms;
    atomic_store_explicit(&figures.pending, queue->pending, memory_order_relaxed);
    atomic_store_explicit(&figures.working, queue->working, memory_order_relaxed);
    atomic_store_explicit(&figures.oldest_ms, oldest, memory_order_relaxed);
}

static void show_figures(void *arg) {
    (void)arg;
    int64_t oldest = atomic_load_explicit(&figures.oldest_ms, memory_order_relaxed);
    metric_set(figures.pending_ref, (double)atomic_load(&figures.pending));
    metric_set(figures.working_ref, (double)atomic_load(&figures.working));
    metric_set(figures.oldest_ref, oldest ? (double)(clock_ms() - oldest) / 1000 : 0);
}

static void make_metrics(void) {
    static const enum job_kind kinds[] = {JOB_ADD_WORKER, JOB_UPDATE_WORKER, JOB_REMOVE_WORKER};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const char *name = job_kind_name(kinds[i]);
        runner.ended[kinds[i]][0] = metric_ref_of(METRIC_SLUICE_JOBS_TOTAL, name, "success");
        runner.ended[kinds[i]][1] = metric_ref_of(METRIC_SLUICE_JOBS_TOTAL, name, "failed");
        runner.duration[kinds[i]] = metric_ref_of(METRIC_SLUICE_JOB_DURATION_SECONDS, name);
    }
    if (figures.hooked)
        return;
    figures.hooked = true;
    figures.pending_ref = metric_ref_of(METRIC_SLUICE_JOBS, "pending");
    figures.working_ref = metric_ref_of(METRIC_SLUICE_JOBS, "processing");
    figures.oldest_ref = metric_ref_of(METRIC_SLUICE_JOB_OLDEST_AGE_SECONDS);
    metric_on_scrape(show_figures, NULL);
}

/* --- the end of a job ------------------------------------------------------------------------ */

static void log_end(const struct job *job, int result) {
    if (result == 0)
        log_debug("fleet", "job done", F_CSTR("job", job_kind_name(job->node.kind)),
                  F_STR("worker", job->options.key));
    else if (result == -ECANCELED)
        log_info("fleet", "job dropped", F_CSTR("job", job_kind_name(job->node.kind)),
                 F_STR("worker", job->options.key));
    else
        log_error("fleet", "job failed", F_CSTR("job", job_kind_name(job->node.kind)),
                  F_STR("worker", job->options.key), F_CSTR("reason", job->node.note));
}

static void tell_watch(struct job *job, int result) {
    struct job_watch *watch = job->options.watch;
    if (watch == NULL)
        return;
    watch->job = NULL;
    watch->over(watch, result, str_from(job->node.note));
}

static void wake_submitters(void) {
    if (list_empty(&runner.room_waiters))
        return;
    if (runner.running && !job_queue_room(&runner.queue))
        return;
    struct list *first = list_pop_front(&runner.room_waiters);
    fiber_wake(container_of(first, struct room_waiter, link)->fiber);
}

static void finish(struct job *job, int result) {
    int64_t now = clock_ms();
    enum job_kind kind = job->node.kind;
    struct str key = job->options.key;
    bool failed = result != 0 && result != -ECANCELED;
    if (failed && job->node.note[0] == 0)
        snprintf(job->node.note, sizeof job->node.note, "error %d", -result);
    log_end(job, result);
    metric_inc(runner.ended[kind][result != 0]);
    metric_observe(runner.duration[kind], (double)(now - job->node.submitted_ms) / 1000);
    job_queue_end(&runner.queue, &job->node, failed ? job->node.note : NULL, now, wall_s());
    if (kind == JOB_REMOVE_WORKER)
        job_queue_forgive(&runner.queue, key);
    set_figures();
    job->options.ended(job->options.state, result);
    tell_watch(job, result);
    mem_free((char *)key.ptr);
    mem_free(job);
    wake_submitters();
}

/* --- steps ----------------------------------------------------------------------------------- */

static void pump(void);

static void rested(struct timer *timer) {
    struct job *job = container_of(timer, struct job, timer);
    job_queue_ready(&runner.queue, &job->node);
    pump();
}

static void rest(struct job *job) {
    job_queue_rest(&runner.queue, &job->node);
    if (job->cancelled) { /* asked to stop during the step: no point in waiting */
        job_queue_ready(&runner.queue, &job->node);
        return;
    }
    job->timer.fire = rested;
    timer_set(&job->timer, deadline_sooner(deadline_in(job->pause_ms), job->deadline));
}

static FIBER_FN int next_step(struct job *job) {
    if (job->cancelled)
        return -ECANCELED;
    if (job->deadline == 0)
        job->deadline = deadline_in(job->options.timeout_ms);
    else if (deadline_left(job->deadline) == 0) {
        char note[JOB_NOTE_MAX];
        memcpy(note, job->node.note, sizeof note);
        return job_fail(job, -ETIMEDOUT, "timed out after %lld s%s%.200s",
                        (long long)(job->options.timeout_ms / 1000), note[0] ? ": " : "", note);
    }
    return job->options.step(job, job->options.state);
}

static FIBER_FN void step_main(void *arg) {
    struct job *job = arg;
    job->fiber = fiber_self();
    wake_submitters(); /* it waits no longer: its room is free */
    int result = next_step(job);
    job->fiber = NULL;
    if (job->cancelled && result < 0)
        result = -ECANCELED;
    if (result == JOB_AGAIN)
        rest(job);
    else
        finish(job, result);
    pump();
}

static void pump(void) {
    struct job_node *node;
    while ((node = job_queue_take(&runner.queue, wall_s())) != NULL) {
        set_figures();
        fiber_group_spawn(&runner.steps, step_main, job_of(node));
    }
}

int job_again(struct job *job, int64_t ms) {
    job->pause_ms = ms;
    return JOB_AGAIN;
}

void job_note(struct job *job, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(job->node.note, sizeof job->node.note, format, args);
    va_end(args);
}

int job_fail(struct job *job, int error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(job->node.note, sizeof job->node.note, format, args);
    va_end(args);
    return error;
}

deadline_ms job_deadline(const struct job *job) { return job->deadline; }

/* --- submitting and dropping ----------------------------------------------------------------- */

static int add(const struct job_options *options, bool free_of_charge) {
    if (!runner.running)
        return -ESHUTDOWN;
    struct job *job = mem_zalloc(sizeof *job);
    job->options = *options;
    job->options.key = str_make(str_dup(options->key), options->key.len);
    job->node.kind = options->kind;
    job->node.free_of_charge = free_of_charge;
    if (options->watch != NULL)
        options->watch->job = job;
    job_queue_add(&runner.queue, &job->node, options->key, clock_ms(), wall_s());
    set_figures();
    pump();
    return 0;
}

int jobs_submit_now(const struct job_options *options) { return add(options, true); }

FIBER_FN int jobs_submit(const struct job_options *options) {
    deadline_ms patience = deadline_in(PATIENCE_MS);
    int err = 0;
    while (!err && runner.running && !job_queue_room(&runner.queue)) {
        struct room_waiter waiter = {.fiber = fiber_self()};
        list_push_back(&runner.room_waiters, &waiter.link);
        err = fiber_park(patience);
        if (err && !list_linked(&waiter.link))
            fiber_park_hard(); /* woken as well: takes the wake back */
        list_remove(&waiter.link);
    }
    if (err)
        return err == -ETIMEDOUT ? -EAGAIN : err;
    err = add(options, false);
    wake_submitters(); /* there may be room for the next one too */
    return err;
}

/* May free the job. */
static void cancel(struct job *job) {
    bool resting = job->node.state == JOB_PROCESSING && !job->node.at_work;
    job->cancelled = true;
    if (job->node.state == JOB_PENDING) {
        finish(job, -ECANCELED);
    } else if (resting) {
        timer_clear(&job->timer);
        job_queue_ready(&runner.queue, &job->node);
    } else if (job->fiber != NULL) {
        fiber_cancel(job->fiber);
    }
}

void jobs_cancel(struct str key, enum job_kind kind) {
    struct job *doomed[64];
    size_t count;
    do { /* `finish` may free the line: gather first */
        const struct list *line = runner.running ? job_queue_line(&runner.queue, key) : NULL;
        count = 0;
        for (struct list *at = line ? line->next : NULL; at && at != line && count < 64;
             at = at->next) {
            struct job *job = job_of(container_of(at, struct job_node, in_line));
            if (job->node.kind == kind && !job->cancelled)
                doomed[count++] = job;
        }
        for (size_t i = 0; i < count; i++)
            cancel(doomed[i]);
    } while (count > 0);
    if (runner.running)
        pump();
}

bool jobs_status(struct str key, struct job_status *out) {
    return runner.running && job_queue_status(&runner.queue, key, out);
}

bool jobs_busy(struct str key, enum job_kind kind) {
    const struct list *line = runner.running ? job_queue_line(&runner.queue, key) : NULL;
    if (line == NULL)
        return false;
    list_for (item, line) {
        struct job *job = job_of(container_of(item, struct job_node, in_line));
        if (job->node.kind == kind && !job->cancelled)
            return true;
    }
    return false;
}

bool jobs_unwatch(struct job_watch *watch) {
    if (watch->job == NULL)
        return false;
    watch->job->options.watch = NULL;
    watch->job = NULL;
    return true;
}

/* --- start and stop -------------------------------------------------------------------------- */

static void sweep(struct timer *timer) {
    job_queue_sweep(&runner.queue, clock_ms());
    timer_set(timer, deadline_in(JOB_SWEEP_MS));
}

void jobs_start(void) {
    assert_always(!runner.running);
    job_queue_init(&runner.queue, JOBS_CAPACITY, JOBS_PLACES);
    fiber_group_init(&runner.steps);
    list_init(&runner.room_waiters);
    make_metrics();
    runner.sweep.fire = sweep;
    timer_set(&runner.sweep, deadline_in(JOB_SWEEP_MS));
    runner.running = true;
}

/* Asks every job to end; waiting ones are gone afterwards. */
static void cancel_all(void) {
    struct list *head = &runner.queue.all;
    for (struct list *at = head->next, *next; at != head; at = next) {
        next = at->next;
        cancel(job_of(container_of(at, struct job_node, in_all)));
    }
}

FIBER_FN void jobs_stop(void) {
    if (!runner.running)
        return;
    runner.running = false; /* nothing is added any more */
    timer_clear(&runner.sweep);
    while (!list_empty(&runner.room_waiters))
        wake_submitters();
    cancel_all();
    while (!list_empty(&runner.queue.all)) {
        pump();
        if (fiber_group_join(&runner.steps) == -ECANCELED)
            log_debug("fleet", "cancelled while the jobs were ended");
    }
    job_queue_free(&runner.queue);
    set_figures();
}
