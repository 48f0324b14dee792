/* The block cache: distinct blocks, memory back after a burst in any order, other threads, threads
 * that end. The bookkeeping is looked at only where blocks are not separate allocations. */
#include "base/block.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base_resident.h"

enum { BURST = 9000 };

static unsigned char *all[BURST];

static void get_all(void) {
    for (int i = 0; i < BURST; i++) {
        all[i] = block_get();
        memset(all[i], i & 0xff, BLOCK_BYTES);
    }
}

static void check_and_put(int i) {
    assert_int_equal(all[i][0], i & 0xff);
    assert_int_equal(all[i][BLOCK_BYTES - 1], i & 0xff);
    block_put(all[i]);
}

static void blocks_do_not_overlap(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        get_all();
        for (int i = 0; i < BURST; i++)
            check_and_put(i);
    }
}

static void *put_some(void *arg) {
    (void)arg;
    for (int i = 0; i < BURST; i += 2)
        block_put(all[i]);
    return NULL;
}

static void in_thread(void *(*fn)(void *)) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fn, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void another_thread_may_put(void **state) {
    (void)state;
    get_all();
    in_thread(put_some);
    for (int i = 1; i < BURST; i += 2)
        check_and_put(i);
}

/* Takes and gives more than a cache holds, so that the store is used all the time. */
static void *churn(void *arg) {
    enum { HELD = 700 };
    unsigned char *held[HELD];
    unsigned char tag = *(unsigned char *)arg;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < HELD; i++) {
            held[i] = block_get();
            held[i][0] = held[i][BLOCK_BYTES - 1] = tag;
        }
        for (int i = 0; i < HELD; i++) {
            if (held[i][0] != tag || held[i][BLOCK_BYTES - 1] != tag)
                return NULL;
            block_put(held[i]);
        }
    }
    return arg;
}

static void several_threads_at_once(void **state) {
    (void)state;
    pthread_t threads[4];
    unsigned char tags[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &tags[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &tags[i]);
    }
}

#if !MEM_SEPARATE

static void shuffle(uint64_t seed) {
    struct rand_stream random;
    rand_stream_init(&random, seed);
    for (size_t i = BURST - 1; i > 0; i--) {
        size_t k = rand_stream_u64(&random) % (i + 1);
        unsigned char *other = all[k];
        all[k] = all[i];
        all[i] = other;
    }
}

/* Blocks that lie in the store, by its own account; chunks with room are counted too. */
static size_t stored_blocks(size_t *chunks) {
    size_t blocks = 0;
    *chunks = 0;
    list_for (link, &store.room) {
        ++*chunks;
        blocks += (size_t)__builtin_popcountll(container_of(link, struct chunk, link)->free);
    }
    return blocks;
}

static void bursts_leave_the_rss(void **state) {
    (void)state;
    assert_int_equal(slab_resident_bytes() % BLOCK_BYTES, 0); /* or skips */
    for (uint64_t round = 0; round < 3; round++) {
        get_all();
        assert_true(slab_resident_bytes() >= (size_t)BURST * BLOCK_BYTES);
        shuffle(round);
        for (int i = 0; i < BURST; i++)
            block_put(all[i]);
        assert_true(cache.len <= CACHE_MAX);
        /* One thread's cache, and a header for each chunk that those blocks are from. */
        assert_true(slab_resident_bytes() <= CACHE_MAX * 2 * BLOCK_BYTES);
    }
}

/* A tenth of the blocks stays in use, spread over all chunks: the others' memory goes all the same. */
static void scattered_survivors_cost_themselves(void **state) {
    (void)state;
    assert_int_equal(slab_resident_bytes() % BLOCK_BYTES, 0);
    get_all();
    shuffle(9);
    for (int i = BURST / 10; i < BURST; i++)
        block_put(all[i]);
    size_t chunks = BURST / (CHUNK_BLOCKS - 1) + CACHE_MAX;
    assert_true(slab_resident_bytes() <= (BURST / 10 + CACHE_MAX + chunks) * BLOCK_BYTES);
    for (int i = 0; i < BURST / 10; i++)
        block_put(all[i]);
}

static void *use_and_end(void *arg) {
    (void)arg;
    void *some[300];
    for (int i = 0; i < 300; i++)
        some[i] = block_get();
    for (int i = 0; i < 300; i++)
        block_put(some[i]);
    assert_true(cache.len > 200);
    return NULL;
}

static void an_ending_thread_gives_all_back(void **state) {
    (void)state;
    size_t chunks;
    cache_empty(&cache); /* nothing is in use now: all blocks are in the store */
    size_t blocks = stored_blocks(&chunks);
    assert_int_equal(chunks, 1);
    assert_int_equal(blocks, CHUNK_BLOCKS - 1);
    in_thread(use_and_end);
    blocks = stored_blocks(&chunks);
    assert_int_equal(chunks, 1);
    assert_int_equal(blocks, CHUNK_BLOCKS - 1);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(another_thread_may_put),
        cmocka_unit_test(several_threads_at_once),
#if !MEM_SEPARATE
        cmocka_unit_test(bursts_leave_the_rss),
        cmocka_unit_test(scattered_survivors_cost_themselves),
        cmocka_unit_test(an_ending_thread_gives_all_back),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
