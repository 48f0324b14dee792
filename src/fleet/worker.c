/* References, the run-time block and the load guard. The gauges of load are not touched per
 * request: they are set from the counters when somebody scrapes (fleet.c). */
#include "fleet/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/panic.h"
#include "fleet/model_card.h"

static const char *const role_names[ROLE_COUNT] = {"regular", "prefill", "decode", "encode"};
static const char *const status_names[] = {"pending", "ready", "not_ready", "failed", "draining"};
static const char *const mode_names[] = {"http", "grpc"};

static _Atomic bool fail_open;

const char *worker_role_name(enum worker_role role) { return role_names[role]; }
const char *worker_status_name(enum worker_status status) { return status_names[status]; }
const char *worker_mode_name(enum worker_mode mode) { return mode_names[mode]; }

void worker_fail_open(bool on) { atomic_store(&fail_open, on); }
bool worker_fails_open(void) { return atomic_load_explicit(&fail_open, memory_order_relaxed); }

/* --- references ------------------------------------------------------------------------------ */

static void take(_Atomic uint32_t *refs) {
    uint32_t before = atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
    assert_always(before > 0 && before < UINT32_MAX);
}

/* True for the last one. */
static bool give(_Atomic uint32_t *refs) {
    uint32_t before = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
    assert_always(before > 0);
    return before == 1;
}

struct worker *worker_ref(struct worker *worker) {
    take(&worker->refs);
    return worker;
}

static void drop_metrics(struct worker *worker) {
    metric_drop(worker->metrics.pool_size);
    for (int i = 0; i < POLICY_SLOTS; i++) {
        metric_drop(worker->metrics.decisions[i]);
        metric_drop(worker->metrics.selection[i]);
    }
}

void worker_unref(struct worker *worker) {
    if (worker == NULL || !give(&worker->refs))
        return;
    drop_metrics(worker);
    http_peer_unref(worker->peer);
    worker_run_unref(worker->run);
    arena_free(worker->arena); /* the worker lies in it */
}

/* --- the run-time block ---------------------------------------------------------------------- */

struct worker_run *worker_run_new(struct str url, const struct breaker_options *options) {
    struct worker_run *run = mem_zalloc(sizeof *run);
    atomic_store(&run->refs, 1);
    atomic_store(&run->status, WORKER_PENDING);
    atomic_store(&run->last_byte_ms, INT64_MIN / 2);
    atomic_store(&run->suspected_ms, INT64_MIN / 2);
    run->url = str_dup(url);
    breaker_init(&run->breaker, options, run->url);
    run->metrics.running[0] = metric_ref_of(METRIC_SGL_RUNNING_REQUESTS, run->url);
    run->metrics.running[1] = metric_ref_of(METRIC_SGL_WORKER_LOAD, run->url);
    run->metrics.running[2] = metric_ref_of(METRIC_SMG_WORKER_REQUESTS_ACTIVE, run->url);
    run->metrics.processed = metric_ref_of(METRIC_SGL_PROCESSED_REQUESTS_TOTAL, run->url);
    run->metrics.health[0] = metric_ref_of(METRIC_SGL_WORKER_HEALTH, run->url);
    run->metrics.health[1] = metric_ref_of(METRIC_SMG_WORKER_HEALTH, run->url);
    return run;
}

struct worker_run *worker_run_ref(struct worker_run *run) {
    take(&run->refs);
    return run;
}

void worker_run_unref(struct worker_run *run) {
    if (!give(&run->refs))
        return;
    breaker_end(&run->breaker);
    for (int i = 0; i < 3; i++)
        metric_drop(run->metrics.running[i]);
    metric_drop(run->metrics.processed);
    metric_drop(run->metrics.health[0]);
    metric_drop(run->metrics.health[1]);
    mem_free(run->url);
    mem_free(run);
}

/* --- questions ------------------------------------------------------------------------------- */

bool worker_available(const struct worker *worker, int64_t now_ms) {
    return worker_status(worker) == WORKER_READY && breaker_allows(&worker->run->breaker, now_ms);
}

struct str worker_label(const struct worker *worker, const char *key) {
    struct str wanted = str_from(key);
    for (size_t i = 0; i < worker->label_count; i++) {
        if (str_eq(worker->labels[i].key, wanted))
            return worker->labels[i].value;
    }
    return STR_NONE;
}

bool worker_serves(const struct worker *worker, struct str model) {
    for (size_t i = 0; i < worker->model_count; i++) {
        if (model_card_named(&worker->models[i], model))
            return true;
    }
    return worker->model_count == 0;
}

/* --- the load guard -------------------------------------------------------------------------- */

bool worker_guard_begin(struct worker_guard *guard, struct worker *worker, int64_t tokens) {
    struct worker_run *run = worker->run;
    *guard = (struct worker_guard){.outcome = BREAKER_NEUTRAL};
    uint32_t ticket = breaker_enter(&run->breaker, loop_now_ms());
    if (ticket == 0 && !worker_fails_open())
        return false;
    atomic_fetch_add_explicit(&run->load, 1, memory_order_relaxed);
    if (tokens != 0)
        atomic_fetch_add_explicit(&run->tokens, tokens, memory_order_relaxed);
    guard->worker = worker_ref(worker);
    guard->tokens = tokens;
    guard->ticket = ticket;
    return true;
}

void worker_guard_end(struct worker_guard *guard) {
    struct worker *worker = guard->worker;
    if (worker == NULL)
        return;
    guard->worker = NULL;
    struct worker_run *run = worker->run;
    int64_t before = atomic_fetch_sub_explicit(&run->load, 1, memory_order_relaxed);
    assert_always(before > 0);
    if (guard->tokens != 0)
        atomic_fetch_sub_explicit(&run->tokens, guard->tokens, memory_order_relaxed);
    breaker_record(&run->breaker, guard->ticket, guard->outcome, loop_now_ms());
    worker_unref(worker);
}
