/* The state is a handful of atomics that selection reads, and counts that only outcomes touch,
 * under a spin lock. Metrics are written after the lock is given back.
 *
 * A ticket is the generation in which its request was let in. A generation ends with each
 * transition, so the late outcome of an older one can neither free a half-open place it never
 * had nor judge a worker by what it was before. */
#include "fleet/breaker.h"

#include <sched.h>

#include "base/log.h"

enum { MAX_DOUBLINGS = 3, SPINS = 64 };

static const char *const state_names[] = {"closed", "open", "half_open"};

static const struct {
    enum breaker_state from, to;
} transitions[BREAKER_TRANSITIONS] = {{BREAKER_CLOSED, BREAKER_OPEN},
                                      {BREAKER_OPEN, BREAKER_HALF_OPEN},
                                      {BREAKER_HALF_OPEN, BREAKER_CLOSED},
                                      {BREAKER_HALF_OPEN, BREAKER_OPEN}};

/* The rows of both namings. */
static const struct {
    enum metric_id state, transitions, outcomes;
} families[2] = {
    {METRIC_SGL_CB_STATE, METRIC_SGL_CB_STATE_TRANSITIONS_TOTAL, METRIC_SGL_CB_OUTCOMES_TOTAL},
    {METRIC_SMG_WORKER_CB_STATE, METRIC_SMG_WORKER_CB_TRANSITIONS_TOTAL,
     METRIC_SMG_WORKER_CB_OUTCOMES_TOTAL},
};

/* What happened under the lock, to be told after it. */
struct effect {
    enum breaker_state from, to;
    bool counted;
    uint32_t run_failures, run_successes;
};

const char *breaker_state_name(enum breaker_state state) { return state_names[state]; }

enum breaker_state breaker_state(const struct breaker *breaker) {
    return (enum breaker_state)atomic_load_explicit(&breaker->state, memory_order_relaxed);
}

static void lock(struct breaker *breaker) {
    for (int spins = 0; atomic_flag_test_and_set_explicit(&breaker->lock, memory_order_acquire);) {
        if (++spins >= SPINS) {
            sched_yield();
            spins = 0;
        }
    }
}

static void unlock(struct breaker *breaker) {
    atomic_flag_clear_explicit(&breaker->lock, memory_order_release);
}

/* --- metrics --------------------------------------------------------------------------------- */

/* Two loops may meet a transition for the first time together: the loser gives its reference
 * back. */
static metric_ref transition_ref(struct breaker *breaker, int naming, int row) {
    _Atomic metric_ref *at = &breaker->metrics[naming].transitions[row];
    metric_ref ref = atomic_load_explicit(at, memory_order_relaxed);
    if (ref != 0)
        return ref;
    metric_ref made =
        metric_ref_of(families[naming].transitions, breaker->url,
                      state_names[transitions[row].from], state_names[transitions[row].to]);
    if (atomic_compare_exchange_strong(at, &ref, made))
        return made;
    metric_drop(made);
    return ref;
}

static void tell_transition(struct breaker *breaker, enum breaker_state from,
                            enum breaker_state to) {
    for (int row = 0; row < BREAKER_TRANSITIONS; row++) {
        if (transitions[row].from != from || transitions[row].to != to)
            continue;
        for (int naming = 0; naming < 2; naming++)
            metric_inc(transition_ref(breaker, naming, row));
    }
    for (int naming = 0; naming < 2; naming++)
        metric_set(breaker->metrics[naming].state, breaker_state(breaker)); /* the newest */
    log_at(to == BREAKER_OPEN ? LOG_WARN : LOG_INFO, "fleet", "circuit breaker changed",
           F_CSTR("worker", breaker->url), F_CSTR("from", state_names[from]),
           F_CSTR("to", state_names[to]));
}

static void tell(struct breaker *breaker, const struct effect *effect) {
    if (effect->counted) {
        metric_set(breaker->metrics[1].run_failures, effect->run_failures);
        metric_set(breaker->metrics[1].run_successes, effect->run_successes);
    }
    if (effect->from != effect->to)
        tell_transition(breaker, effect->from, effect->to);
}

static void tell_outcome(struct breaker *breaker, enum breaker_outcome outcome) {
    if (outcome == BREAKER_NEUTRAL)
        return;
    for (int naming = 0; naming < 2; naming++)
        metric_inc(outcome == BREAKER_SUCCESS ? breaker->metrics[naming].success
                                              : breaker->metrics[naming].failure);
}

/* --- under the lock -------------------------------------------------------------------------- */

static int64_t slot_ms(const struct breaker *breaker) {
    int64_t width = breaker->options.window_ms / BREAKER_SLOTS;
    return width > 0 ? width : 1;
}

static void window_add(struct breaker *breaker, bool good, int64_t now_ms) {
    int64_t slot = now_ms / slot_ms(breaker);
    size_t at = (size_t)(slot % BREAKER_SLOTS);
    if (breaker->slots[at].slot != slot) {
        breaker->slots[at].slot = slot;
        breaker->slots[at].good = breaker->slots[at].bad = 0;
    }
    if (good)
        breaker->slots[at].good++;
    else
        breaker->slots[at].bad++;
}

