/* The map against a plain array as the model, with many keys, removals and forced collisions. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* While set, every key hashes to the last slots of any array: probing wraps around. */
static bool collide;

static uint64_t hash_for_test(const void *ptr, size_t len, uint64_t seed) {
    uint64_t hash = hash_seeded(ptr, len, seed);
    return collide ? hash | ~UINT64_C(1) : hash;
}

#define hash_seeded hash_for_test
#include "base/map.c"
#undef hash_seeded

static int values[2000];

static struct str key_of(int i, char out[16]) {
    return str_make(out, (size_t)snprintf(out, 16, "worker-%d", i));
}

static void empty_map(void **state) {
    (void)state;
    struct map map;
    map_init(&map);
    size_t cursor = 0;
    struct str key;
    void *value;
    assert_null(map_get(&map, STR("a")));
    assert_null(map_remove(&map, STR("a")));
    assert_false(map_next(&map, &cursor, &key, &value));
    map_free(&map);
    map_free(&map);
}

static void put_replaces(void **state) {
    (void)state;
    struct map map;
    map_init(&map);
    char text[] = "key";
    assert_null(map_put(&map, str_from(text), &values[0]));
    text[0] = 'X'; /* the map has its own copy */
    assert_ptr_equal(map_put(&map, STR("key"), &values[1]), &values[0]);
    assert_ptr_equal(map_get(&map, STR("key")), &values[1]);
    assert_int_equal(map.len, 1);
    assert_null(map_get(&map, STR("ke")));
    assert_null(map_get(&map, STR("keyy")));
    map_free(&map);
    assert_null(map_get(&map, STR("key")));
}

static void odd_keys(void **state) {
    (void)state;
    struct map map;
    map_init(&map);
    assert_null(map_put(&map, STR_NONE, &values[0]));
    assert_ptr_equal(map_get(&map, STR("")), &values[0]);
    assert_null(map_put(&map, STR("a\0b"), &values[1]));
    assert_null(map_get(&map, STR("a")));
    assert_ptr_equal(map_get(&map, STR("a\0b")), &values[1]);
    assert_ptr_equal(map_remove(&map, STR("")), &values[0]);
    assert_null(map_get(&map, STR("")));
    map_free(&map);
}

/* Every live key is found with its value and seen once by the walk; no other is. */
static void check_against(const struct map *map, const bool *live, int count) {
    char text[16];
    size_t alive = 0;
    for (int i = 0; i < count; i++) {
        assert_ptr_equal(map_get(map, key_of(i, text)), live[i] ? &values[i] : NULL);
        alive += live[i];
    }
    assert_int_equal(map->len, alive);
    bool seen[2000] = {false};
    size_t cursor = 0, walked = 0;
    struct str key;
    void *value;
    while (map_next(map, &cursor, &key, &value)) {
        int i = (int)((int *)value - values);
        assert_true(live[i] && !seen[i]);
        assert_true(str_eq(key, key_of(i, text)));
        seen[i] = true;
        walked++;
    }
    assert_int_equal(walked, alive);
}

/* `steps` random puts and removals over `count` keys. */
static void churn(int count, int steps, uint64_t seed) {
    struct map map;
    struct rand_stream random;
    bool live[2000] = {false};
    char text[16];
    map_init(&map);
    rand_stream_init(&random, seed);
    for (int step = 0; step < steps; step++) {
        int i = (int)(rand_stream_u64(&random) % (uint64_t)count);
        void *before = live[i] ? &values[i] : NULL;
        if (rand_stream_u64(&random) & 1) {
            assert_ptr_equal(map_put(&map, key_of(i, text), &values[i]), before);
            live[i] = true;
        } else {
            assert_ptr_equal(map_remove(&map, key_of(i, text)), before);
            live[i] = false;
        }
        if (step % (steps / 20) == 0)
            check_against(&map, live, count);
    }
    check_against(&map, live, count);
    map_free(&map);
}

static void random_changes(void **state) {
    (void)state;
    churn(2000, 20000, 1);
    churn(10, 2000, 2);
}

static void random_changes_with_collisions(void **state) {
    (void)state;
    collide = true;
    churn(12, 4000, 3);
    churn(100, 4000, 4);
    collide = false;
}

static void it_shrinks(void **state) {
    (void)state;
    struct map map;
    char text[16];
    map_init(&map);
    for (int i = 0; i < 2000; i++)
        assert_null(map_put(&map, key_of(i, text), &values[i]));
    assert_true(map.cap >= 2048 && map.len * 4 <= map.cap * 3);
    for (int i = 0; i < 2000; i++)
        assert_ptr_equal(map_remove(&map, key_of(i, text)), &values[i]);
    assert_int_equal(map.len, 0);
    assert_int_equal(map.cap, MIN_CAP);
    map_free(&map);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_map),
        cmocka_unit_test(put_replaces),
        cmocka_unit_test(odd_keys),
        cmocka_unit_test(random_changes),
        cmocka_unit_test(random_changes_with_collisions),
        cmocka_unit_test(it_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
