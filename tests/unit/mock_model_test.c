#include "lab/mock_model.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/rand.h"

enum { BLOCK = 4, TOKENS = 64 };

/* --- the cache ------------------------------------------------------------------------------- */

static void cache_matches_leading_runs(void **state) {
    (void)state;
    struct mock_cache cache;
    uint64_t chain[] = {11, 22, 33, 44};
    mock_cache_init(&cache, 8);
    assert_int_equal(mock_cache_match(&cache, chain, 4), 0);
    mock_cache_use(&cache, chain, 3);
    assert_int_equal(mock_cache_match(&cache, chain, 4), 3);
    assert_int_equal(mock_cache_match(&cache, chain, 2), 2);
    assert_int_equal(mock_cache_match(&cache, chain + 1, 3), 2);
    assert_int_equal(mock_cache_match(&cache, chain + 3, 1), 0);
    mock_cache_clear(&cache);
    assert_int_equal(mock_cache_match(&cache, chain, 4), 0);
    mock_cache_use(&cache, chain, 4);
    assert_int_equal(mock_cache_match(&cache, chain, 4), 4);
    mock_cache_free(&cache);
}

static void cache_evicts_the_ends_first(void **state) {
    (void)state;
    struct mock_cache cache;
    uint64_t old[] = {1, 2, 3, 4}, new[] = {5, 6}, longer[] = {7, 8, 9, 10, 11, 12};
    mock_cache_init(&cache, 4);
    mock_cache_use(&cache, old, 4);
    mock_cache_use(&cache, new, 2);
    assert_int_equal(mock_cache_match(&cache, old, 4), 2);
    assert_int_equal(mock_cache_match(&cache, new, 2), 2);
    mock_cache_use(&cache, old, 2); /* now `new` is the older one */
    mock_cache_use(&cache, longer, 1);
    assert_int_equal(mock_cache_match(&cache, new, 2), 1);
    assert_int_equal(mock_cache_match(&cache, old, 2), 2);
    mock_cache_use(&cache, longer, 6); /* longer than the cache: its beginning stays */
    assert_int_equal(mock_cache_match(&cache, longer, 6), 4);
    mock_cache_free(&cache);
    mock_cache_init(&cache, 0);
    mock_cache_use(&cache, old, 4);
    assert_int_equal(mock_cache_match(&cache, old, 4), 0);
    mock_cache_free(&cache);
}

/* Against a plain array in order of use. */
static void cache_agrees_with_a_list(void **state) {
    (void)state;
    enum { MAX = 13, KEYS = 40 };
    uint64_t order[MAX];
    size_t len = 0;
    struct mock_cache cache;
    struct rand_stream rand;
    rand_stream_init(&rand, 5);
    mock_cache_init(&cache, MAX);
    for (int round = 0; round < 100000; round++) {
        uint64_t key = rand_stream_u64(&rand) % KEYS * 64; /* few low bits: long probe runs */
        size_t at = 0;
        while (at < len && order[at] != key)
            at++;
        if (at == len && len < MAX)
            len++;
        else if (at == len)
            at--;
        memmove(order + 1, order, at * sizeof *order);
        order[0] = key;
        mock_cache_use(&cache, &key, 1);
        for (uint64_t probe = 0; probe < KEYS * 64; probe += 64) {
            bool listed = false;
            for (size_t i = 0; i < len; i++)
                listed |= order[i] == probe;
            assert_int_equal(mock_cache_match(&cache, &probe, 1), listed);
        }
    }
    mock_cache_free(&cache);
}

/* --- requests -------------------------------------------------------------------------------- */

struct request {
    uint32_t tokens[TOKENS];
    uint64_t chain[TOKENS / BLOCK];
    struct mock_sequence sequence;
    struct mock_ticket ticket;
};

/* A prompt of `prompt` tokens counted from `first`, and `output` more. */
static void request_make(struct request *request, uint32_t first, size_t prompt, size_t output) {
    assert_true(prompt + output <= TOKENS);
    *request = (struct request){0};
    for (uint32_t i = 0; i < prompt + output; i++)
        request->tokens[i] = first + i;
    mock_chain(request->tokens, prompt + output, BLOCK, request->chain);
    request->sequence = (struct mock_sequence){
        .tokens = request->tokens, .prompt = prompt, .output = output, .chain = request->chain};
    request->ticket = (struct mock_ticket){.sequences = &request->sequence, .count = 1};
}

static void model_make(struct mock_model *model, size_t max_running) {
    struct mock_model_options options = {.max_running = max_running,
                                         .cache_blocks = 64,
                                         .block_size = BLOCK,
                                         .prefill_tps = 1000,
                                         .tokens_per_second = 100,
                                         .ttft_us = 5000};
    mock_model_init(model, &options);
}

