/* Metrics: one declarative table of families (metric_table.h), values in per-thread shards.
 *
 * A series (family + label values) is resolved to a small number when its worker, model or route is
 * registered (a lock, rare); counting is then one add into the calling thread's own array (no lock,
 * no formatting, no allocation). Shards are summed at scrape. Gauges are one atomic in the registry.
 * The text exposition is in observe/. */
#pragma once

#include "base/metric_table.h"
#include "base/str.h"

/* Number of a series; 0 is "nowhere" and may be counted into freely. */
typedef uint32_t metric_ref;

/* Looks the series up or makes it. `values` are in the order of the family's labels, NULL-terminated
 * list of C strings (copied). Any thread; takes a lock. Returns 0 when the family is full
 * (METRIC_MAX_SERIES): the caller then counts nowhere. Every call takes a reference; a series whose
 * references have all been given back by metric_drop goes. */
metric_ref metric_series(enum metric_id family, const char *const *values);
#define metric_ref_of(family, ...)                                                                 \
    metric_series((family), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
/* Gives one reference back; with the last the series goes away from the exposition and its number is
 * reused, from zero: the caller must not count into it any more. 0 is allowed. */
void metric_drop(metric_ref ref);

/* Counters and histograms: the calling thread's shard. */
void metric_add(metric_ref ref, uint64_t n);
static inline void metric_inc(metric_ref ref) { metric_add(ref, 1); }
/* One observation in seconds. */
void metric_observe(metric_ref ref, double seconds);
/* Gauges: shared. A counter may be set too, when its total is kept elsewhere and it is never added
 * to (process_cpu_seconds_total). */
void metric_set(metric_ref ref, double value);
void metric_gauge_add(metric_ref ref, double delta);

/* Replaces the D20/D29 bounds of all duration families (--prometheus-duration-buckets); before any
 * series is made. Bounds ascending; 0 or -EINVAL. */
int metric_set_buckets(const double *bounds, size_t count) MUST_CHECK;

/* Calls `fn(arg)` before each scrape, to set gauges that are computed then. */
void metric_on_scrape(void (*fn)(void *arg), void *arg);

/* What the exposition walks: every live series with its summed value. */
struct metric_sample {
    enum metric_id family;
    const char *const *label_values; /* as many as the family has labels */
    double value;                    /* counter, gauge */
    const double *bounds;            /* histogram: `buckets` bounds, counts has one more (+Inf) */
    const uint64_t *counts;          /* not cumulative */
    size_t buckets;
    double sum;
};
/* Calls back family by family in table order, within one oldest first. Runs the on-scrape hooks, then
 * holds the registry lock a family at a time: `fn` must not call metric_series or metric_drop. */
void metric_collect(void (*fn)(void *arg, const struct metric_sample *sample), void *arg);
