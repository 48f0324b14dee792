/* What a simulated engine does with its requests: first come, first served up to a running limit; one
 * prefill line that all requests share and that takes time for uncached prompt tokens only; then tokens
 * at a fixed pace; a bounded prefix cache. Pure: the time comes in as microseconds, waiting is the
 * caller's business, and one thread at a time uses a model. */
#pragma once

#include "base/list.h"
#include "base/str.h"
#include "lab/mock_cache.h"

struct mock_model_options {
    size_t max_running;       /* requests at once; the rest waits */
    size_t cache_blocks;      /* 0 = no prefix cache */
    size_t block_size;        /* tokens */
    double prefill_tps;       /* uncached prompt tokens a second, over all requests; 0 = instant */
    double tokens_per_second; /* of each request; 0 = all at once */
    int64_t ttft_us;          /* base of the time to first token */
};

/* One prompt with the answer it will get: prompt tokens first, then output tokens. */
struct mock_sequence {
    const uint32_t *tokens;
    size_t prompt, output;
    const uint64_t *chain; /* of all tokens: (prompt + output) / block_size hashes */
    size_t cached;         /* prompt tokens found in the cache when it started */
    bool copy;             /* further answer to the same prompt: its prompt costs nothing */
};

enum mock_state { MOCK_NEW, MOCK_WAITING, MOCK_RUNNING, MOCK_GONE };

/* A request in the simulation; the caller's memory, from mock_model_arrive to mock_model_leave. */
struct mock_ticket {
    struct list link;
    struct mock_sequence *sequences;
    size_t count;
    enum mock_state state;
    size_t prompt_tokens, cached_tokens; /* copies not counted */
    size_t uncached_guess;               /* as seen on arrival */
    size_t emitted;                      /* of each sequence */
    int64_t arrived_us, started_us, first_token_us;
};

struct mock_model {
    struct mock_model_options options;
    struct mock_cache cache;
    struct list waiting;
    size_t running, queued;
    size_t running_tokens, queued_uncached;
    int64_t prefill_free_us; /* when the prefill line is idle */
    double hit_rate;         /* moving average, weight 0.3 a request */
    double throughput;       /* output tokens a second over the last full window */
    int64_t window_us;
    size_t window_tokens;
};

void mock_model_init(struct mock_model *model, const struct mock_model_options *options);
void mock_model_free(struct mock_model *model);

/* Chained hashes of the full blocks of `tokens` into out (len / block_size of them). */
void mock_chain(const uint32_t *tokens, size_t len, size_t block_size, uint64_t *out);

/* A request comes. True when it runs now (its times are set), false when it waits in line. */
bool mock_model_arrive(struct mock_model *model, struct mock_ticket *ticket, int64_t now_us);
/* Its prefill is done: the prompt is in the cache for others to hit. */
void mock_model_prefilled(struct mock_model *model, struct mock_ticket *ticket);
/* Every sequence has given `n` more tokens. */
void mock_model_emit(struct mock_model *model, struct mock_ticket *ticket, size_t n,
                     int64_t now_us);
/* The request ends, whether it ran to its end, was cut off, or never started. The one that may start in
 * its place (its times are set; tell its owner), or NULL. */
struct mock_ticket *mock_model_leave(struct mock_model *model, struct mock_ticket *ticket,
                                     int64_t now_us);
/* When output token `index` (from 0) of a running request is due. */
int64_t mock_model_due(const struct mock_model *model, const struct mock_ticket *ticket,
                       size_t index);
/* Empties the cache; false (and nothing done) while requests run or wait. */
bool mock_model_flush(struct mock_model *model);

/* What the load endpoints show. */
struct mock_load {
    size_t running, waiting, waiting_uncached, used_tokens, max_tokens, max_running;
    double token_usage, throughput, hit_rate, utilization;
};
struct mock_load mock_model_load(const struct mock_model *model, int64_t now_us);