static void window_sum(const struct breaker *breaker, int64_t now_ms, uint64_t *good,
                       uint64_t *bad) {
    int64_t newest = now_ms / slot_ms(breaker);
    *good = *bad = 0;
    for (size_t i = 0; i < BREAKER_SLOTS; i++) {
        if (breaker->slots[i].slot <= newest - BREAKER_SLOTS)
            continue;
        *good += breaker->slots[i].good;
        *bad += breaker->slots[i].bad;
    }
}

static bool must_open(const struct breaker *breaker, int64_t now_ms) {
    uint64_t good, bad;
    if (breaker->options.disabled)
        return false;
    window_sum(breaker, now_ms, &good, &bad);
    if (bad < breaker->options.failure_threshold)
        return false;
    return breaker->run_failures >= breaker->options.failure_threshold || bad >= good;
}

static void window_clear(struct breaker *breaker) {
    for (size_t i = 0; i < BREAKER_SLOTS; i++) {
        breaker->slots[i].slot = INT64_MIN / 2;
        breaker->slots[i].good = breaker->slots[i].bad = 0;
    }
}

/* Enters a state: what selection reads is set in an order that never lets too many through. */
static void change(struct breaker *breaker, enum breaker_state to, int64_t now_ms) {
    uint32_t generation = atomic_load_explicit(&breaker->generation, memory_order_relaxed) + 1;
    atomic_store(&breaker->generation, generation ? generation : 1);
    atomic_store(&breaker->half_open_places, 0);
    atomic_store(&breaker->changed_ms, now_ms);
    breaker->run_failures = breaker->run_successes = 0;
    if (to == BREAKER_OPEN)
        atomic_store(&breaker->retry_ms,
                     now_ms + (breaker->options.timeout_ms << breaker->reopened));
    if (to == BREAKER_CLOSED) {
        breaker->reopened = 0;
        window_clear(breaker);
    }
    atomic_store(&breaker->state, to);
}

static void reopen(struct breaker *breaker, int64_t now_ms) {
    if (breaker->reopened < MAX_DOUBLINGS)
        breaker->reopened++;
    change(breaker, BREAKER_OPEN, now_ms);
}

static void count_success(struct breaker *breaker, int64_t now_ms) {
    breaker->run_failures = 0;
    breaker->run_successes++;
    if (breaker_state(breaker) == BREAKER_CLOSED)
        window_add(breaker, true, now_ms);
    else if (breaker->run_successes >= breaker->options.success_threshold)
        change(breaker, BREAKER_CLOSED, now_ms);
}

static void count_failure(struct breaker *breaker, int64_t now_ms) {
    breaker->run_successes = 0;
    breaker->run_failures++;
    if (breaker_state(breaker) == BREAKER_HALF_OPEN) {
        reopen(breaker, now_ms);
        return;
    }
    window_add(breaker, false, now_ms);
    if (must_open(breaker, now_ms))
        change(breaker, BREAKER_OPEN, now_ms);
}

/* Only for outcomes that belong to the present state. */
static void count(struct breaker *breaker, bool good, int64_t now_ms, struct effect *effect) {
    if (good)
        count_success(breaker, now_ms);
    else
        count_failure(breaker, now_ms);
    effect->counted = true;
    effect->run_failures = breaker->run_failures;
    effect->run_successes = breaker->run_successes;
}

static bool past_timeout(const struct breaker *breaker, int64_t now_ms) {
    return now_ms >= atomic_load_explicit(&breaker->retry_ms, memory_order_relaxed);
}

static bool place_free(const struct breaker *breaker) {
    return atomic_load_explicit(&breaker->half_open_places, memory_order_relaxed) <
           atomic_load_explicit(&breaker->half_open_max, memory_order_relaxed);
}

/* The way in while the circuit is not closed. */
static uint32_t enter_slowly(struct breaker *breaker, int64_t now_ms) {
    struct effect effect = {0};
    uint32_t ticket = 0;
    lock(breaker);
    effect.from = breaker_state(breaker);
    if (effect.from == BREAKER_OPEN && past_timeout(breaker, now_ms))
        change(breaker, BREAKER_HALF_OPEN, now_ms);
    effect.to = breaker_state(breaker);
    if (effect.to == BREAKER_CLOSED || (effect.to == BREAKER_HALF_OPEN && place_free(breaker))) {
        ticket = atomic_load(&breaker->generation);
        if (effect.to == BREAKER_HALF_OPEN)
            atomic_fetch_add(&breaker->half_open_places, 1);
    }
    unlock(breaker);
    tell(breaker, &effect);
    return ticket;
}

/* --- the interface --------------------------------------------------------------------------- */