static void run_whole(struct mock_model *model, struct request *request, int64_t now_us) {
    assert_true(mock_model_arrive(model, &request->ticket, now_us));
    mock_model_prefilled(model, &request->ticket);
    mock_model_emit(model, &request->ticket, request->sequence.output, now_us);
    assert_null(mock_model_leave(model, &request->ticket, now_us));
}

static void chain_depends_on_all_before(void **state) {
    (void)state;
    uint32_t a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {9, 2, 3, 4, 5, 6, 7, 8};
    uint64_t chain_a[2], chain_b[2], short_a[2] = {0, 0};
    mock_chain(a, 8, 4, chain_a);
    mock_chain(b, 8, 4, chain_b);
    mock_chain(a, 7, 4, short_a);
    assert_true(chain_a[0] != chain_b[0] && chain_a[1] != chain_b[1]);
    assert_true(chain_a[0] == short_a[0] && short_a[1] == 0);
}

static void first_token_grows_with_the_uncached_prompt(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 8);
    struct request small, large, again;
    request_make(&small, 100, 10, 2);
    request_make(&large, 200, 40, 2);
    request_make(&again, 200, 40, 2);
    run_whole(&model, &small, 1000000);
    assert_int_equal(small.ticket.first_token_us, 1000000 + 10000 + 5000);
    run_whole(&model, &large, 2000000);
    assert_int_equal(large.ticket.first_token_us, 2000000 + 40000 + 5000);
    run_whole(&model, &again, 3000000); /* 9 of its 10 blocks: the last token is never cached */
    assert_int_equal(again.ticket.cached_tokens, 36);
    assert_int_equal(again.ticket.prompt_tokens, 40);
    assert_int_equal(again.ticket.first_token_us, 3000000 + 4000 + 5000);
    assert_true(mock_model_load(&model, 3000000).hit_rate > 0.2);
    mock_model_free(&model);
}

static void prefill_is_one_line(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 8);
    struct request a, b;
    request_make(&a, 100, 20, 2);
    request_make(&b, 200, 20, 2);
    assert_true(mock_model_arrive(&model, &a.ticket, 1000));
    assert_true(mock_model_arrive(&model, &b.ticket, 1000));
    assert_int_equal(a.ticket.first_token_us, 1000 + 20000 + 5000);
    assert_int_equal(b.ticket.first_token_us, 1000 + 40000 + 5000);
    assert_int_equal(mock_model_due(&model, &b.ticket, 0), b.ticket.first_token_us);
    assert_int_equal(mock_model_due(&model, &b.ticket, 3), b.ticket.first_token_us + 30000);
    mock_model_free(&model);
}

static void answers_are_cached_for_the_next_turn(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 8);
    struct request turn, next, cut_off, retry;
    request_make(&turn, 100, 8, 8);
    run_whole(&model, &turn, 0);
    request_make(&next, 100, 21, 2); /* the 16 of the first turn, and 5 new */
    run_whole(&model, &next, 0);
    assert_int_equal(next.ticket.cached_tokens, 16);
    /* Only what was really generated counts. */
    request_make(&cut_off, 500, 8, 8);
    assert_true(mock_model_arrive(&model, &cut_off.ticket, 0));
    mock_model_prefilled(&model, &cut_off.ticket);
    mock_model_emit(&model, &cut_off.ticket, 5, 0);
    mock_model_leave(&model, &cut_off.ticket, 0);
    request_make(&retry, 500, 21, 2);
    run_whole(&model, &retry, 0);
    assert_int_equal(retry.ticket.cached_tokens, 12);
    mock_model_free(&model);
}

static void copies_cost_no_prompt(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 8);
    struct request a;
    request_make(&a, 100, 20, 4);
    struct mock_sequence both[2] = {a.sequence, a.sequence};
    both[1].copy = true;
    a.ticket.sequences = both;
    a.ticket.count = 2;
    assert_true(mock_model_arrive(&model, &a.ticket, 0));
    assert_int_equal(a.ticket.prompt_tokens, 20);
    assert_int_equal(a.ticket.first_token_us, 20000 + 5000);
    mock_model_emit(&model, &a.ticket, 3, 0);
    assert_int_equal(mock_model_load(&model, 0).used_tokens, 20 + 2 * 3);
    mock_model_leave(&model, &a.ticket, 0);
    assert_int_equal(mock_model_load(&model, 0).used_tokens, 0);
    mock_model_free(&model);
}

