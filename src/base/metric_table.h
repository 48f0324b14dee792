/* The metric table: one row a family, and nothing about metrics is said anywhere else. From it come
 * the ids, the registry, the text exposition and the reference page.
 *
 * X(id, exposed name, type, generation, help, label names...), at most METRIC_MAX_LABELS labels.
 * type: COUNTER, GAUGE, or a histogram by its bounds: D20, D29 (duration sets of the two metric
 * generations), OVERHEAD (sub-millisecond). generation: LEGACY (sgl_router_*), LAYERED (smg_*),
 * OURS (shown under every naming). Ids: sgl_router_x -> SGL_X, smg_x -> SMG_X, others as the name.
 * Labels hold bounded sets only: route templates, table codes, registered workers and models. */
#pragma once

#include <stddef.h>

#define METRIC_MAX_LABELS 7
/* Live series a family may have; past it metric_series returns 0 and the refusal is counted. */
#define METRIC_MAX_SERIES 65536

/* clang-format off */
#define METRIC_TABLE_LEGACY(X)                                                                     \
    X(SGL_REQUESTS_TOTAL, "sgl_router_requests_total", COUNTER, LEGACY,                            \
      "Inference requests routed, whatever their outcome, counted at their end.",                  \
      "route", "endpoint", "method")                                                               \
    X(SGL_REQUEST_DURATION_SECONDS, "sgl_router_request_duration_seconds", D20, LEGACY,            \
      "Time from the request to the end of its answer, any status.", "route")                      \
    X(SGL_REQUEST_ERRORS_TOTAL, "sgl_router_request_errors_total", COUNTER, LEGACY,                \
      "Inference requests that failed for good, once each.", "route", "error_type")                \
    X(SGL_RETRIES_TOTAL, "sgl_router_retries_total", COUNTER, LEGACY,                              \
      "Attempts repeated after a retryable failure.", "route")                                     \
    X(SGL_RETRY_BACKOFF_DURATION_SECONDS, "sgl_router_retry_backoff_duration_seconds", D20,        \
      LEGACY, "Pause chosen before a repeated attempt.", "attempt")                                \
    X(SGL_RETRIES_EXHAUSTED_TOTAL, "sgl_router_retries_exhausted_total", COUNTER, LEGACY,          \
      "Requests whose last permitted attempt still failed retryably.", "route")                    \
    X(SGL_CB_STATE, "sgl_router_cb_state", GAUGE, LEGACY,                                          \
      "Circuit breaker of a worker: 0 closed, 1 open, 2 half open.", "worker")                     \
    X(SGL_CB_STATE_TRANSITIONS_TOTAL, "sgl_router_cb_state_transitions_total", COUNTER, LEGACY,    \
      "Changes of a worker's circuit breaker state.", "worker", "from", "to")                      \
    X(SGL_CB_OUTCOMES_TOTAL, "sgl_router_cb_outcomes_total", COUNTER, LEGACY,                      \
      "Outcomes reported to a worker's circuit breaker.", "worker", "outcome")                     \
    X(SGL_ACTIVE_WORKERS, "sgl_router_active_workers", GAUGE, LEGACY,                              \
      "Workers that are ready to take requests.")                                                  \
    X(SGL_WORKER_HEALTH, "sgl_router_worker_health", GAUGE, LEGACY,                                \
      "1 while the worker is ready, else 0.", "worker")                                            \
    X(SGL_WORKER_LOAD, "sgl_router_worker_load", GAUGE, LEGACY,                                    \
      "Load of the worker as the balancing sees it.", "worker")                                    \
    X(SGL_PROCESSED_REQUESTS_TOTAL, "sgl_router_processed_requests_total", COUNTER, LEGACY,        \
      "Times a policy chose this worker.", "worker")                                               \
    X(SGL_POLICY_DECISIONS_TOTAL, "sgl_router_policy_decisions_total", COUNTER, LEGACY,            \
      "Choices made by a policy, by the worker chosen.", "policy", "worker")                       \
    X(SGL_RUNNING_REQUESTS, "sgl_router_running_requests", GAUGE, LEGACY,                          \
      "Requests in progress on the worker.", "worker")                                             \
    X(SGL_GENERATE_DURATION_SECONDS, "sgl_router_generate_duration_seconds", D20, LEGACY,          \
      "Time from the request to a successful response head, retries included.")

