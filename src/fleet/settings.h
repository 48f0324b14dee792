/* What the fleet is told by the options; plain values, defaults of the seed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "fleet/breaker.h"

struct fleet_settings {
    const char **worker_urls; /* NULL-terminated or `worker_url_count` long */
    size_t worker_url_count;
    const char *api_key; /* inherited by workers of the command line */
    int64_t startup_timeout_s, startup_check_interval_s, startup_delay_s;
    struct {
        int failure_threshold, success_threshold;
        int64_t timeout_s, interval_s;
        const char *endpoint;
        bool disabled, remove_unhealthy;
    } health;
    int64_t drain_settle_s;
    struct breaker_options breaker;
    bool cb_fail_open;
    const char *policy; /* name as given */
    size_t upstream_idle_per_worker;
    int64_t upstream_idle_ms; /* 4,000 */
    int64_t connect_timeout_s;
    int64_t request_timeout_s;
    const char **worker_url_allow;
    size_t worker_url_allow_count;
    bool strict_urls, allow_link_local;
};
