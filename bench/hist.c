#include "hist.h"

static unsigned slot_of(uint64_t v) {
    unsigned shift = v < HIST_STEPS ? 0 : 58u - (unsigned)__builtin_clzll(v);
    unsigned slot = shift * (HIST_STEPS / 2) + (unsigned)(v >> shift);

    return slot < HIST_BUCKETS ? slot : HIST_BUCKETS - 1;
}

/* The middle of the values that share a slot. */
static double value_of(unsigned slot) {
    unsigned shift = slot < HIST_STEPS ? 0 : slot / (HIST_STEPS / 2) - 1;
    uint64_t low = (uint64_t)(slot - shift * (HIST_STEPS / 2)) << shift;

    return (double)low + (double)((1ull << shift) - 1) / 2;
}

void hist_add(struct hist *h, uint64_t ns) {
    h->bucket[slot_of(ns)]++;
    h->count++;
    if (ns > h->max)
        h->max = ns;
}

double hist_us(const struct hist *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;

    if (!h->count)
        return 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > rank)
            return (value_of(i) < (double)h->max ? value_of(i) : (double)h->max) / 1000.0;
    }
    return (double)h->max / 1000.0;
}