#define METRIC_TABLE_HTTP(X)                                                                       \
    X(SMG_HTTP_REQUESTS_TOTAL, "smg_http_requests_total", COUNTER, LAYERED,                        \
      "Requests whose head was parsed and routed.", "method", "path")                              \
    X(SMG_HTTP_REQUEST_DURATION_SECONDS, "smg_http_request_duration_seconds", D29, LAYERED,        \
      "Time from the request to the head of its response; a stream lasts longer.",                 \
      "method", "path")                                                                            \
    X(SMG_HTTP_RESPONSES_TOTAL, "smg_http_responses_total", COUNTER, LAYERED,                      \
      "Responses whose head was sent.", "path", "status_code", "error_code")                       \
    X(SMG_HTTP_CONNECTIONS_ACTIVE, "smg_http_connections_active", GAUGE, LAYERED,                  \
      "Requests in flight, until their last byte is sent or the client is gone.")                  \
    X(SMG_HTTP_INFLIGHT_REQUEST_AGE_COUNT, "smg_http_inflight_request_age_count", GAUGE, LAYERED,  \
      "Requests in flight by age in seconds; each is in one bucket, sampled.", "gt", "le")

#define METRIC_TABLE_ROUTER(X)                                                                     \
    X(SMG_ROUTER_REQUESTS_TOTAL, "smg_router_requests_total", COUNTER, LAYERED,                    \
      "Client requests that reached routing, before the first attempt.",                           \
      "router_type", "backend_type", "connection_mode", "model", "endpoint", "streaming")          \
    X(SMG_ROUTER_REQUEST_DURATION_SECONDS, "smg_router_request_duration_seconds", D29, LAYERED,    \
      "Time to a successful response head, retries included; failures are not timed.",             \
      "router_type", "backend_type", "connection_mode", "model", "endpoint")                       \
    X(SMG_ROUTER_REQUEST_ERRORS_TOTAL, "smg_router_request_errors_total", COUNTER, LAYERED,        \
      "Client requests that ended without success.",                                               \
      "router_type", "backend_type", "connection_mode", "model", "endpoint", "error_type")         \
    X(SMG_ROUTER_UPSTREAM_RESPONSES_TOTAL, "smg_router_upstream_responses_total", COUNTER,         \
      LAYERED, "Results of single attempts, transport failures included.",                         \
      "router_type", "status_code", "error_code")                                                  \
    X(SMG_ROUTER_TTFT_SECONDS, "smg_router_ttft_seconds", D29, LAYERED,                            \
      "Time from dispatch to the first piece of a streamed answer.",                               \
      "router_type", "backend_type", "model", "endpoint")                                          \
    X(SMG_ROUTER_GENERATION_DURATION_SECONDS, "smg_router_generation_duration_seconds", D29,       \
      LAYERED, "Time from dispatch to the last piece of the answer.",                              \
      "router_type", "backend_type", "model", "endpoint")

