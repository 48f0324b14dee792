/* See inflight.h. */
#include "gateway/inflight.h"

#include <stdio.h>

#include "base/metric.h"
#include "io/loop.h"

#define SAMPLE_EVERY_MS 20000

/* Upper bounds in seconds; what is older falls into the last bucket. */
static const int64_t bounds[] = {30, 60, 180, 300, 600, 1200, 3600, 7200, 14400, 28800, 86400};
enum { BOUNDS = sizeof bounds / sizeof *bounds, BUCKETS = BOUNDS + 1 };

struct loop_inflight {
    struct list requests;
    _Atomic uint32_t counts[BUCKETS]; /* of the last sample */
    char pad[64];
};
static struct loop_inflight *all;
static metric_ref gauges[BUCKETS];

static struct loop_inflight *inflight_here(void) { return &all[loop_index(loop_here())]; }

void inflight_begin(struct inflight *entry, int64_t started_us) {
    entry->started_us = started_us;
    list_push_back(&inflight_here()->requests, &entry->link);
}

void inflight_end(struct inflight *entry) { list_remove(&entry->link); }

static size_t bucket_of(int64_t age_s) {
    size_t bucket = 0;
    while (bucket < BOUNDS && age_s > bounds[bucket])
        bucket++;
    return bucket;
}

static void sample(struct loop_inflight *here, int64_t now_us) {
    uint32_t counts[BUCKETS] = {0};
    list_for (item, &here->requests)
        counts[bucket_of((now_us - container_of(item, struct inflight, link)->started_us) /
                         1000000)]++;
    for (size_t i = 0; i < BUCKETS; i++)
        atomic_store_explicit(&here->counts[i], counts[i], memory_order_relaxed);
}

static void sample_here(struct message *message) {
    mem_free(message);
    sample(inflight_here(), clock_us());
}

static void on_tick(struct timer *timer) {
    for (unsigned i = 1; i < loops_count();
         i++) { /* 0 is the control loop, which serves no clients */
        struct message *message = mem_zalloc(sizeof *message);
        message->run = sample_here;
        loop_post(loop_at(i), message);
    }
    timer_set(timer, deadline_in(SAMPLE_EVERY_MS));
}

static void gauge_make(size_t bucket) {
    char gt[24] = "0", le[24] = "+Inf";
    if (bucket > 0)
        snprintf(gt, sizeof gt, "%lld", (long long)bounds[bucket - 1]);
    if (bucket < BOUNDS)
        snprintf(le, sizeof le, "%lld", (long long)bounds[bucket]);
    gauges[bucket] = metric_ref_of(METRIC_SMG_HTTP_INFLIGHT_REQUEST_AGE_COUNT, gt, le);
}

void inflight_start(void) {
    static struct timer tick;
    all = mem_zalloc(loops_count() * sizeof *all);
    for (unsigned i = 0; i < loops_count(); i++)
        list_init(&all[i].requests);
    for (size_t i = 0; i < BUCKETS; i++)
        gauge_make(i);
    tick.fire = on_tick;
    timer_set(&tick, deadline_in(SAMPLE_EVERY_MS));
}

void inflight_show(void) {
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        uint32_t sum = 0;
        for (unsigned i = 0; i < loops_count(); i++)
            sum += atomic_load_explicit(&all[i].counts[bucket], memory_order_relaxed);
        metric_set(gauges[bucket], sum);
    }
}
