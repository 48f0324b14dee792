/* The ring: owners against a plain search, even shares, little movement when workers come and go,
 * the walk asks each once and in order, and places are pinned over builds. */
#include "fleet/hash_ring.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rand.h"

enum { MANY = 3000 };

static char urls[MANY][32];
static struct str names[MANY];

static int name_all(void **state) {
    (void)state;
    for (int i = 0; i < MANY; i++)
        names[i] = str_make(urls[i], (size_t)snprintf(urls[i], sizeof urls[i],
                                                      "http://10.0.%d.%d:8000", i / 250, i % 250));
    return 0;
}

/* --- owners ---------------------------------------------------------------------------------- */

/* The owner by looking at every place. */
static int plain_owner(size_t count, uint64_t point) {
    uint64_t best = UINT64_MAX, first = UINT64_MAX;
    int owner = -1, first_owner = -1;
    for (size_t n = 0; n < count; n++) {
        struct spot spots[HASH_RING_PLACES];
        place_name(names[n], (uint32_t)n, spots);
        for (int i = 0; i < HASH_RING_PLACES; i++) {
            if (spots[i].point >= point && spots[i].point < best) {
                best = spots[i].point;
                owner = (int)n;
            }
            if (spots[i].point < first) {
                first = spots[i].point;
                first_owner = (int)n;
            }
        }
    }
    return owner >= 0 ? owner : first_owner;
}

static void owners_are_those_of_a_plain_search(void **state) {
    (void)state;
    struct rand_stream random;
    rand_stream_init(&random, 1);
    for (size_t count = 1; count <= 20; count++) {
        struct hash_ring *ring = hash_ring_new(names, count);
        for (int i = 0; i < 200; i++) {
            uint64_t point = rand_stream_u64(&random);
            assert_int_equal(hash_ring_owner(ring, point), plain_owner(count, point));
        }
        assert_int_equal(hash_ring_owner(ring, 0), plain_owner(count, 0));
        assert_int_equal(hash_ring_owner(ring, UINT64_MAX), plain_owner(count, UINT64_MAX));
        uint64_t edge = ring->points[7];
        assert_int_equal(hash_ring_owner(ring, edge), ring->owners[7]);
        assert_int_equal(hash_ring_owner(ring, edge + 1), ring->owners[8]);
        hash_ring_free(ring);
    }
}

static void points_are_in_order(void **state) {
    (void)state;
    struct hash_ring *ring = hash_ring_new(names, MANY);
    uint32_t *places = mem_zalloc(MANY * sizeof *places);
    assert_int_equal(ring->len, (size_t)MANY * HASH_RING_PLACES);
    for (size_t i = 0; i < ring->len; i++) {
        assert_true(i == 0 || ring->points[i - 1] <= ring->points[i]);
        places[ring->owners[i]]++;
    }
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(places[i], HASH_RING_PLACES);
    mem_free(places);
    hash_ring_free(ring);
}

/* --- shares ---------------------------------------------------------------------------------- */

enum { KEYS = 20000 };

static uint64_t key_point(uint32_t key) {
    char text[16];
    int len = snprintf(text, sizeof text, "user-%u", key);
    return hash_ring_point(str_make(text, (size_t)len));
}

static void shares_are_even(void **state) {
    (void)state;
    uint32_t shares[10] = {0};
    struct hash_ring *ring = hash_ring_new(names, 10);
    for (uint32_t key = 0; key < KEYS; key++)
        shares[hash_ring_owner(ring, key_point(key))]++;
    for (int i = 0; i < 10; i++)
        assert_in_range(shares[i], KEYS / 10 * 70 / 100, KEYS / 10 * 130 / 100);
    hash_ring_free(ring);
}

static void only_keys_of_the_gone_move(void **state) {
    (void)state;
    struct hash_ring *before = hash_ring_new(names, 10), *after = hash_ring_new(names + 1, 9);
    uint32_t moved = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        int was = hash_ring_owner(before, key_point(key)),
            is = hash_ring_owner(after, key_point(key));
        if (was == 0)
            moved++;
        else
            assert_int_equal(is + 1, was); /* numbers shift by one, names do not */
    }
    assert_in_range(moved, KEYS / 20, KEYS / 6);
    hash_ring_free(before);
    hash_ring_free(after);
}

static void order_of_names_does_not_matter(void **state) {
    (void)state;
    struct str turned[10];
    for (int i = 0; i < 10; i++)
        turned[i] = names[9 - i];
    struct hash_ring *a = hash_ring_new(names, 10), *b = hash_ring_new(turned, 10);
    for (uint32_t key = 0; key < 2000; key++)
        assert_int_equal(hash_ring_owner(a, key_point(key)),
                         9 - hash_ring_owner(b, key_point(key)));
    hash_ring_free(a);
    hash_ring_free(b);
}

/* --- the walk -------------------------------------------------------------------------------- */

struct asking {
    uint32_t order[MANY];
    size_t count;
    int64_t wanted; /* the number taken; -1 none */
};