#define METRIC_TABLE_WORKER(X)                                                                     \
    X(SMG_WORKER_POOL_SIZE, "smg_worker_pool_size", GAUGE, LAYERED,                                \
      "Registered workers.", "worker_type", "connection_mode", "model")                            \
    X(SMG_WORKER_CONNECTIONS_ACTIVE, "smg_worker_connections_active", GAUGE, LAYERED,              \
      "Open connections to workers.", "worker_type", "connection_mode")                            \
    X(SMG_WORKER_REQUESTS_ACTIVE, "smg_worker_requests_active", GAUGE, LAYERED,                    \
      "Requests in progress on the worker.", "worker")                                             \
    X(SMG_WORKER_HEALTH, "smg_worker_health", GAUGE, LAYERED,                                      \
      "1 while the worker is ready, else 0.", "worker")                                            \
    X(SMG_WORKER_HEALTH_CHECKS_TOTAL, "smg_worker_health_checks_total", COUNTER, LAYERED,          \
      "Health probes sent.", "worker_type", "result")                                              \
    X(SMG_WORKER_SELECTION_TOTAL, "smg_worker_selection_total", COUNTER, LAYERED,                  \
      "Workers chosen, once an attempt.",                                                          \
      "worker_type", "connection_mode", "model", "policy")                                         \
    X(SMG_WORKER_ERRORS_TOTAL, "smg_worker_errors_total", COUNTER, LAYERED,                        \
      "Attempts that a worker failed with 5xx or in transport.",                                   \
      "worker_type", "connection_mode", "error_type")                                              \
    X(SMG_WORKER_CB_STATE, "smg_worker_cb_state", GAUGE, LAYERED,                                  \
      "Circuit breaker of a worker: 0 closed, 1 open, 2 half open.", "worker")                     \
    X(SMG_WORKER_CB_TRANSITIONS_TOTAL, "smg_worker_cb_transitions_total", COUNTER, LAYERED,        \
      "Changes of a worker's circuit breaker state.", "worker", "from", "to")                      \
    X(SMG_WORKER_CB_OUTCOMES_TOTAL, "smg_worker_cb_outcomes_total", COUNTER, LAYERED,              \
      "Outcomes reported to a worker's circuit breaker.", "worker", "outcome")                     \
    X(SMG_WORKER_CB_CONSECUTIVE_FAILURES, "smg_worker_cb_consecutive_failures", GAUGE, LAYERED,    \
      "Failures in a row that the breaker has seen.", "worker")                                    \
    X(SMG_WORKER_CB_CONSECUTIVE_SUCCESSES, "smg_worker_cb_consecutive_successes", GAUGE, LAYERED,  \
      "Successes in a row that the breaker has seen.", "worker")                                   \
    X(SMG_WORKER_RETRIES_TOTAL, "smg_worker_retries_total", COUNTER, LAYERED,                      \
      "Attempts repeated after a retryable failure.", "worker_type", "endpoint")                   \
    X(SMG_WORKER_RETRIES_EXHAUSTED_TOTAL, "smg_worker_retries_exhausted_total", COUNTER, LAYERED,  \
      "Requests whose last permitted attempt still failed retryably.", "worker_type", "endpoint")  \
    X(SMG_WORKER_RETRY_BACKOFF_SECONDS, "smg_worker_retry_backoff_seconds", D29, LAYERED,          \
      "Pause chosen before a repeated attempt.", "attempt")                                        \
    X(SMG_TOKIO_EVENT_LOOP_STALLS_TOTAL, "smg_tokio_event_loop_stalls_total", COUNTER, LAYERED,    \
      "Stalls of all event loops; sluice_loop_stalls_total has them by loop.")

