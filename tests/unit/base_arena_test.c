/* Arenas: alignment and distinct memory at all sizes, marks, defers, and memory that goes back. */
#include "base/arena.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base_resident.h"

enum { MANY = 2000 };

/* The order in which defers ran. */
static char ran[64];
static char a[] = "a", b[] = "b", c[] = "c", d[] = "d";

static void note(void *arg) { strcat(ran, arg); }

static void aligned_at_all_sizes(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    for (size_t size = 0; size < 5000; size += size < 100 ? 1 : 37) {
        unsigned char *ptr = arena_alloc(arena, size);
        assert_int_equal((uintptr_t)ptr % 16, 0);
        memset(ptr, 0xee, size);
    }
    arena_free(arena);
    arena_free(NULL);
}

static void allocations_do_not_overlap(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct rand_stream random;
    unsigned char *all[MANY];
    size_t sizes[MANY];
    rand_stream_init(&random, 1);
    for (int i = 0; i < MANY; i++) {
        sizes[i] = rand_stream_u64(&random) % (i % 20 ? 200 : 6000);
        all[i] = arena_alloc(arena, sizes[i]);
        memset(all[i], i & 0xff, sizes[i]);
    }
    for (int i = 0; i < MANY; i++) {
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(all[i][k], i & 0xff);
    }
    arena_free(arena);
}

static void zero_bytes_are_distinct(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    assert_ptr_not_equal(arena_alloc(arena, 0), arena_alloc(arena, 0));
    arena_free(arena);
}

static void zalloc_is_zero(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct arena *arena = arena_new();
        struct arena_mark mark = arena_mark(arena);
        memset(arena_alloc(arena, 3000), 0xff, 3000);
        arena_reset(arena, mark);
        unsigned char *ptr = arena_zalloc(arena, 3000);
        for (int i = 0; i < 3000; i++)
            assert_int_equal(ptr[i], 0);
        arena_free(arena);
    }
}

static void copies_end_in_nul(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct str copy = arena_dup(arena, str_make("abcdef", 3));
    assert_int_equal(copy.len, 3);
    assert_string_equal(copy.ptr, "abc");
    copy = arena_dup(arena, STR_NONE);
    assert_int_equal(copy.len, 0);
    assert_string_equal(copy.ptr, "");
    arena_free(arena);
}

/* Texts of all lengths around the end of the block, each checked after the others were made. */
static void printing(void **state) {
    (void)state;
    enum { TEXTS = 200 };
    struct arena *arena = arena_new();
    struct str all[TEXTS];
    for (int i = 0; i < TEXTS; i++)
        all[i] = arena_printf(arena, "%*d", i * 7 + 3, i);
    for (int i = 0; i < TEXTS; i++) {
        int width = i * 7 + 3;
        assert_int_equal(all[i].len, width);
        assert_int_equal(strlen(all[i].ptr), width);
        assert_int_equal(all[i].ptr[width - 1], '0' + i % 10);
    }
    struct str text = arena_printf(arena, "%s", "");
    assert_int_equal(text.len, 0);
    assert_string_equal(text.ptr, "");
    text = arena_printf(arena, "%5000d", 1);
    assert_int_equal(strlen(text.ptr), 5000);
    arena_free(arena);
}

static void footprint_counts_blocks(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    size_t first = arena_footprint(arena);
    assert_int_equal(first, BLOCK_BYTES);
    struct arena_mark mark = arena_mark(arena);
    arena_alloc(arena, 100000);
    assert_true(arena_footprint(arena) >= first + 100000);
    assert_true(arena_footprint(arena) <= first + 100000 + 64);
    for (int i = 0; i < 100; i++)
        arena_alloc(arena, 100);
    assert_true(arena_footprint(arena) >= 110000);
    arena_reset(arena, mark);
    assert_int_equal(arena_footprint(arena), first);
    arena_free(arena);
}

/* Marks taken after small and large allocations alike; what is older than the mark stays. */
static void marks_nest(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct arena_mark marks[50];
    unsigned char *kept[50];
    size_t footprints[50];
    for (int i = 0; i < 50; i++) {
        kept[i] = memset(arena_alloc(arena, 700), i, 700);
        if (i % 3 == 0)
            memset(arena_alloc(arena, 5000), 0xaa, 5000);
        marks[i] = arena_mark(arena);
        footprints[i] = arena_footprint(arena);
        memset(arena_alloc(arena, 30), 0xbb, 30);
    }
    for (int i = 49; i >= 0; i--) {
        arena_reset(arena, marks[i]);
        assert_int_equal(arena_footprint(arena), footprints[i]);
        memset(arena_alloc(arena, 100), 0xcc, 100);
        memset(arena_alloc(arena, 3000), 0xcc, 3000);
        arena_reset(arena, marks[i]);
        for (int k = 0; k <= i; k++) {
            assert_int_equal(kept[k][0], k);
            assert_int_equal(kept[k][699], k);
        }
    }
    arena_free(arena);
}

