/* What the request path is told by the options: plain values, already checked and in the unit that
 * the name says. Filled by app/ before anything starts and immutable afterwards; the strings belong
 * to app/ and outlive the gateway. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/optparse.h"
#include "observe/metrics.h"

struct gateway_settings {
    const char *host; /* address or name, IPv6 without brackets */
    uint16_t port;
    uint16_t health_check_port;         /* 0 = no listener of its own */
    unsigned runtime_threads;           /* data loops, >= 1 */
    const char *api_key;                /* clients' key for DATA (and admin) routes; NULL = open */
    const char *policy;                 /* name as given; what serves it is the fleet's choice */
    struct opt_list cors_origins;       /* empty = any */
    struct opt_list request_id_headers; /* order = priority; lower case */

    struct {
        uint32_t max_attempts; /* the first one included; >= 1; 1 when retries are off */
        bool disabled;         /* as given: max_attempts is 1 already */
        int64_t initial_ms, max_ms;
        double multiplier, jitter;
    } retry;
    int64_t request_timeout_ms;     /* whole client request, stream included */
    int64_t first_byte_timeout_ms;  /* 0 = none */
    int64_t stream_idle_timeout_ms; /* 0 = none */
    int64_t connect_timeout_ms;
    int64_t overload_retry_after_s;

    struct {
        uint64_t max_body;        /* --max-payload-size */
        uint64_t max_connections; /* clients; 0 = by the descriptor limit */
        size_t max_header_bytes, max_headers;
        size_t max_request_line;         /* 8192 */
        int64_t header_timeout_ms;       /* first byte to end of head */
        int64_t idle_timeout_ms;         /* keep-alive */
        int64_t body_idle_timeout_ms;    /* 30,000 */
        size_t upstream_idle_per_worker; /* per loop and worker */
        size_t upstream_idle_total;      /* 4,096 */
        uint64_t max_upstream;           /* upstream connections; 0 = by the descriptor limit */
        uint64_t memory_bytes;           /* quota of the process, body budget; 0 = off */
    } limits;

    struct {
        const char *host; /* address; IPv6 without brackets */
        uint16_t port;
        enum metrics_naming naming;
        struct opt_floats buckets; /* empty = built-in */
    } metrics;

    int64_t shutdown_grace_ms;
    int64_t shutdown_settle_ms; /* at most half the grace period; SIGINT: none, see the spec */
};