static bool ask(void *arg, uint32_t number) {
    struct asking *asking = arg;
    asking->order[asking->count++] = number;
    return (int64_t)number == asking->wanted;
}

/* Who is met from a point on, by walking without a list of the asked. */
static size_t plain_order(const struct hash_ring *ring, uint64_t point, uint32_t *order) {
    bool met[MANY] = {false};
    size_t count = 0, at = place_of(ring, point);
    for (size_t i = 0; i < ring->len; i++, at = (at + 1) % ring->len) {
        if (!met[ring->owners[at]])
            order[count++] = ring->owners[at];
        met[ring->owners[at]] = true;
    }
    return count;
}

static void each_is_asked_once_in_order(void **state) {
    (void)state;
    static const size_t counts[] = {1, 2, 15, 16, 17, 18, 64, 65, 500};
    static struct asking asking;
    static uint32_t order[MANY];
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct hash_ring *ring = hash_ring_new(names, counts[c]);
        for (uint32_t key = 0; key < 20; key++) {
            asking.count = 0;
            asking.wanted = -1;
            assert_int_equal(hash_ring_find(ring, key_point(key), ask, &asking), -1);
            assert_int_equal(asking.count, counts[c]);
            assert_int_equal(plain_order(ring, key_point(key), order), counts[c]);
            assert_memory_equal(asking.order, order, counts[c] * sizeof *order);
            assert_int_equal(order[0], hash_ring_owner(ring, key_point(key)));
        }
        hash_ring_free(ring);
    }
}

static void the_first_acceptable_is_found(void **state) {
    (void)state;
    static struct asking asking;
    static uint32_t order[MANY];
    struct hash_ring *ring = hash_ring_new(names, 100);
    plain_order(ring, key_point(1), order);
    for (size_t i = 0; i < 100; i++) {
        asking.count = 0;
        asking.wanted = order[i];
        assert_int_equal(hash_ring_find(ring, key_point(1), ask, &asking), order[i]);
        assert_int_equal(asking.count, i + 1);
    }
    hash_ring_free(ring);
}

static void an_empty_ring_has_no_owner(void **state) {
    (void)state;
    static struct asking asking;
    struct hash_ring *ring = hash_ring_new(NULL, 0);
    assert_int_equal(hash_ring_owner(ring, 5), -1);
    assert_int_equal(hash_ring_find(ring, 5, ask, &asking), -1);
    assert_int_equal(asking.count, 0);
    assert_int_equal(hash_ring_count(ring), 0);
    hash_ring_free(ring);
    hash_ring_free(NULL);
}

static void equal_names_share_places(void **state) {
    (void)state;
    static struct asking asking;
    struct str same[] = {STR("http://a:1"), STR("http://a:1"), STR("http://b:1")};
    struct hash_ring *ring = hash_ring_new(same, 3);
    for (uint32_t key = 0; key < 500; key++)
        assert_int_not_equal(hash_ring_owner(ring, key_point(key)), 1);
    asking.wanted = 1;
    assert_int_equal(hash_ring_find(ring, 5, ask, &asking), 1);
    hash_ring_free(ring);
}

static void a_group_goes_by_its_urls(void **state) {
    (void)state;
    struct worker workers[5] = {0}, *list[5];
    for (int i = 0; i < 5; i++) {
        workers[i].url = names[i];
        list[i] = &workers[i];
    }
    struct fleet_group group = {list, 5};
    struct hash_ring *a = hash_ring_of(&group), *b = hash_ring_new(names, 5);
    assert_int_equal(hash_ring_count(a), 5);
    assert_memory_equal(a->points, b->points, a->len * sizeof *a->points);
    assert_memory_equal(a->owners, b->owners, a->len * sizeof *a->owners);
    hash_ring_free(a);
    hash_ring_free(b);
}

static void places_are_pinned(void **state) {
    (void)state;
    static const int owners[] = {3, 5, 1, 4, 8, 2, 0, 5};
    struct hash_ring *ring = hash_ring_new(names, 10);
    for (uint32_t key = 0; key < 8; key++)
        assert_int_equal(hash_ring_owner(ring, key_point(key)), owners[key]);
    assert_true(hash_ring_point(STR("key")) == UINT64_C(0x0c37033bf42105f2));
    hash_ring_free(ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_are_those_of_a_plain_search),
        cmocka_unit_test(points_are_in_order),
        cmocka_unit_test(shares_are_even),
        cmocka_unit_test(only_keys_of_the_gone_move),
        cmocka_unit_test(order_of_names_does_not_matter),
        cmocka_unit_test(each_is_asked_once_in_order),
        cmocka_unit_test(the_first_acceptable_is_found),
        cmocka_unit_test(an_empty_ring_has_no_owner),
        cmocka_unit_test(equal_names_share_places),
        cmocka_unit_test(a_group_goes_by_its_urls),
        cmocka_unit_test(places_are_pinned),
    };
    return cmocka_run_group_tests(tests, name_all, NULL);
}
