/* One worker: who it is (immutable), how it is (atomics that every loop reads and counts on).
 *
 * Identity never changes in place: an update makes a new worker object (worker_build.h) that
 * shares the run-time block (status, load, breaker) of the old one. Counted; the fleet snapshot
 * holds one reference, each request in flight another. */
#pragma once

#include "base/metric.h"
#include "base/str.h"
#include "fleet/breaker.h"
#include "proto/http_client.h"

enum worker_role { ROLE_REGULAR, ROLE_PREFILL, ROLE_DECODE, ROLE_ENCODE, ROLE_COUNT };
enum worker_status {
    WORKER_PENDING,
    WORKER_READY,
    WORKER_NOT_READY,
    WORKER_FAILED,
    WORKER_DRAINING
};
enum worker_mode { MODE_HTTP, MODE_GRPC };
/* Policies that may be in use at once (the rows of policy.c). */
#define POLICY_SLOTS 10

const char *worker_role_name(enum worker_role role);
const char *worker_status_name(enum worker_status status);
const char *worker_mode_name(enum worker_mode mode);

/* What all versions of one worker share; counted by itself. What selection reads and what each
 * request writes are kept a cache line apart. */
struct worker_run {
    _Atomic int status; /* enum worker_status; written by the control loop */
    _Atomic uint32_t refs;
    _Atomic uint64_t revision; /* of the version that is registered */
    struct breaker breaker;
    char *url; /* label text, owned */
    char pad[64];
    _Atomic int64_t load;         /* requests in flight; counted at selection */
    _Atomic int64_t tokens;       /* estimated tokens in flight */
    _Atomic uint64_t processed;   /* selections */
    _Atomic int64_t last_byte_ms; /* monotonic; a worker that streams bytes is alive */
    _Atomic int64_t suspected_ms; /* monotonic; the last probe asked for by fleet_suspect */
    struct {
        /* running: sgl_router_running_requests, sgl_router_worker_load,
         * smg_worker_requests_active */
        metric_ref running[3];
        metric_ref processed, health[2];
    } metrics;
};

struct model_card;
struct worker_spec;
struct discovery;

struct worker_label {
    struct str key, value;
};

struct worker {
    _Atomic uint32_t refs;
    char id[37]; /* UUIDv7, reserved per URL */
    uint64_t revision;
    struct str url;       /* as registered, without trailing '/'; with @rank for DP */
    struct str host;      /* of the URL, without brackets */
    struct str base_path; /* of the URL: put before each route ("" mostly) */
    struct http_peer *peer;
    enum worker_role role;
    enum worker_mode mode;
    struct str api_key;          /* never shown */
    struct str auth_line;        /* "Authorization: Bearer KEY\r\n" or empty */
    struct str model_id;         /* primary, "unknown" when unknown */
    struct str runtime;          /* "sglang", "vllm", ... */
    struct worker_label *labels; /* asked for and discovered; the former win */
    size_t label_count;
    const struct model_card *models; /* what it serves; none: anything (model_card.h) */
    size_t model_count;
    uint32_t index;         /* small number, unique among registered workers, kept by all versions
                                      of one and used again after its removal */
    int32_t bootstrap_port; /* 0: none */
    int64_t request_timeout_ms; /* http_pool.timeout_secs; < 0: the gateway's value */
    struct worker_run *run;
    const struct worker_spec *spec; /* everything else that was asked for (worker_spec.h) */
    const struct discovery *found;  /* what the worker said of itself (discover.h) */
    struct worker_retry {           /* per-worker resilience; < 0: the gateway's value */
        int32_t max_retries;
        const uint16_t
            *failure_statuses; /* replaces the breaker's failure statuses; NULL: default */
        size_t failure_status_count;
    } retry;
    struct {
        metric_ref pool_size;
        metric_ref decisions[POLICY_SLOTS], selection[POLICY_SLOTS]; /* of policies in use */
    } metrics;
    struct arena *arena; /* owns all of the above */
};

struct worker *worker_ref(struct worker *worker);
/* The last one frees it; any thread. NULL is allowed. */
void worker_unref(struct worker *worker);
/* Ready and its circuit lets requests through. */
bool worker_available(const struct worker *worker, int64_t now_ms);
static inline enum worker_status worker_status(const struct worker *worker) {
    return (enum worker_status)atomic_load_explicit(&worker->run->status, memory_order_relaxed);
}
static inline int64_t worker_load(const struct worker *worker) {
    return atomic_load_explicit(&worker->run->load, memory_order_relaxed);
}
/* Says that the worker has just sent bytes: a health probe that times out then is excused. Any
 * loop. */
static inline void worker_heard(struct worker *worker, int64_t now_ms) {
    atomic_store_explicit(&worker->run->last_byte_ms, now_ms, memory_order_relaxed);
}
/* Value of a label; ptr NULL when there is none. */
struct str worker_label(const struct worker *worker, const char *key);
/* Does it serve this model (by id or alias)? A worker of unknown models serves any. */
bool worker_serves(const struct worker *worker, struct str model);

/* The run-time block: made with one reference and status pending, its series and its breaker. */
struct worker_run *worker_run_new(struct str url, const struct breaker_options *options);
struct worker_run *worker_run_ref(struct worker_run *run);
void worker_run_unref(struct worker_run *run);

/* With --cb-fail-open a guard is given although the circuit is open (policy.c only offers such a
 * worker when all circuits are). Set once at start. */
void worker_fail_open(bool on);
bool worker_fails_open(void);

/* The load guard: counts a dispatched request from selection to its last byte. Takes a reference
 * and a breaker place; worker_guard_end gives all back and records the outcome, once. */
struct worker_guard {
    struct worker *worker;
    int64_t tokens;
    enum breaker_outcome outcome; /* set before the end; BREAKER_NEUTRAL by default */
    uint32_t ticket;              /* the breaker's; 0: let in although the circuit is open */
};
/* False (and nothing taken) when the breaker's place could not be had. */
bool worker_guard_begin(struct worker_guard *guard, struct worker *worker, int64_t tokens);
/* Harmless when repeated or when begin failed. Any loop. */
void worker_guard_end(struct worker_guard *guard);