#define METRIC_TABLE_OURS(X)                                                                       \
    X(SLUICE_OVERHEAD_SECONDS, "sluice_overhead_seconds", OVERHEAD, OURS,                          \
      "Time from the complete request to its being written to a worker.", "router_type")           \
    X(SLUICE_JOBS, "sluice_jobs", GAUGE, OURS,                                                     \
      "Worker jobs waiting and at work.", "state")                                                 \
    X(SLUICE_JOB_OLDEST_AGE_SECONDS, "sluice_job_oldest_age_seconds", GAUGE, OURS,                 \
      "Age of the oldest job that has not ended, 0 when there is none.")                           \
    X(SLUICE_JOBS_TOTAL, "sluice_jobs_total", COUNTER, OURS,                                       \
      "Worker jobs that ended.", "kind", "result")                                                 \
    X(SLUICE_JOB_DURATION_SECONDS, "sluice_job_duration_seconds", D29, OURS,                       \
      "Time from the submission of a job to its end.", "kind")                                     \
    X(SLUICE_ACCEPT_PAUSED, "sluice_accept_paused", GAUGE, OURS,                                   \
      "1 while no new connections are accepted because a limit is reached.")                       \
    X(SLUICE_ACCEPT_PAUSES_TOTAL, "sluice_accept_pauses_total", COUNTER, OURS,                     \
      "Times that accepting was paused.")                                                          \
    X(SLUICE_CONFIG_VERSION, "sluice_config_version", GAUGE, OURS,                                 \
      "Version of the configuration in force.")                                                    \
    X(SLUICE_BUILD_INFO, "sluice_build_info", GAUGE, OURS,                                         \
      "Always 1; the labels name the build.", "version", "commit")                                 \
    X(SLUICE_LOG_DROPPED_TOTAL, "sluice_log_dropped_total", COUNTER, OURS,                         \
      "Log lines lost because the queue to the writer was full.")                                  \
    X(SLUICE_METRIC_SERIES_REFUSED_TOTAL, "sluice_metric_series_refused_total", COUNTER, OURS,     \
      "Series not made because their family was full.", "family")                                  \
    X(SLUICE_LOOP_FIBERS, "sluice_loop_fibers", GAUGE, OURS,                                       \
      "Fibers alive on the loop.", "thread")                                                       \
    X(SLUICE_LOOP_TURNS_TOTAL, "sluice_loop_turns_total", COUNTER, OURS,                           \
      "Turns of the event loop.", "thread")                                                        \
    X(SLUICE_LOOP_STALLS_TOTAL, "sluice_loop_stalls_total", COUNTER, OURS,                         \
      "Times that the loop's watchdog found it stuck.", "thread")                                  \
    X(SLUICE_LOOP_STACK_HIGH_WATER_BYTES, "sluice_loop_stack_high_water_bytes", GAUGE, OURS,       \
      "Deepest use of a fiber stack seen on the loop.", "thread")                                  \
    X(PROCESS_RESIDENT_MEMORY_BYTES, "process_resident_memory_bytes", GAUGE, OURS,                 \
      "Resident memory of the process.")                                                           \
    X(PROCESS_VIRTUAL_MEMORY_BYTES, "process_virtual_memory_bytes", GAUGE, OURS,                   \
      "Address space of the process.")                                                             \
    X(PROCESS_OPEN_FDS, "process_open_fds", GAUGE, OURS,                                           \
      "Descriptors that the process has open.")                                                    \
    X(PROCESS_MAX_FDS, "process_max_fds", GAUGE, OURS,                                             \
      "Descriptors that the process may open.")                                                    \
    X(PROCESS_CPU_SECONDS_TOTAL, "process_cpu_seconds_total", COUNTER, OURS,                       \
      "CPU time of the process, user and system.")                                                 \
    X(PROCESS_START_TIME_SECONDS, "process_start_time_seconds", GAUGE, OURS,                       \
      "When the process started, in seconds since 1970.")
/* clang-format on */

#define METRIC_TABLE(X)                                                                            \
    METRIC_TABLE_LEGACY(X)                                                                         \
    METRIC_TABLE_HTTP(X)                                                                           \
    METRIC_TABLE_ROUTER(X)                                                                         \
    METRIC_TABLE_WORKER(X)                                                                         \
    METRIC_TABLE_OURS(X)

enum metric_id {
#define METRIC_ENUM(id, ...) METRIC_##id,
    METRIC_TABLE(METRIC_ENUM)
#undef METRIC_ENUM
        METRIC_FAMILY_COUNT
};

/* From METRIC_TYPE_D20 on: histograms. */
enum metric_type {
    METRIC_TYPE_COUNTER,
    METRIC_TYPE_GAUGE,
    METRIC_TYPE_D20,
    METRIC_TYPE_D29,
    METRIC_TYPE_OVERHEAD,
    METRIC_TYPE_COUNT
};

enum metric_generation { METRIC_LEGACY, METRIC_LAYERED, METRIC_OURS };

struct metric_family {
    const char *name, *help;
    enum metric_type type;
    enum metric_generation generation;
    size_t label_count;
    const char *labels[METRIC_MAX_LABELS];
};
/* Rows by id; constant. */
extern const struct metric_family metric_families[METRIC_FAMILY_COUNT];
