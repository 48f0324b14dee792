/* Circuit breaker of one worker (spec 02 section 5): closed, open, half-open over a sliding
 * window of ten slots. It opens when the failures inside the window reach the threshold and
 * either the last outcomes were all failures or at least half of the window's are. Every loop
 * asks it at selection (lock-free); outcomes are recorded at the end of an answer (a short spin
 * lock). Time is passed in. Nothing parks. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/metric.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
enum breaker_outcome { BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_NEUTRAL };

struct breaker_options {
    bool disabled; /* never opens; metrics are kept */
    uint32_t failure_threshold, success_threshold;
    int64_t timeout_ms, window_ms;
};

#define BREAKER_SLOTS 10
/* closed to open, open to half-open, half-open to closed, half-open to open */
#define BREAKER_TRANSITIONS 4
struct breaker {
    _Atomic int state;
    _Atomic int half_open_places; /* requests let through while half-open */
    _Atomic int half_open_max;
    _Atomic uint32_t generation; /* rises at each transition; 0 is skipped */
    _Atomic int64_t changed_ms;  /* monotonic */
    _Atomic int64_t retry_ms;    /* open: from then on a request may try */
    /* the rest is under `lock` (a spin lock; outcomes are rare beside reads) */
    atomic_flag lock;
    struct breaker_options options;
    uint32_t run_failures, run_successes; /* in a row */
    uint32_t reopened;                    /* half-open to open, since it was last closed */
    struct {
        int64_t slot;
        uint32_t good, bad;
    } slots[BREAKER_SLOTS];
    struct {
        metric_ref state, success, failure, run_failures, run_successes;
        _Atomic metric_ref transitions[BREAKER_TRANSITIONS]; /* made when first met */
    } metrics[2];                                            /* both namings */
    const char *url; /* label; lives as long as the breaker */
};

/* In place; makes its metric series. */
void breaker_init(struct breaker *breaker, const struct breaker_options *options, const char *url);
/* Drops its series. */
void breaker_end(struct breaker *breaker);
/* Puts other options in force; when they differ the circuit starts closed and empty. */
void breaker_configure(struct breaker *breaker, const struct breaker_options *options,
                       int64_t now_ms);
/* May a request be sent now? A look only: open whose timeout has passed counts as yes. */
bool breaker_allows(const struct breaker *breaker, int64_t now_ms);
/* Takes the place for one request: a ticket, or 0 when the circuit is (still) open or all
 * half-open places are taken. Every ticket is balanced by one breaker_record. */
uint32_t breaker_enter(struct breaker *breaker, int64_t now_ms);
/* The outcome of a request that entered. While the circuit is half-open only its own requests
 * count, while it is open none does. Ticket 0 stands for a request that was sent although the
 * circuit was open. */
void breaker_record(struct breaker *breaker, uint32_t ticket, enum breaker_outcome outcome,
                    int64_t now_ms);
/* A good health probe counts as one half-open success (and turns an open circuit whose timeout
 * has passed half-open first, so that a worker without traffic heals as well). */
void breaker_probe_ok(struct breaker *breaker, int64_t now_ms);
enum breaker_state breaker_state(const struct breaker *breaker);
const char *breaker_state_name(enum breaker_state state);