static void a_loop_with_a_mark_stays_small(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    arena_alloc(arena, 4000 - 200);
    struct arena_mark mark = arena_mark(arena);
    size_t footprint = arena_footprint(arena);
    for (int i = 0; i < 1000; i++) {
        arena_alloc(arena, 500);
        arena_alloc(arena, 50000);
        arena_reset(arena, mark);
    }
    assert_int_equal(arena_footprint(arena), footprint);
    arena_free(arena);
}

static void defers_run_last_first(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    ran[0] = '\0';
    arena_defer(arena, note, a);
    struct arena_mark mark = arena_mark(arena);
    arena_defer(arena, note, b);
    arena_alloc(arena, 10000);
    arena_defer(arena, note, c);
    assert_string_equal(ran, "");
    arena_reset(arena, mark);
    assert_string_equal(ran, "cb");
    arena_reset(arena, mark);
    assert_string_equal(ran, "cb");
    arena_defer(arena, note, d);
    arena_free(arena);
    assert_string_equal(ran, "cbda");
}

static void defers_run_once_or_never(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    ran[0] = '\0';
    struct defer *first = arena_defer(arena, note, a);
    struct defer *second = arena_defer(arena, note, b);
    struct defer *third = arena_defer(arena, note, c);
    arena_defer(arena, note, d);
    defer_run(first);
    defer_run(first);
    defer_drop(second);
    defer_run(second);
    defer_run(third);
    defer_drop(third);
    assert_string_equal(ran, "ac");
    arena_free(arena);
    assert_string_equal(ran, "acd");
}

/* A defer may settle another one, older or newer than itself. */
static void run_other(void *arg) {
    strcat(ran, "!");
    defer_run(arg);
}

static void a_defer_runs_another(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    ran[0] = '\0';
    struct defer *older = arena_defer(arena, note, a);
    arena_defer(arena, run_other, older);
    arena_free(arena);
    assert_string_equal(ran, "!a");
}

static void *free_here(void *arg) {
    struct arena **all = arg;
    for (int i = 0; i < MANY; i++)
        arena_free(all[i]);
    return NULL;
}

static void another_thread_may_free(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct arena *all[MANY];
        for (int i = 0; i < MANY; i++) {
            all[i] = arena_new();
            memset(arena_alloc(all[i], 3000), 1, 3000);
            memset(arena_alloc(all[i], 3000), 2, 3000);
        }
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, free_here, all), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

#if !MEM_SEPARATE

static void memory_goes_back_after_a_burst(void **state) {
    (void)state;
    enum { BURST = 9000 };
    static struct arena *all[BURST];
    assert_int_equal(slab_resident_bytes() % BLOCK_BYTES, 0); /* or skips */
    for (int i = 0; i < BURST; i++) {
        all[i] = arena_new();
        memset(arena_alloc(all[i], 3000), 1, 3000);
        memset(arena_alloc(all[i], 2000), 1, 2000);
    }
    assert_true(slab_resident_bytes() >= (size_t)BURST * 2 * BLOCK_BYTES);
    for (int i = 0; i < BURST; i++)
        arena_free(all[i]);
    assert_true(slab_resident_bytes() < 3 * 1024 * 1024);
}

static void one_block_serves_a_small_request(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    assert_true((size_t)(arena->end - arena->cur) >= 4000);
    unsigned char *head = arena_alloc(arena, 3500);
    unsigned char *body = arena_alloc(arena, 500);
    assert_ptr_equal(body, head + 3504);
    assert_int_equal(arena_footprint(arena), BLOCK_BYTES);
    arena_free(arena);
}

/* Back at a mark, the same memory is handed out again: from the middle of a block, and after the
 * blocks and large allocations that came later are gone. */
static void a_reset_takes_the_room_back(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    arena_alloc(arena, 1000);
    struct arena_mark mark = arena_mark(arena);
    void *next = arena_alloc(arena, 10);
    arena_reset(arena, mark);
    assert_ptr_equal(arena_alloc(arena, 10), next);
    for (int i = 0; i < 10; i++)
        arena_alloc(arena, 2000);
    arena_alloc(arena, 20000);
    arena_reset(arena, mark);
    assert_ptr_equal(arena_alloc(arena, 10), next);
    arena_free(arena);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_at_all_sizes),
        cmocka_unit_test(allocations_do_not_overlap),
        cmocka_unit_test(zero_bytes_are_distinct),
        cmocka_unit_test(zalloc_is_zero),
        cmocka_unit_test(copies_end_in_nul),
        cmocka_unit_test(printing),
        cmocka_unit_test(footprint_counts_blocks),
        cmocka_unit_test(marks_nest),
        cmocka_unit_test(a_loop_with_a_mark_stays_small),
        cmocka_unit_test(defers_run_last_first),
        cmocka_unit_test(defers_run_once_or_never),
        cmocka_unit_test(a_defer_runs_another),
        cmocka_unit_test(another_thread_may_free),
#if !MEM_SEPARATE
        cmocka_unit_test(memory_goes_back_after_a_burst),
        cmocka_unit_test(one_block_serves_a_small_request),
        cmocka_unit_test(a_reset_takes_the_room_back),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
