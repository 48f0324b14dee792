/* The state machine of health checks (spec 02 section 4.6), pure: probe results in, status out.
 * Who probes and when is health.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fleet/worker.h"

struct health_limits {
    uint32_t failure_threshold, success_threshold; /* >= 1 */
    int64_t interval_ms, timeout_ms;
};

enum probe_result {
    PROBE_GOOD,
    PROBE_BAD,
    PROBE_EXCUSED, /* it failed, but the worker is known to be alive: counts as neither */
};

/* Zeroed is a fresh one in state pending. */
struct health_machine {
    enum worker_status state; /* pending, ready, not_ready or failed */
    uint32_t successes;       /* in a row */
    uint32_t failures;        /* in a row, since the state was entered */
    uint32_t probes;          /* while pending: all of them */
};

/* As it stands after activation. */
struct health_machine health_machine_ready(void);
/* Takes one probe result in; the state after it. */
enum worker_status health_step(struct health_machine *machine, const struct health_limits *limits,
                               enum probe_result result);
/* Pause between the start of this probe and of the next: the interval, doubled with each failure
 * of a failed worker up to five minutes (or the interval, if that is longer). */
int64_t health_pause_ms(const struct health_machine *machine, const struct health_limits *limits);
