/* See dispatch.h. */
#include "gateway/dispatch.h"

#include <math.h>

#include "base/rand.h"
#include "fleet/health.h"
#include "gateway/counts.h"
#include "gateway/gateway.h"

#define TRIED_MAX 16

struct attempts {
    struct worker *tried[TRIED_MAX]; /* referenced */
    size_t tried_count;
    uint32_t done;
};

static bool retryable_status(int status) {
    return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

static bool retryable(const struct reply *reply) {
    if (reply->failure == ATTEMPT_OK)
        return retryable_status(reply->status);
    return reply->failure == ATTEMPT_CONNECT || reply->failure == ATTEMPT_BROKEN;
}

static bool listed(const struct worker *worker, int status, bool *has_list) {
    *has_list = worker->retry.failure_statuses != NULL;
    for (size_t i = 0; i < worker->retry.failure_status_count; i++)
        if (worker->retry.failure_statuses[i] == status)
            return true;
    return false;
}

static enum breaker_outcome status_outcome(const struct worker *worker, const struct reply *reply) {
    int status = reply->status;
    bool has_list, in_list = listed(worker, status, &has_list);
    bool patient = headers_get(reply->headers, STR("retry-after")).ptr != NULL;
    bool neutral = status == 408 || status == 429 || (status == 503 && patient);
    bool failure = status == 500 || status == 502 || status == 503 || status == 504;
    if (has_list ? in_list : failure && !neutral)
        return BREAKER_FAILURE;
    return neutral ? BREAKER_NEUTRAL : BREAKER_SUCCESS;
}

enum breaker_outcome dispatch_outcome(const struct worker *worker, const struct reply *reply) {
    switch (reply->failure) {
    case ATTEMPT_OK: return status_outcome(worker, reply);
    case ATTEMPT_CANCELLED:
    case ATTEMPT_NO_PLACE: return BREAKER_NEUTRAL;
    default: return BREAKER_FAILURE;
    }
}

/* --- choosing --- */

static void tried_add(struct attempts *attempts, struct worker *worker) {
    if (attempts->tried_count < TRIED_MAX)
        attempts->tried[attempts->tried_count++] = worker_ref(worker);
}

static void tried_free(struct attempts *attempts) {
    for (size_t i = 0; i < attempts->tried_count; i++)
        worker_unref(attempts->tried[i]);
}

static void choose(struct request *request, struct attempts *attempts, struct choice *choice) {
    struct policy *policy = gateway_policy(request->gateway);
    policy_choose(policy, ROLE_REGULAR, &request->facts, attempts->tried, attempts->tried_count, false,
                  choice);
    if (choice->worker == NULL && attempts->tried_count > 0) /* nobody else: those that failed again */
        policy_choose(policy, ROLE_REGULAR, &request->facts, NULL, 0, false, choice);
}

/* Picks a worker and takes its guard. A lost race for a half-open circuit counts as tried. */
static bool take_worker(struct request *request, struct attempts *attempts, struct worker_guard *guard) {
    struct choice choice;
    for (int races = 0; races < TRIED_MAX; races++) {
        choose(request, attempts, &choice);
        if (choice.worker == NULL)
            return false;
        if (worker_guard_begin(guard, choice.worker, request->facts.tokens))
            return true;
        tried_add(attempts, choice.worker);
    }
    return false;
}

/* --- trying --- */

static void attempt_note(struct request *request, const struct worker *worker) {
    request->outcome.attempts++;
    request->outcome.worker = arena_dup(request->arena, worker->url);
    bool known = str_eq(request->facts.model, worker->model_id);
    request->outcome.model = known ? request->facts.model : STR("unknown");
}

static FIBER_FN void attempt_run(struct request *request, struct dispatched *dispatched) {
    struct worker *worker = dispatched->guard.worker;
    attempt_note(request, worker);
    backend_http_regular.start(request, worker, &dispatched->reply);
    count_attempt(request, worker, &dispatched->reply);
    if (dispatched->reply.failure == ATTEMPT_CONNECT)
        fleet_suspect(worker);
}

void dispatch_end(struct dispatched *dispatched, enum breaker_outcome outcome) {
    if (dispatched->reply.ops != NULL)
        dispatched->reply.ops->finish(&dispatched->reply);
    dispatched->reply.ops = NULL;
    if (dispatched->guard.worker == NULL)
        return;
    dispatched->guard.outcome = outcome;
    worker_guard_end(&dispatched->guard);
    dispatched->guard.worker = NULL;
}

/* --- waiting --- */

static int64_t backoff_ms(const struct gateway_settings *settings, uint32_t done) {
    double base = floor((double)settings->retry.initial_ms * pow(settings->retry.multiplier, done - 1));
    double capped = fmin(base, (double)settings->retry.max_ms);
    double jitter = settings->retry.jitter * (2 * rand_unit() - 1);
    return (int64_t)fmax(0, capped + round(capped * jitter));
}

static bool others_left(struct request *request, const struct attempts *attempts) {
    struct choice choice;
    policy_choose(gateway_policy(request->gateway), ROLE_REGULAR, &request->facts, attempts->tried,
                  attempts->tried_count, true, &choice);
    return choice.worker != NULL;
}

/* A refused connection cost the worker nothing: the first retry goes to another one at once. */
static FIBER_FN bool back_off(struct request *request, const struct attempts *attempts,
                              enum attempt_failure failure) {
    int64_t wait = backoff_ms(request->settings, attempts->done);
    if (attempts->done == 1 && failure == ATTEMPT_CONNECT && others_left(request, attempts))
        wait = 0;
    count_retry(request, attempts->done, wait);
    if (deadline_left(request->deadline) <= wait)
        return false;
    return wait == 0 || fiber_sleep(wait) == 0;
}

/* --- the loop --- */

static void settle(struct request *request, struct dispatched *dispatched, bool again) {
    const struct reply *reply = &dispatched->reply;
    dispatched->answered = reply->failure == ATTEMPT_OK;
    dispatched->exhausted = again && request->settings->retry.max_attempts > 1;
    dispatched->problem = reply->problem;
    if (dispatched->exhausted)
        count_exhausted(request);
}

static FIBER_FN void dispatch_loop(struct request *request, struct dispatched *dispatched,
                                   struct attempts *attempts) {
    for (;;) {
        if (!take_worker(request, attempts, &dispatched->guard)) {
            dispatched->problem = (struct problem){.id = PROBLEM_NO_AVAILABLE_WORKERS};
            return;
        }
        attempt_run(request, dispatched);
        attempts->done++;
        bool again = retryable(&dispatched->reply);
        if (!again || attempts->done >= request->settings->retry.max_attempts ||
            deadline_left(request->deadline) == 0) {
            settle(request, dispatched, again);
            return;
        }
        struct worker *worker = dispatched->guard.worker;
        enum attempt_failure failure = dispatched->reply.failure;
        struct problem problem = dispatched->reply.problem;
        tried_add(attempts, worker);
        dispatch_end(dispatched, dispatch_outcome(worker, &dispatched->reply));
        if (!back_off(request, attempts, failure)) {
            dispatched->problem = problem.id ? problem : (struct problem){.id = PROBLEM_UPSTREAM_TIMEOUT};
            return;
        }
    }
}

FIBER_FN void dispatch_run(struct request *request, struct dispatched *dispatched) {
    struct attempts attempts = {0};
    *dispatched = (struct dispatched){0};
    dispatch_loop(request, dispatched, &attempts);
    tried_free(&attempts);
}
