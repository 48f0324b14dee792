/* Time is computed, not simulated step by step: a request that starts reserves its place in the prefill
 * line and from then on all its times are known, so the owner just sleeps until they are due. A request
 * that is cut off does not give its reserved prefill time back, as an engine would not either. */
#include "lab/mock_model.h"

#include "base/hash.h"
#include "base/panic.h"

enum { SECOND_US = 1000000, TOKENS_WITHOUT_CACHE = 65536 };

void mock_model_init(struct mock_model *model, const struct mock_model_options *options) {
    assert_always(options->max_running > 0 && options->block_size > 0);
    *model = (struct mock_model){.options = *options};
    mock_cache_init(&model->cache, options->cache_blocks);
    list_init(&model->waiting);
}

void mock_model_free(struct mock_model *model) { mock_cache_free(&model->cache); }

void mock_chain(const uint32_t *tokens, size_t len, size_t block_size, uint64_t *out) {
    uint64_t hash = 0;
    for (size_t i = 0; i < len / block_size; i++) {
        hash = hash_seeded(tokens + i * block_size, block_size * sizeof *tokens, hash);
        out[i] = hash;
    }
}

/* An engine always computes the last prompt token, however much is cached. */
static size_t cached_tokens(const struct mock_model *model, const struct mock_sequence *sequence) {
    size_t block = model->options.block_size;
    size_t blocks = sequence->prompt > 0 ? (sequence->prompt - 1) / block : 0;
    return mock_cache_match(&model->cache, sequence->chain, blocks) * block;
}

static void measure(const struct mock_model *model, struct mock_ticket *ticket) {
    ticket->prompt_tokens = ticket->cached_tokens = 0;
    for (size_t i = 0; i < ticket->count; i++) {
        struct mock_sequence *sequence = &ticket->sequences[i];
        sequence->cached = cached_tokens(model, sequence);
        if (sequence->copy)
            continue;
        ticket->prompt_tokens += sequence->prompt;
        ticket->cached_tokens += sequence->cached;
    }
}

static void note_hits(struct mock_model *model, const struct mock_ticket *ticket) {
    if (ticket->prompt_tokens == 0)
        return;
    double rate = (double)ticket->cached_tokens / (double)ticket->prompt_tokens;
    model->hit_rate += 0.3 * (rate - model->hit_rate);
}

static void start(struct mock_model *model, struct mock_ticket *ticket, int64_t now_us) {
    measure(model, ticket);
    note_hits(model, ticket);
    ticket->state = MOCK_RUNNING;
    ticket->started_us = now_us;
    size_t uncached = ticket->prompt_tokens - ticket->cached_tokens;
    double tps = model->options.prefill_tps;
    int64_t prefill_us = tps > 0 ? (int64_t)((double)uncached * SECOND_US / tps) : 0;
    if (model->prefill_free_us < now_us)
        model->prefill_free_us = now_us;
    model->prefill_free_us += prefill_us;
    ticket->first_token_us = model->prefill_free_us + model->options.ttft_us;
    model->running++;
    model->running_tokens += ticket->prompt_tokens;
}

bool mock_model_arrive(struct mock_model *model, struct mock_ticket *ticket, int64_t now_us) {
    assert_always(ticket->state == MOCK_NEW);
    ticket->arrived_us = now_us;
    if (model->running < model->options.max_running) {
        start(model, ticket, now_us);
        return true;
    }
    measure(model, ticket);
    ticket->uncached_guess = ticket->prompt_tokens - ticket->cached_tokens;
    ticket->state = MOCK_WAITING;
    model->queued++;
    model->queued_uncached += ticket->uncached_guess;
    list_push_back(&model->waiting, &ticket->link);
    return false;
}

void mock_model_prefilled(struct mock_model *model, struct mock_ticket *ticket) {
    for (size_t i = 0; i < ticket->count; i++) {
        const struct mock_sequence *sequence = &ticket->sequences[i];
        if (!sequence->copy)
            mock_cache_use(&model->cache, sequence->chain,
                           sequence->prompt / model->options.block_size);
    }
}

/* Closes the window of the throughput figure when it is a second old. */
static void turn_window(struct mock_model *model, int64_t now_us) {
    int64_t age = now_us - model->window_us;
    if (age < SECOND_US)
        return;
    bool stale = age >= 2 * SECOND_US;
    model->throughput = stale ? 0 : (double)model->window_tokens * SECOND_US / (double)age;
    model->window_us = now_us;
    model->window_tokens = 0;
}

void mock_model_emit(struct mock_model *model, struct mock_ticket *ticket, size_t n,
                     int64_t now_us) {
    turn_window(model, now_us);
    ticket->emitted += n;
    model->running_tokens += n * ticket->count;
    model->window_tokens += n * ticket->count;
}

static void leave_queue(struct mock_model *model, struct mock_ticket *ticket) {
    list_remove(&ticket->link);
    model->queued--;
    model->queued_uncached -= ticket->uncached_guess;
}

static void cache_outputs(struct mock_model *model, const struct mock_ticket *ticket) {
    for (size_t i = 0; i < ticket->count && ticket->emitted > 0; i++) {
        const struct mock_sequence *sequence = &ticket->sequences[i];
        size_t given = ticket->emitted < sequence->output ? ticket->emitted : sequence->output;
        mock_cache_use(&model->cache, sequence->chain,
                       (sequence->prompt + given) / model->options.block_size);
    }
}

static void leave_running(struct mock_model *model, struct mock_ticket *ticket) {
    cache_outputs(model, ticket);
    model->running--;
    model->running_tokens -= ticket->prompt_tokens + ticket->emitted * ticket->count;
}

static struct mock_ticket *start_next(struct mock_model *model, int64_t now_us) {
    if (list_empty(&model->waiting) || model->running >= model->options.max_running)
        return NULL;
    struct mock_ticket *next = container_of(model->waiting.next, struct mock_ticket, link);
    leave_queue(model, next);
    start(model, next, now_us);
    return next;
}

struct mock_ticket *mock_model_leave(struct mock_model *model, struct mock_ticket *ticket,
                                     int64_t now_us) {
    if (ticket->state == MOCK_WAITING)
        leave_queue(model, ticket);
    else if (ticket->state == MOCK_RUNNING)
        leave_running(model, ticket);
    ticket->state = MOCK_GONE;
    return start_next(model, now_us);
}

int64_t mock_model_due(const struct mock_model *model, const struct mock_ticket *ticket,
                       size_t index) {
    double tps = model->options.tokens_per_second;
    return ticket->first_token_us + (tps > 0 ? (int64_t)((double)index * SECOND_US / tps) : 0);
}

bool mock_model_flush(struct mock_model *model) {
    if (model->running > 0 || model->queued > 0)
        return false;
    mock_cache_clear(&model->cache);
    return true;
}

struct mock_load mock_model_load(const struct mock_model *model, int64_t now_us) {
    size_t cached = model->options.cache_blocks * model->options.block_size;
    size_t max = cached > 0 ? cached : TOKENS_WITHOUT_CACHE;
    double usage = (double)model->running_tokens / (double)max;
    bool stale = now_us - model->window_us >= 2 * SECOND_US;
    return (struct mock_load){
        .running = model->running,
        .waiting = model->queued,
        .waiting_uncached = model->queued_uncached,
        .used_tokens = model->running_tokens,
        .max_tokens = max,
        .max_running = model->options.max_running,
        .token_usage = usage < 1 ? usage : 1,
        .throughput = stale ? 0 : model->throughput,
        .hit_rate = model->hit_rate,
        .utilization = (double)model->running / (double)model->options.max_running,
    };
}
