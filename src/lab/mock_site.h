/* One simulated worker as the fibers of its loops share it: the model, the faults, the record and the
 * counters behind one lock that is never held across a park, and the waiting that the pure model leaves to
 * its callers. */
#pragma once

#include <pthread.h>

#include "io/loop.h"
#include "lab/mock_options.h"
#include "lab/mock_record.h"

#define MOCK_TTFT_BUCKETS 8
extern const double mock_ttft_bounds[MOCK_TTFT_BUCKETS];

struct mock_totals {
    uint64_t requests, finished, cancelled, failed;
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    uint64_t ttft_counts[MOCK_TTFT_BUCKETS + 1];
    double ttft_sum;
};

struct mock_site {
    const struct mock_options *options;
    uint16_t port;
    char port_text[8];
    int64_t created; /* Unix seconds */
    pthread_mutex_t lock;
    /* under the lock */
    struct mock_model model;
    struct mock_faults faults;
    struct rand_stream rand;
    struct mock_record record;
    struct mock_totals totals;
    uint64_t ids;
    bool profiling;
};

void mock_site_init(struct mock_site *site, const struct mock_options *options, uint16_t port);
void mock_site_free(struct mock_site *site);
/* Back to the start: faults of the command line, no record, no counts, empty cache, first id. */
void mock_site_reset(struct mock_site *site);
static inline void mock_site_lock(struct mock_site *site) { pthread_mutex_lock(&site->lock); }
static inline void mock_site_unlock(struct mock_site *site) { pthread_mutex_unlock(&site->lock); }
/* The next id, from 1. */
uint64_t mock_site_id(struct mock_site *site);

/* A request's stay in the engine; zero it and fill ticket.sequences and ticket.count. */
struct mock_stay {
    struct mock_ticket ticket;
    struct loop *loop;
    struct fiber *fiber;
    struct message message;
    bool started;
};

/* Waits in line until the request runs. 0; or -ECANCELED, then it has left already. */
FIBER_FN int mock_site_enter(struct mock_site *site, struct mock_stay *stay);
/* Waits for the first token. 0 or -ECANCELED. */
FIBER_FN int mock_site_prefill(struct mock_site *site, struct mock_stay *stay);
/* Waits until output token `index` is due. 0 or -ECANCELED. */
FIBER_FN int mock_site_token(struct mock_site *site, struct mock_stay *stay, size_t index);
/* The request ends; once after each successful enter. */
void mock_site_leave(struct mock_site *site, struct mock_stay *stay, bool finished);
