/* Histogram of durations with a relative error under 1.6 %: 32 linear steps in each power of two,
 * as HdrHistogram does (the first 64 values have a step each). Nanoseconds in,
 * percentiles in microseconds out. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

enum { HIST_STEPS = 64, HIST_BUCKETS = 40 * HIST_STEPS };

struct hist {
    uint64_t count, max;
    uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t ns);

/* The q-quantile (0..1) in microseconds, 0 when empty. */
double hist_us(const struct hist *h, double q);

#endif
