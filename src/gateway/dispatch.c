/* See dispatch.h. Each attempt takes a guard on a worker and gives it back before the next one,
 * so that nothing is held while a request waits. How often and how long is asked of the worker
 * that has just failed: it may have retry options of its own. */
#include "gateway/dispatch.h"

#include <math.h>

#include "base/rand.h"
#include "fleet/health.h"
#include "fleet/worker_spec.h"
#include "gateway/counts.h"
#include "gateway/gateway.h"

#define RACES_MAX 16
#define TRIED_FIRST 8

struct attempts {
    struct worker **tried; /* referenced */
    size_t tried_count, tried_room;
    uint32_t done;
};

/* --- what an answer means --- */

static bool retryable_status(int status) {
    return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

static bool retryable(const struct reply *reply) {
    if (reply->failure == ATTEMPT_OK)
        return retryable_status(reply->status);
    return reply->failure == ATTEMPT_CONNECT || reply->failure == ATTEMPT_BROKEN;
}

static bool listed(const struct worker *worker, int status, bool *has_list) {
    const uint16_t *statuses = worker->retry.failure_statuses;
    *has_list = statuses != NULL;
    for (size_t i = 0; statuses != NULL && i < worker->retry.failure_status_count; i++)
        if (statuses[i] == status)
            return true;
    return false;
}

static enum breaker_outcome status_outcome(const struct worker *worker, const struct reply *reply) {
    int status = reply->status;
    bool has_list, in_list = listed(worker, status, &has_list);
    bool patient = status == 503 && headers_get(reply->headers, STR("retry-after")).ptr != NULL;
    bool neutral = status == 408 || status == 429 || patient;
    bool failure = status == 500 || status == 502 || status == 503 || status == 504;
    if (has_list ? in_list : failure && !neutral)
        return BREAKER_FAILURE;
    return neutral ? BREAKER_NEUTRAL : BREAKER_SUCCESS;
}

enum breaker_outcome dispatch_outcome(const struct dispatched *dispatched) {
    if (dispatched->guard.worker == NULL)
        return BREAKER_NEUTRAL;
    switch (dispatched->reply.failure) {
    case ATTEMPT_OK: return status_outcome(dispatched->guard.worker, &dispatched->reply);
    case ATTEMPT_CANCELLED:
    case ATTEMPT_NO_PLACE: return BREAKER_NEUTRAL;
    default: return BREAKER_FAILURE;
    }
}

/* --- choosing --- */

static void tried_grow(struct request *request, struct attempts *attempts) {
    size_t room = attempts->tried_room ? attempts->tried_room * 2 : TRIED_FIRST;
    struct worker **tried = arena_alloc(request->arena, room * sizeof *tried);
    if (attempts->tried_count > 0)
        memcpy(tried, attempts->tried, attempts->tried_count * sizeof *tried);
    attempts->tried = tried;
    attempts->tried_room = room;
}

static void tried_add(struct request *request, struct attempts *attempts, struct worker *worker) {
    if (attempts->tried_count == attempts->tried_room)
        tried_grow(request, attempts);
    attempts->tried[attempts->tried_count++] = worker_ref(worker);
}

static void tried_free(struct attempts *attempts) {
    for (size_t i = 0; i < attempts->tried_count; i++)
        worker_unref(attempts->tried[i]);
}

static void choose(struct request *request, struct attempts *attempts, struct choice *choice) {
    struct policy *policy = gateway_policy(request->gateway);
    policy_choose(policy, ROLE_REGULAR, &request->facts, attempts->tried, attempts->tried_count,
                  false, choice);
    if (choice->worker == NULL &&
        attempts->tried_count > 0) /* nobody else: those that failed again */
        policy_choose(policy, ROLE_REGULAR, &request->facts, NULL, 0, false, choice);
}

/* Picks a worker and takes its guard. A lost race for a half-open circuit counts as tried. */
static bool take_worker(struct request *request, struct attempts *attempts,
                        struct worker_guard *guard) {
    struct choice choice;
    for (int races = 0; races < RACES_MAX; races++) {
        choose(request, attempts, &choice);
        if (choice.worker == NULL)
            return false;
        if (worker_guard_begin(guard, choice.worker, request->facts.tokens))
            return true;
        tried_add(request, attempts, choice.worker);
    }
    return false;
}

/* --- trying --- */

/* A model is named in metrics and logs by the id that a worker has registered, never by what a
 * client wrote. */
static struct str model_name(struct request *request, const struct worker *worker) {
    if (str_eq(request->facts.model, worker->model_id))
        return request->facts.model;
    for (size_t i = 0; i < worker->model_count; i++)
        if (model_card_named(&worker->models[i], request->facts.model))
            return arena_dup(request->arena, worker->models[i].id);
    return STR("unknown");
}

static void attempt_note(struct request *request, const struct worker *worker) {
    request->outcome.attempts++;
    request->outcome.worker = arena_dup(request->arena, worker->url);
    request->outcome.model = model_name(request, worker);
}

static FIBER_FN void attempt_run(struct request *request, struct dispatched *dispatched) {
    struct worker *worker = dispatched->guard.worker;
    attempt_note(request, worker);
    backend_http_regular.start(request, worker, &dispatched->reply);
    count_attempt(request, worker, &dispatched->reply);
    if (dispatched->reply.failure == ATTEMPT_CONNECT)
        fleet_suspect(worker);
}

/* Picks a worker and tries it. False when there was nothing to try; `problem` tells why. */
static FIBER_FN bool attempt(struct request *request, struct dispatched *dispatched,
                             struct attempts *attempts) {
    if (fiber_cancelled(fiber_self())) {
        dispatched->problem = (struct problem){.id = PROBLEM_CLIENT_GONE};
        return false;
    }
    if (!take_worker(request, attempts, &dispatched->guard)) {
        dispatched->problem = (struct problem){.id = PROBLEM_NO_AVAILABLE_WORKERS};
        return false;
    }
    attempt_run(request, dispatched);
    attempts->done++;
    return true;
}

void dispatch_release(struct dispatched *dispatched) {
    dispatched->guard.outcome = dispatch_outcome(dispatched);
    worker_guard_end(&dispatched->guard);
}

void dispatch_end(struct dispatched *dispatched, enum breaker_outcome outcome) {
    if (dispatched->reply.ops != NULL)
        dispatched->reply.ops->finish(&dispatched->reply);
    dispatched->reply.ops = NULL;
    dispatched->guard.outcome = outcome;
    worker_guard_end(&dispatched->guard);
}

/* --- waiting --- */

/* The gateway's options with those of the worker over them. */
struct retry_plan {
    uint32_t attempts;
    double initial_ms, max_ms, multiplier, jitter;
};

static double own_ms(int64_t own, int64_t ours) {
    return (double)(own == FIELD_UNSET ? ours : own);
}
static double own_number(double own, double ours) { return isnan(own) ? ours : own; }

static struct retry_plan retry_plan(const struct gateway_settings *settings,
                                    const struct worker *worker) {
    const struct worker_resilience_spec *own = &worker->spec->resilience;
    int32_t attempts = worker->retry.max_retries;
    return (struct retry_plan){
        .attempts = attempts < 0 ? settings->retry.max_attempts : (uint32_t)attempts,
        .initial_ms = own_ms(own->initial_backoff_ms, settings->retry.initial_ms),
        .max_ms = own_ms(own->max_backoff_ms, settings->retry.max_ms),
        .multiplier = own_number(own->backoff_multiplier, settings->retry.multiplier),
        .jitter = own_number(own->jitter_factor, settings->retry.jitter),
    };
}

/* The wait after attempt number `done` (from 1); the jitter may go over the ceiling. */
static int64_t backoff_ms(const struct retry_plan *plan, uint32_t done) {
    double base = floor(plan->initial_ms * pow(plan->multiplier, done - 1));
    double capped = fmin(base, plan->max_ms);
    double jitter = plan->jitter * (2 * rand_unit() - 1);
    return (int64_t)fmax(0, capped + round(capped * jitter));
}

static bool others_left(struct request *request, const struct attempts *attempts) {
    struct choice choice;
    policy_choose(gateway_policy(request->gateway), ROLE_REGULAR, &request->facts, attempts->tried,
                  attempts->tried_count, true, &choice);
    return choice.worker != NULL;
}

/* A refused connection cost the worker nothing: the first retry goes to another one at once. */
static int64_t wait_ms(struct request *request, const struct attempts *attempts,
                       const struct retry_plan *plan, enum attempt_failure failure) {
    if (attempts->done == 1 && failure == ATTEMPT_CONNECT && others_left(request, attempts))
        return 0;
    return backoff_ms(plan, attempts->done);
}

/* --- the loop --- */

/* The reply of the last attempt is what the client gets. */
static bool settle(struct request *request, struct dispatched *dispatched, bool exhausted) {
    dispatched->answered = dispatched->reply.failure == ATTEMPT_OK;
    dispatched->problem = dispatched->reply.problem;
    dispatched->exhausted = exhausted;
    if (exhausted)
        count_exhausted(request);
    return false;
}

/* After an attempt: gives its worker back and waits when there is to be another one, else
 * settles. */
static FIBER_FN bool again(struct request *request, struct dispatched *dispatched,
                           struct attempts *attempts) {
    struct worker *worker = dispatched->guard.worker;
    if (!retryable(&dispatched->reply))
        return settle(request, dispatched, false);
    struct retry_plan plan = retry_plan(request->settings, worker);
    tried_add(request, attempts, worker);
    int64_t wait = wait_ms(request, attempts, &plan, dispatched->reply.failure);
    if (attempts->done >= plan.attempts || deadline_left(request->deadline) <= wait)
        return settle(request, dispatched, true);
    count_retry(request, attempts->done, wait);
    dispatch_end(dispatched, dispatch_outcome(dispatched));
    if (wait > 0)
        (void)fiber_sleep(wait); /* the next attempt sees when it was cut short */
    return true;
}

FIBER_FN void dispatch_run(struct request *request, struct dispatched *dispatched) {
    struct attempts attempts = {0};
    *dispatched = (struct dispatched){0};
    while (attempt(request, dispatched, &attempts) && again(request, dispatched, &attempts))
        continue;
    tried_free(&attempts);
}