static void line_is_first_come_first_served(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 2);
    struct request r[5];
    for (uint32_t i = 0; i < 5; i++) {
        request_make(&r[i], 1000 * i, 8, 2);
        assert_int_equal(mock_model_arrive(&model, &r[i].ticket, i), i < 2);
    }
    struct mock_load load = mock_model_load(&model, 10);
    assert_int_equal(load.running, 2);
    assert_int_equal(load.waiting, 3);
    assert_int_equal(load.waiting_uncached, 24);
    assert_int_equal(load.used_tokens, 16);
    assert_true(load.utilization == 1);
    /* One that waits may give up; nobody starts for it. */
    assert_null(mock_model_leave(&model, &r[2].ticket, 20));
    assert_int_equal(mock_model_load(&model, 20).waiting, 2);
    assert_ptr_equal(mock_model_leave(&model, &r[0].ticket, 30), &r[3].ticket);
    assert_int_equal(r[3].ticket.state, MOCK_RUNNING);
    assert_int_equal(r[3].ticket.started_us, 30);
    assert_ptr_equal(mock_model_leave(&model, &r[1].ticket, 40), &r[4].ticket);
    assert_null(mock_model_leave(&model, &r[3].ticket, 50));
    assert_null(mock_model_leave(&model, &r[4].ticket, 60));
    load = mock_model_load(&model, 70);
    assert_int_equal(load.running + load.waiting + load.used_tokens + load.waiting_uncached, 0);
    mock_model_free(&model);
}

static void throughput_is_of_the_last_second(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 2);
    struct request a;
    request_make(&a, 0, 8, 32);
    int64_t start = 50000000;
    assert_true(mock_model_arrive(&model, &a.ticket, start));
    for (int i = 0; i < 12; i++)
        mock_model_emit(&model, &a.ticket, 1, start + i * 100000);
    assert_true(mock_model_load(&model, start + 1200000).throughput == 10);
    assert_true(mock_model_load(&model, start + 9000000).throughput == 0);
    mock_model_leave(&model, &a.ticket, start);
    mock_model_free(&model);
}

static void flush_needs_an_idle_engine(void **state) {
    (void)state;
    struct mock_model model;
    model_make(&model, 2);
    struct request a, b;
    request_make(&a, 100, 20, 4);
    run_whole(&model, &a, 0);
    request_make(&b, 100, 20, 4);
    assert_true(mock_model_arrive(&model, &b.ticket, 0));
    assert_false(mock_model_flush(&model));
    assert_int_equal(b.ticket.cached_tokens, 16);
    mock_model_leave(&model, &b.ticket, 0);
    assert_true(mock_model_flush(&model));
    request_make(&b, 100, 20, 4);
    assert_true(mock_model_arrive(&model, &b.ticket, 0));
    assert_int_equal(b.ticket.cached_tokens, 0);
    mock_model_free(&model);
}

/* Four workers, sixteen long shared prefixes: sending each prefix to its own worker must cost clearly less
 * prefill than spreading them. This is what cache-aware routing is measured by. */
static int64_t prefill_cost(bool affine) {
    enum { WORKERS = 4, PREFIXES = 16, ROUNDS = 400 };
    struct mock_model models[WORKERS];
    struct mock_model_options options = {
        .max_running = 8, .cache_blocks = 60, .block_size = BLOCK, .prefill_tps = 1000};
    for (int i = 0; i < WORKERS; i++)
        mock_model_init(&models[i], &options);
    struct rand_stream rand;
    rand_stream_init(&rand, 9);
    int64_t spent = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint64_t prefix = rand_stream_u64(&rand) % PREFIXES;
        struct request request;
        request_make(&request, (uint32_t)prefix * 1000, 48, 2);
        for (size_t t = 44; t < 48; t++)
            request.tokens[t] = 100000 + i; /* the user's own question */
        mock_chain(request.tokens, 50, BLOCK, request.chain);
        struct mock_model *model = &models[affine ? prefix % WORKERS : i % WORKERS];
        run_whole(model, &request, i * INT64_C(1000000));
        spent += request.ticket.first_token_us - request.ticket.started_us;
    }
    for (int i = 0; i < WORKERS; i++)
        mock_model_free(&models[i]);
    return spent;
}

static void affinity_pays_off(void **state) {
    (void)state;
    int64_t affine = prefill_cost(true), spread = prefill_cost(false);
    assert_true(affine * 2 < spread);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cache_matches_leading_runs),
        cmocka_unit_test(cache_evicts_the_ends_first),
        cmocka_unit_test(cache_agrees_with_a_list),
        cmocka_unit_test(chain_depends_on_all_before),
        cmocka_unit_test(first_token_grows_with_the_uncached_prompt),
        cmocka_unit_test(prefill_is_one_line),
        cmocka_unit_test(answers_are_cached_for_the_next_turn),
        cmocka_unit_test(copies_cost_no_prompt),
        cmocka_unit_test(line_is_first_come_first_served),
        cmocka_unit_test(throughput_is_of_the_last_second),
        cmocka_unit_test(flush_needs_an_idle_engine),
        cmocka_unit_test(affinity_pays_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