static void take_options(struct breaker *breaker, const struct breaker_options *options) {
    breaker->options = *options;
    if (breaker->options.success_threshold == 0)
        breaker->options.success_threshold = 1;
    if (breaker->options.failure_threshold == 0)
        breaker->options.failure_threshold = 1;
    uint32_t places = breaker->options.success_threshold;
    atomic_store(&breaker->half_open_max, places < INT32_MAX ? (int)places : INT32_MAX);
}

void breaker_init(struct breaker *breaker, const struct breaker_options *options, const char *url) {
    memset(breaker, 0, sizeof *breaker);
    atomic_flag_clear(&breaker->lock);
    atomic_store(&breaker->generation, 1);
    take_options(breaker, options);
    window_clear(breaker);
    breaker->url = url;
    for (int naming = 0; naming < 2; naming++) {
        breaker->metrics[naming].state = metric_ref_of(families[naming].state, url);
        breaker->metrics[naming].success = metric_ref_of(families[naming].outcomes, url, "success");
        breaker->metrics[naming].failure = metric_ref_of(families[naming].outcomes, url, "failure");
        metric_set(breaker->metrics[naming].state, BREAKER_CLOSED);
    }
    breaker->metrics[1].run_failures =
        metric_ref_of(METRIC_SMG_WORKER_CB_CONSECUTIVE_FAILURES, url);
    breaker->metrics[1].run_successes =
        metric_ref_of(METRIC_SMG_WORKER_CB_CONSECUTIVE_SUCCESSES, url);
}

void breaker_end(struct breaker *breaker) {
    for (int naming = 0; naming < 2; naming++) {
        metric_drop(breaker->metrics[naming].state);
        metric_drop(breaker->metrics[naming].success);
        metric_drop(breaker->metrics[naming].failure);
        metric_drop(breaker->metrics[naming].run_failures);
        metric_drop(breaker->metrics[naming].run_successes);
        for (int row = 0; row < BREAKER_TRANSITIONS; row++)
            metric_drop(atomic_load(&breaker->metrics[naming].transitions[row]));
    }
}

static bool same_options(const struct breaker_options *a, const struct breaker_options *b) {
    return a->disabled == b->disabled && a->failure_threshold == b->failure_threshold &&
           a->success_threshold == b->success_threshold && a->timeout_ms == b->timeout_ms &&
           a->window_ms == b->window_ms;
}

void breaker_configure(struct breaker *breaker, const struct breaker_options *options,
                       int64_t now_ms) {
    struct effect effect = {0};
    lock(breaker);
    effect.from = effect.to = breaker_state(breaker);
    if (!same_options(&breaker->options, options)) {
        take_options(breaker, options);
        change(breaker, BREAKER_CLOSED, now_ms);
        effect.to = BREAKER_CLOSED;
        effect.counted = true;
    }
    unlock(breaker);
    tell(breaker, &effect);
}

bool breaker_allows(const struct breaker *breaker, int64_t now_ms) {
    switch (breaker_state(breaker)) {
    case BREAKER_CLOSED: return true;
    case BREAKER_OPEN: return past_timeout(breaker, now_ms);
    case BREAKER_HALF_OPEN: return place_free(breaker);
    }
    return false;
}

uint32_t breaker_enter(struct breaker *breaker, int64_t now_ms) {
    /* Generation before state: a ticket may be older than the state it was let in by, never
     * newer. */
    uint32_t generation = atomic_load(&breaker->generation);
    if (atomic_load(&breaker->state) == BREAKER_CLOSED)
        return generation;
    return enter_slowly(breaker, now_ms);
}

void breaker_record(struct breaker *breaker, uint32_t ticket, enum breaker_outcome outcome,
                    int64_t now_ms) {
    struct effect effect = {0};
    lock(breaker);
    effect.from = breaker_state(breaker);
    bool own = ticket == atomic_load_explicit(&breaker->generation, memory_order_relaxed);
    if (effect.from == BREAKER_HALF_OPEN && own)
        atomic_fetch_sub(&breaker->half_open_places, 1);
    if (outcome != BREAKER_NEUTRAL &&
        (effect.from == BREAKER_CLOSED || (effect.from == BREAKER_HALF_OPEN && own)))
        count(breaker, outcome == BREAKER_SUCCESS, now_ms, &effect);
    effect.to = breaker_state(breaker);
    unlock(breaker);
    tell_outcome(breaker, outcome);
    tell(breaker, &effect);
}

void breaker_probe_ok(struct breaker *breaker, int64_t now_ms) {
    if (breaker_state(breaker) == BREAKER_CLOSED)
        return;
    struct effect opened = {0}, effect = {0};
    lock(breaker);
    opened.from = breaker_state(breaker);
    if (opened.from == BREAKER_OPEN && past_timeout(breaker, now_ms))
        change(breaker, BREAKER_HALF_OPEN, now_ms);
    opened.to = effect.from = breaker_state(breaker);
    if (effect.from == BREAKER_HALF_OPEN)
        count(breaker, true, now_ms, &effect);
    effect.to = breaker_state(breaker);
    unlock(breaker);
    tell(breaker, &opened);
    tell(breaker, &effect);
}
