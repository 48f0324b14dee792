/* Requests of one worker may run on several loops. Whoever leaves the model may start the next in line; it
 * tells that one's loop by a message. From the moment the model started it, a waiter must await that
 * message even when it is cancelled, because the message lies in its memory. */
#include "lab/mock_site.h"

#include <errno.h>
#include <stdio.h>

#include "base/panic.h"

const double mock_ttft_bounds[MOCK_TTFT_BUCKETS] = {0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 30};

static void start_over(struct mock_site *site) {
    site->faults = site->options->faults;
    site->totals = (struct mock_totals){0};
    site->ids = 0;
    rand_stream_init(&site->rand, site->options->seed + site->port);
}

void mock_site_init(struct mock_site *site, const struct mock_options *options, uint16_t port) {
    *site = (struct mock_site){.options = options, .port = port};
    snprintf(site->port_text, sizeof site->port_text, "%u", port);
    site->created = clock_wall_ms() / 1000;
    assert_always(pthread_mutex_init(&site->lock, NULL) == 0);
    mock_model_init(&site->model, &options->engine);
    mock_record_init(&site->record, options->keep_requests);
    start_over(site);
}

void mock_site_free(struct mock_site *site) {
    mock_model_free(&site->model);
    mock_record_free(&site->record);
    pthread_mutex_destroy(&site->lock);
}

void mock_site_reset(struct mock_site *site) {
    mock_site_lock(site);
    start_over(site);
    mock_record_clear(&site->record);
    mock_cache_clear(&site->model.cache);
    site->model.hit_rate = 0;
    mock_site_unlock(site);
}

uint64_t mock_site_id(struct mock_site *site) {
    mock_site_lock(site);
    uint64_t id = ++site->ids;
    mock_site_unlock(site);
    return id;
}

static void started(struct message *message) {
    struct mock_stay *stay = container_of(message, struct mock_stay, message);
    stay->started = true;
    fiber_wake(stay->fiber);
}

/* The model has started this one; outside the lock. */
static void tell(struct mock_ticket *ticket) {
    if (ticket == NULL)
        return;
    struct mock_stay *stay = container_of(ticket, struct mock_stay, ticket);
    loop_post(stay->loop, &stay->message);
}

static void leave(struct mock_site *site, struct mock_stay *stay) {
    mock_site_lock(site);
    struct mock_ticket *next = mock_model_leave(&site->model, &stay->ticket, clock_us());
    mock_site_unlock(site);
    tell(next);
}

/* Leaves the line, or, when the model has started it already, awaits the message first. */
static void FIBER_FN give_up(struct mock_site *site, struct mock_stay *stay) {
    mock_site_lock(site);
    bool waiting = stay->ticket.state == MOCK_WAITING;
    struct mock_ticket *next =
        waiting ? mock_model_leave(&site->model, &stay->ticket, clock_us()) : NULL;
    site->totals.cancelled++;
    mock_site_unlock(site);
    tell(next);
    if (waiting)
        return;
    while (!stay->started)
        fiber_park_hard();
    leave(site, stay);
}

FIBER_FN int mock_site_enter(struct mock_site *site, struct mock_stay *stay) {
    stay->loop = loop_here();
    stay->fiber = fiber_self();
    stay->message.run = started;
    mock_site_lock(site);
    bool running = mock_model_arrive(&site->model, &stay->ticket, clock_us());
    site->totals.requests++;
    mock_site_unlock(site);
    while (!running && !stay->started) {
        if (fiber_park(DEADLINE_NEVER)) {
            give_up(site, stay);
            return -ECANCELED;
        }
    }
    return 0;
}

static FIBER_FN int sleep_until(int64_t due_us) {
    int64_t left = due_us - clock_us();
    return left > 0 ? fiber_sleep((left + 999) / 1000) : 0;
}

static void note_ttft(struct mock_totals *totals, double seconds) {
    size_t bucket = 0;
    while (bucket < MOCK_TTFT_BUCKETS && seconds > mock_ttft_bounds[bucket])
        bucket++;
    totals->ttft_counts[bucket]++;
    totals->ttft_sum += seconds;
}

FIBER_FN int mock_site_prefill(struct mock_site *site, struct mock_stay *stay) {
    int err = sleep_until(stay->ticket.first_token_us);
    if (err)
        return err;
    int64_t now_us = clock_us();
    mock_site_lock(site);
    mock_model_prefilled(&site->model, &stay->ticket);
    site->totals.prompt_tokens += stay->ticket.prompt_tokens;
    site->totals.cached_tokens += stay->ticket.cached_tokens;
    note_ttft(&site->totals, (double)(now_us - stay->ticket.arrived_us) / 1e6);
    mock_site_unlock(site);
    return 0;
}

FIBER_FN int mock_site_token(struct mock_site *site, struct mock_stay *stay, size_t index) {
    int err = sleep_until(mock_model_due(&site->model, &stay->ticket, index));
    if (err)
        return err;
    size_t n = index + 1 - stay->ticket.emitted;
    mock_site_lock(site);
    mock_model_emit(&site->model, &stay->ticket, n, clock_us());
    site->totals.output_tokens += n * stay->ticket.count;
    mock_site_unlock(site);
    return 0;
}

void mock_site_leave(struct mock_site *site, struct mock_stay *stay, bool finished) {
    mock_site_lock(site);
    site->totals.finished += finished;
    site->totals.cancelled += !finished;
    mock_site_unlock(site);
    leave(site, stay);
}
