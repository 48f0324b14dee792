/* Pools: distinct aligned objects under random use at several sizes, slabs given back. */
#include "base/pool.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base_resident.h"

enum { MANY = 3000 };

static const size_t sizes[] = {1, 16, 24, 100, 1000, 4096, 16384, 65536};

/* Fills the object with a byte of its own; checked before it goes back. */
static void check_object(const unsigned char *object, size_t size, int tag) {
    assert_int_equal(object[0], tag & 0xff);
    assert_int_equal(object[size / 2], tag & 0xff);
    assert_int_equal(object[size - 1], tag & 0xff);
}

static void random_use(size_t size, int slots, int steps) {
    static unsigned char *all[MANY];
    struct pool *pool = pool_new("test", size);
    struct rand_stream random;
    size_t live = 0;
    rand_stream_init(&random, size);
    memset(all, 0, sizeof all);
    for (int step = 0; step < steps; step++) {
        int i = (int)(rand_stream_u64(&random) % (uint64_t)slots);
        if (all[i] == NULL) {
            all[i] = pool_get(pool);
            assert_int_equal((uintptr_t)all[i] % 16, 0);
            memset(all[i], i & 0xff, size);
            live++;
        } else {
            check_object(all[i], size, i);
            pool_put(pool, all[i]);
            all[i] = NULL;
            live--;
        }
        assert_int_equal(pool_in_use(pool), live);
    }
    for (int i = 0; i < slots; i++) {
        if (all[i] != NULL) {
            check_object(all[i], size, i);
            pool_put(pool, all[i]);
        }
    }
    assert_int_equal(pool_in_use(pool), 0);
    pool_free(pool);
}

static void objects_do_not_overlap(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        random_use(sizes[i], sizes[i] > 4096 ? 100 : MANY, sizes[i] > 4096 ? 1000 : 20000);
}

#if !MEM_SEPARATE

/* Slabs in the list of those with room. */
static size_t slabs_with_room(const struct pool *pool) {
    size_t count = 0;
    list_for (link, &pool->room)
        count++;
    return count;
}

static void burst_leaves_the_rss(void **state) {
    (void)state;
    enum { BURST = 15000, SIZE = 2000 };
    static void *all[BURST];
    struct pool *pool = pool_new("connections", SIZE);
    assert_int_equal(slab_resident_bytes(), 0);
    for (int i = 0; i < BURST; i++)
        all[i] = memset(pool_get(pool), 1, SIZE);
    assert_true(slab_resident_bytes() >= (size_t)BURST * SIZE);
    for (int i = 0; i < BURST; i++)
        pool_put(pool, all[(i * 7919) % BURST]);
    assert_true(slab_resident_bytes() <= pool->slab_size);
    assert_int_equal(slabs_with_room(pool), 1);
    assert_non_null(pool->spare);
    pool_free(pool);
}

static void one_empty_slab_is_kept_and_used_again(void **state) {
    (void)state;
    struct pool *pool = pool_new("test", 64);
    void *first = pool_get(pool);
    pool_put(pool, first);
    assert_non_null(pool->spare);
    assert_ptr_equal(pool_get(pool), first);
    assert_null(pool->spare);
    pool_put(pool, first);
    pool_free(pool);
}

static void full_slabs_leave_the_list(void **state) {
    (void)state;
    struct pool *pool = pool_new("test", 16384);
    void *all[4];
    size_t count = (pool->slab_size - sizeof(struct slab)) / 16384;
    assert_true(count >= OBJECTS_MIN);
    void **objects = mem_alloc(count * sizeof *objects);
    for (size_t i = 0; i < count; i++)
        objects[i] = pool_get(pool);
    assert_int_equal(slabs_with_room(pool), 0);
    all[0] = pool_get(pool);
    assert_int_equal(slabs_with_room(pool), 1);
    pool_put(pool, objects[0]); /* full no more: it comes before the sparser slab */
    assert_int_equal(slabs_with_room(pool), 2);
    assert_ptr_equal(pool_get(pool), objects[0]);
    for (size_t i = 0; i < count; i++)
        pool_put(pool, objects[i]);
    pool_put(pool, all[0]);
    assert_int_equal(slabs_with_room(pool), 1);
    mem_free(objects);
    pool_free(pool);
}

static void untouched_objects_cost_nothing(void **state) {
    (void)state;
    struct pool *pool = pool_new("test", 1000 * 1000);
    void *object = pool_get(pool);
    assert_int_equal(slab_resident_bytes(), sysconf(_SC_PAGESIZE)); /* the slab's header */
    pool_put(pool, object);
    pool_free(pool);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_do_not_overlap),
#if !MEM_SEPARATE
        cmocka_unit_test(burst_leaves_the_rss),
        cmocka_unit_test(one_empty_slab_is_kept_and_used_again),
        cmocka_unit_test(full_slabs_leave_the_list),
        cmocka_unit_test(untouched_objects_cost_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
