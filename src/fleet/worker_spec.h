/* What was asked for when a worker was added (spec 02 section 1.2, 01 section 3.1): the JSON of
 * POST, PUT and PATCH /workers in both generations of field names, checked. What the worker
 * itself reported is not in here (discover.h), so that an update or a new discovery never takes
 * one for the other. Nothing parks. */
#pragma once

#include "fleet/model_card.h"
#include "fleet/settings.h"
#include "fleet/worker.h"

/* Longest body taken. */
#define WORKER_SPEC_MAX ((size_t)1 << 20)
#define WORKER_PRIORITY 50
#define WORKER_COST 1.0
#define WORKER_CONNECTION_ATTEMPTS 20

struct worker_health_spec {
    int64_t timeout_secs, check_interval_secs, success_threshold, failure_threshold,
        drain_settle_secs;
    int disable_health_check;
};
struct worker_pool_spec {
    int64_t pool_max_idle_per_host, pool_idle_timeout_secs, timeout_secs, connect_timeout_secs;
};
struct worker_resilience_spec {
    int64_t max_retries, initial_backoff_ms, max_backoff_ms;
    double backoff_multiplier, jitter_factor;
    int disable_retry;
    int64_t cb_failure_threshold, cb_success_threshold, cb_timeout_secs, cb_window_secs;
    int disable_circuit_breaker;
    uint16_t *retryable_status_codes; /* NULL: not given */
    size_t retryable_status_code_count;
};

/* Unset fields as fields.h says. */
struct worker_spec {
    struct str url; /* without trailing '/' */
    enum worker_role role;
    struct str runtime; /* static text; empty: to be detected */
    struct str provider, api_key;
    int64_t priority, bootstrap_port, max_connection_attempts, load_monitor_interval_secs;
    double cost;
    int64_t dp_size, kv_block_size, multimodal_shm_min_bytes;
    struct str kv_connector, kv_role, kv_engine_id, multimodal_tensor_transport,
        zmq_handshake_address;
    struct worker_label *labels; /* keys are unique */
    size_t label_count;
    struct model_card *models;
    size_t model_count;
    struct model_card flat; /* model_id, parsers and template of the flat generation */
    struct worker_health_spec health;
    struct worker_pool_spec pool;
    struct worker_resilience_spec resilience;
};

struct spec_fault {
    enum {
        SPEC_BAD_JSON,  /* no JSON, or no object */
        SPEC_BAD_FIELD, /* a field is missing, of a wrong type or out of range */
        SPEC_BAD_URL,   /* the URL is refused, or a kind of worker that comes later */
    } kind;
    struct str message; /* names the field and the limit; never quotes a key */
};

/* A specification of nothing but a URL (shared, not copied) and defaults. */
void worker_spec_init(struct worker_spec *spec, struct str url);
/* Reads a body with `url` (POST, PUT). Texts live in `arena`. 0, or -EINVAL with *fault. */
int worker_spec_read(struct arena *arena, struct str body, struct worker_spec *out,
                     struct spec_fault *fault) MUST_CHECK;
/* Reads an update (PATCH: priority, cost, labels, api_key, health) on top of `old`: copy, then
 * modify. All of *out lives in `arena`. 0, or -EINVAL with *fault. */
int worker_spec_patch(struct arena *arena, const struct worker_spec *old, struct str body,
                      struct worker_spec *out, struct spec_fault *fault) MUST_CHECK;
/* True when the body is an object with a member `url`. */
bool worker_spec_has_url(struct arena *arena, struct str body);
/* A deep copy. */
void worker_spec_copy(struct arena *arena, const struct worker_spec *from, struct worker_spec *to);
/* A key that may stand in an Authorization header. */
bool worker_key_ok(struct str key);
/* Members of WorkerInfo that come straight from here; into an open object. */
void worker_spec_write(struct json_writer *writer, const struct worker_spec *spec);
/* Copies a label list. */
struct worker_label *worker_labels_copy(struct arena *arena, const struct worker_label *labels,
                                        size_t count);

/* What holds for this worker: its own values, else the gateway's. */
struct breaker_options worker_spec_breaker(const struct worker_spec *spec,
                                           const struct fleet_settings *settings);
int64_t worker_spec_drain_ms(const struct worker_spec *spec, const struct fleet_settings *settings);
bool worker_spec_unprobed(const struct worker_spec *spec, const struct fleet_settings *settings);
