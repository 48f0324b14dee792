/* The store: what was put is read, through all sizes that a shard grows and shrinks through; both
 * bounds hold at every step and the oldest go first; its own counts agree with what is in it; and
 * threads that write, read, grow and shrink at once see only what somebody wrote. */
#include "fleet/prefix_table.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base_resident.h"

#define MIB ((uint64_t)1 << 20)

static struct prefix_table *make(uint64_t entries, uint64_t bytes) {
    struct prefix_table *table = NULL;
    assert_int_equal(prefix_table_new(entries, bytes, &table), 0);
    return table;
}

static uint64_t mixed(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static size_t put_one(struct prefix_table *table, uint64_t hash, uint16_t slot, uint32_t tick) {
    return prefix_table_put(table, &hash, 1, prefix_table_holder(table, slot), tick);
}

static struct prefix_set read_one(const struct prefix_table *table, uint64_t hash) {
    struct prefix_set set;
    prefix_table_read(table, &hash, 1, &set);
    return set;
}

static bool holds(const struct prefix_table *table, uint64_t hash, uint16_t slot) {
    struct prefix_set set = read_one(table, hash);
    for (size_t i = 0; i < set.count; i++) {
        if (set.holders[i].slot == slot)
            return true;
    }
    return false;
}

static struct prefix_table_counts counts_of(const struct prefix_table *table) {
    struct prefix_table_counts counts;
    prefix_table_count(table, &counts);
    return counts;
}

/* --- the table's own order ------------------------------------------------------------------- */

static uint64_t check_bucket(const struct prefix_table *table, const struct array *array,
                             uint32_t shard, uint32_t at, uint32_t *passed_on) {
    const struct bucket *bucket = &array->buckets[at];
    uint64_t used = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        uint8_t tag = byte_of(bucket->tags, slot);
        if (tag == 0)
            continue;
        uint64_t hash = word(&bucket->entries[slot].hash);
        uint32_t home = home_of(array, hash);
        assert_int_equal(tag, tag_of(hash));
        assert_int_equal(shard_of(table, hash), shard);
        assert_true(home == at || after(array, home) == at);
        passed_on[home] += home != at;
        used++;
    }
    return used;
}

static void check_shard(const struct prefix_table *table, uint32_t shard) {
    struct array array = array_now(table, shard);
    uint32_t *passed_on = mem_zalloc((array.n + 1) * sizeof *passed_on);
    uint64_t used = 0;
    for (uint32_t at = 0; at < array.n; at++)
        used += check_bucket(table, &array, shard, at, passed_on);
    for (uint32_t at = 0; at < array.n; at++)
        assert_int_equal(passed(&array.buckets[at]), passed_on[at]);
    assert_int_equal(used, get_32(&table->shards[shard].count));
    mem_free(passed_on);
}

static void check(const struct prefix_table *table) {
    struct prefix_table_counts counts = counts_of(table);
    assert_true(counts.entries <= counts.entry_limit);
    assert_true(counts.bytes <= counts.byte_limit);
    for (uint32_t i = 0; i < table->shard_count; i++)
        check_shard(table, i);
}

/* --- putting and reading --------------------------------------------------------------------- */

static void what_is_put_is_read(void **state) {
    (void)state;
    enum { N = 100000 };
    struct prefix_table *table = make(1 << 20, 64 * MIB);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put_one(table, mixed(i), (uint16_t)(i % 7), (uint32_t)i), 1);
    check(table);
    assert_int_equal(counts_of(table).entries, N);
    assert_int_equal(counts_of(table).evictions, 0);
    assert_false(prefix_table_holes(table));
    for (uint64_t i = 0; i < N; i++) {
        struct prefix_set set = read_one(table, mixed(i));
        assert_int_equal(set.count, 1);
        assert_int_equal(set.holders[0].slot, i % 7);
        assert_int_equal(set.holders[0].tick, i);
        assert_int_equal(read_one(table, mixed(i + N)).count, 0);
    }
    prefix_table_free(table);
}

static void memory_follows_the_entries(void **state) {
    (void)state;
    struct prefix_table *table = make(1 << 24, 256 * MIB);
    uint64_t empty = counts_of(table).bytes, grown = 0;
    assert_in_range(empty, 1, MIB);
    for (uint64_t i = 0; i < 300000; i++) {
        put_one(table, mixed(i), 1, 0);
        if (i % 10000 != 9999)
            continue;
        uint64_t bytes = counts_of(table).bytes - empty;
        /* At least a quarter full, but for the first page of each shard. */
        assert_true(bytes <= (i + 1) * 43 * 4 + (uint64_t)table->shard_count * 4096);
        grown += bytes > (i + 1) * 43;
    }
    assert_true(grown > 0);
    prefix_table_free(table);
}

static void zero_is_a_hash_like_any(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    assert_int_equal(read_one(table, 0).count, 0);
    assert_int_equal(put_one(table, 0, 3, 9), 1);
    assert_true(holds(table, 0, 3));
    check(table);
    prefix_table_free(table);
}

/* What a reader must notice that was overtaken: here step by step, as threads seldom do it. */
static void a_changed_entry_is_not_read(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    struct prefix_set set;
    put_one(table, mixed(1), 1, 0);
    struct array array = array_now(table, shard_of(table, mixed(1)));
    struct spot spot = find(&array, mixed(1));
    assert_true(read_entry(table, spot.entry, mixed(1), &set));
    assert_false(read_entry(table, spot.entry, mixed(2), &set));
    prefix_table_free(table);
}

static void a_moved_array_is_read_anew(void **state) {
    (void)state;
    struct prefix_table *table = make(1 << 20, 64 * MIB);
    uint32_t shard = shard_of(table, mixed(1));
    struct prefix_set set;
    put_one(table, mixed(1), 1, 0);
    struct array before = array_now(table, shard);
    for (uint64_t i = 2; size_of(table, shard) == before.size; i++)
        put_one(table, mixed(i), 1, 0);
    assert_null(find(&before, mixed(1)).entry); /* its pages are gone */
    read_block(table, mixed(1), before, &set);
    assert_int_equal(set.count, 1);
    prefix_table_free(table);
}

/* --- holders --------------------------------------------------------------------------------- */

static void a_set_keeps_the_last_four(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    for (uint16_t slot = 0; slot < 4; slot++)
        assert_int_equal(put_one(table, 77, slot, slot), 1);
    assert_int_equal(put_one(table, 77, 0, 10), 0); /* used again: 1 is the oldest now */
    assert_int_equal(put_one(table, 77, 9, 11), 1);
    assert_false(holds(table, 77, 1));
    assert_true(holds(table, 77, 0) && holds(table, 77, 2) && holds(table, 77, 3));
    assert_true(holds(table, 77, 9));
    assert_int_equal(prefix_table_held(table, 1), 0);
    assert_int_equal(prefix_table_held(table, 9), 1);
    assert_int_equal(counts_of(table).entries, 1);
    prefix_table_free(table);
}

static void late_news_does_not_turn_time_back(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    put_one(table, 77, 1, 100);
    put_one(table, 77, 1, 90);
    assert_int_equal(read_one(table, 77).holders[0].tick, 100);
    put_one(table, 78, 1, UINT32_MAX);
    put_one(table, 78, 1, 5); /* the clock has wrapped */
    assert_int_equal(read_one(table, 78).holders[0].tick, 5);
    prefix_table_free(table);
}

static void who_left_is_nobody(void **state) {
    (void)state;
    struct prefix_table *table = make(1000, MIB);
    for (uint64_t i = 0; i < 500; i++)
        put_one(table, mixed(i), 5, 1);
    assert_int_equal(prefix_table_held(table, 5), 500);
    struct prefix_holder old = prefix_table_holder(table, 5);
    prefix_table_leave(table, 5);
    assert_int_equal(prefix_table_held(table, 5), 0);
    for (uint64_t i = 0; i < 500; i++)
        assert_int_equal(read_one(table, mixed(i)).count, 0);
    struct prefix_holder new = prefix_table_holder(table, 5);
    assert_true(new.slot == old.slot &&new.generation != old.generation);
    assert_int_equal(put_one(table, mixed(1), 5, 2), 1); /* its place is free again */
    assert_int_equal(read_one(table, mixed(1)).count, 1);
    assert_int_equal(counts_of(table).entries, 500);
    prefix_table_free(table);
}

static void generations_come_round_without_nought(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    uint16_t first = prefix_table_holder(table, 65535).generation;
    uint32_t round = 0;
    do {
        prefix_table_leave(table, 65535);
        assert_int_not_equal(prefix_table_holder(table, 65535).generation, 0);
        round++;
    } while (prefix_table_holder(table, 65535).generation != first);
    assert_int_equal(round, 65535);
    prefix_table_free(table);
}

static void dropping_takes_one_holder(void **state) {
    (void)state;
    struct prefix_table *table = make(100, MIB);
    uint64_t hashes[] = {mixed(1), mixed(2)};
    put_one(table, hashes[0], 1, 1);
    put_one(table, hashes[0], 2, 1);
    put_one(table, hashes[1], 1, 1);
    prefix_table_drop(table, hashes, 2, prefix_table_holder(table, 1));
    assert_true(holds(table, hashes[0], 2) && !holds(table, hashes[0], 1));
    assert_int_equal(counts_of(table).entries, 1); /* the other had nobody left */
    assert_int_equal(prefix_table_held(table, 1), 0);
    assert_int_equal(prefix_table_held(table, 2), 1);
    assert_true(prefix_table_holes(table));
    check(table);
    prefix_table_free(table);
}

/* --- bounds ---------------------------------------------------------------------------------- */

static void bounds_hold_at_every_step(void **state) {
    (void)state;
    static const struct {
        uint64_t entries, bytes;
    } cases[] = {{1, MIB},        {2, MIB},          {95, MIB},          {1000, MIB},
                 {4000, 4 * MIB}, {UINT64_MAX, MIB}, {1 << 20, 2 * MIB}, {50000, 16 * MIB}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct prefix_table *table = make(cases[c].entries, cases[c].bytes);
        uint64_t limit = counts_of(table).entry_limit;
        assert_in_range(limit, 1, cases[c].entries);
        for (uint64_t i = 0; i < 3 * limit; i++) {
            put_one(table, mixed(i), (uint16_t)(i % 50), (uint32_t)i);
            if (i % 97 == 0) {
                struct prefix_table_counts counts = counts_of(table);
                assert_true(counts.entries <= limit && counts.bytes <= cases[c].bytes);
            }
            assert_true(holds(table, mixed(i), (uint16_t)(i % 50)));
        }
        check(table);
        assert_true(counts_of(table).entries > limit * 9 / 10);
        prefix_table_free(table);
    }
}

static void bad_bounds_are_refused(void **state) {
    (void)state;
    struct prefix_table *table;
    assert_int_equal(prefix_table_new(0, MIB, &table), -EINVAL);
    assert_int_equal(prefix_table_new(1, MIB - 1, &table), -EINVAL);
    assert_int_equal(prefix_table_new(1, 0, &table), -EINVAL);
}

static void counts_agree_with_contents(void **state) {
    (void)state;
    struct prefix_table *table = make(3000, MIB);
    for (uint64_t i = 0; i < 20000; i++)
        put_one(table, mixed(i % 3 ? i : i / 2), (uint16_t)(i % 11), (uint32_t)i);
    uint64_t held[11] = {0};
    for (uint64_t i = 0; i < 20000; i++) {
        struct prefix_set set = read_one(table, mixed(i));
        for (size_t j = 0; j < set.count; j++)
            held[set.holders[j].slot]++;
    }
    for (uint16_t slot = 0; slot < 11; slot++)
        assert_int_equal(prefix_table_held(table, slot), held[slot]);
    prefix_table_free(table);
}

static unsigned plain_oldest(const struct place *place, uint32_t at) {
    unsigned most = 0;
    for (int i = 0; i < WINDOW; i++, at = after(&place->array, at)) {
        const struct bucket *bucket = &place->array.buckets[at];
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            unsigned rank = byte_of(bucket->tags, slot) != 0 ? age_in(place, bucket, slot) + 1 : 0;
            most = rank > most ? rank : most;
        }
    }
    return most < UINT8_MAX ? most : UINT8_MAX;
}

static void the_victim_is_the_oldest_of_its_window(void **state) {
    (void)state;
    struct prefix_table *table = make(800, MIB);
    struct rand_stream random;
    rand_stream_init(&random, 3);
    for (uint32_t i = 0; i < 20000; i++) {
        put_one(table, mixed(rand_stream_u64(&random) % 2000), 1, i);
        struct place place = {table, table->shards, 0, array_now(table, 0)};
        uint32_t at = (uint32_t)(rand_stream_u64(&random) % place.array.n);
        struct victim victim = oldest_near(&place, at);
        assert_int_equal(victim.rank, plain_oldest(&place, at));
        assert_true(victim.bucket == at || victim.bucket == after(&place.array, at));
        const struct bucket *bucket = &place.array.buckets[victim.bucket];
        if (victim.rank > 0 && victim.rank < UINT8_MAX)
            assert_int_equal(age_in(&place, bucket, victim.slot) + 1, victim.rank);
    }
    assert_true(counts_of(table).evictions > 1000);
    prefix_table_free(table);
}

/* What is used stays, what is not goes. */
static void the_oldest_go_first(void **state) {
    (void)state;
    enum { N = 20000, HOT = 1000 };
    struct prefix_table *table = make(N, 16 * MIB);
    uint64_t limit = counts_of(table).entry_limit, lost = 0, young = 0, old = 0;
    for (uint64_t i = 0; i < 5 * limit; i++) {
        put_one(table, mixed(i), 1, (uint32_t)i);
        put_one(table, mixed(1000000 + i % HOT), 1, (uint32_t)i);
    }
    for (uint64_t i = 0; i < HOT; i++)
        lost += read_one(table, mixed(1000000 + i)).count == 0;
    for (uint64_t i = 0; i < limit / 3; i++) {
        young += read_one(table, mixed(5 * limit - 1 - i)).count;
        old += read_one(table, mixed(5 * limit - 2 * limit - i)).count;
    }
    assert_int_equal(lost, 0);
    assert_true(young >= limit / 3 * 99 / 100);
    assert_true(old <= limit / 3 / 100);
    prefix_table_free(table);
}

/* Hashes that all have one home: a client cannot make the table grow, or slow. */
static void a_flood_of_one_bucket_stays_there(void **state) {
    (void)state;
    struct prefix_table *table = make(1 << 20, 64 * MIB);
    uint64_t empty = counts_of(table).bytes;
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t hash = UINT64_C(0x1234) << 48 | i << 32 | 0x55555555;
        put_one(table, hash, 1, 0);
        assert_true(holds(table, hash, 1));
    }
    check(table);
    assert_in_range(counts_of(table).entries, SLOTS, 64 * SLOTS);
    assert_true(counts_of(table).bytes - empty <= 16 * 4096);
    prefix_table_free(table);
}

static void a_lower_bound_gives_memory_back(void **state) {
    (void)state;
    enum { N = 200000 };
    struct prefix_table *table = make(N, 64 * MIB);
    for (uint64_t i = 0; i < N; i++)
        put_one(table, mixed(i), 1, (uint32_t)i);
    uint64_t before = counts_of(table).bytes, young = 0;
    for (uint64_t left = N / 2; left > 100; left /= 4) {
        prefix_table_limit(table, left);
        check(table);
        assert_int_equal(counts_of(table).entry_limit, left);
        assert_in_range(counts_of(table).entries, left * 9 / 10, left);
        for (uint64_t i = 0; i < left / 2; i++)
            young += holds(table, mixed(N - 1 - i), 1);
        if (left > N / 16) /* two epochs */
            assert_true(young >= left / 2 * 9 / 10);
        young = 0;
        assert_int_equal(prefix_table_held(table, 1), counts_of(table).entries);
    }
    assert_true(counts_of(table).bytes < before / 4);
    prefix_table_limit(table, 0);
    assert_int_equal(counts_of(table).entries, 0);
    assert_int_equal(put_one(table, mixed(1), 1, 1), 0);
    assert_int_equal(counts_of(table).bytes, table->fixed_bytes);
    prefix_table_limit(table, UINT64_MAX);
    assert_int_equal(counts_of(table).entry_limit, N);
    for (uint64_t i = 0; i < N / 2; i++)
        assert_int_equal(put_one(table, mixed(i), 1, (uint32_t)i), 1);
    check(table);
    assert_in_range(counts_of(table).entries, N / 2 - N / 1000, N / 2);
    prefix_table_free(table);
}

static void resident_memory_is_what_it_says(void **state) {
    (void)state;
    size_t before = slab_resident_bytes();
    struct prefix_table *table = make(UINT64_MAX, 16 * MIB);
    uint64_t limit = counts_of(table).entry_limit;
    for (uint64_t i = 0; i < limit / 2; i++)
        put_one(table, mixed(i), 1, 0);
    struct prefix_table_counts half = counts_of(table);
    size_t resident = slab_resident_bytes() - before;
    assert_in_range(resident, half.bytes - table->fixed_bytes, half.bytes + 65536);
    for (uint64_t i = 0; i < 10 * limit; i++)
        put_one(table, mixed(i), 1, 0);
    assert_true(counts_of(table).bytes <= 16 * MIB);
    prefix_table_limit(table, limit / 20);
    resident = slab_resident_bytes() - before;
    assert_in_range(resident, 0, counts_of(table).bytes + 65536);
    assert_true(resident < 3 * MIB);
    prefix_table_free(table);
    assert_in_range(slab_resident_bytes(), 0, before + 65536);
}

/* --- at random ------------------------------------------------------------------------------- */

static void random_step(struct prefix_table *table, struct rand_stream *random, uint32_t tick) {
    uint64_t draw = rand_stream_u64(random), hash = mixed(draw >> 32 & 0xfff);
    uint16_t slot = (uint16_t)(draw >> 16 & 0xf);
    switch (draw & 0xff) {
    case 0: prefix_table_leave(table, slot); break;
    case 1: prefix_table_limit(table, draw >> 20 & 0x7ff); break;
    case 2: prefix_table_limit(table, UINT64_MAX); break;
    default:
        if ((draw & 7) == 7)
            prefix_table_drop(table, &hash, 1, prefix_table_holder(table, slot));
        else if (put_one(table, hash, slot, tick) > 0)
            assert_true(holds(table, hash, slot));
    }
}

static void order_survives_random_steps(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct prefix_table *table = make(3000, MIB);
        struct rand_stream random;
        rand_stream_init(&random, seed);
        for (uint32_t i = 0; i < 40000; i++) {
            random_step(table, &random, i);
            if (i % 1000 == 0)
                check(table);
        }
        check(table);
        prefix_table_free(table);
    }
}

/* --- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, STEPS = 20000 };

struct actor {
    struct prefix_table *table;
    uint16_t number;
    uint64_t lies, lost;
};

/* The hash tells who may hold it, so that a reader knows a lie. */
static uint64_t signed_hash(uint64_t n, uint16_t slot) {
    return (mixed(n * 16 + slot) & ~UINT64_C(0xf00000000000)) | (uint64_t)slot << 44;
}

static void *write_and_read(void *arg) {
    struct actor *actor = arg;
    struct rand_stream random;
    rand_stream_init(&random, actor->number);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t draw = rand_stream_u64(&random);
        uint16_t slot = (uint16_t)(draw & 3);
        uint64_t hash = signed_hash(draw >> 8 & 0x3fff, slot);
        put_one(actor->table, hash, slot, i);
        uint64_t other = signed_hash(draw >> 32 & 0x3fff, (uint16_t)(draw >> 2 & 3));
        struct prefix_set set = read_one(actor->table, other);
        for (size_t j = 0; j < set.count; j++)
            actor->lies += set.holders[j].slot != (other >> 44 & 0xf);
        if (actor->number == 0 && i % 2000 == 1999)
            prefix_table_limit(actor->table, i % 4000 == 1999 ? 500 : UINT64_MAX);
        if (actor->number == 1 && i % 500 == 0)
            prefix_table_leave(actor->table, slot);
        if (draw >> 60 == 0)
            prefix_table_drop(actor->table, &other, 1, prefix_table_holder(actor->table, slot));
    }
    return NULL;
}

static void run_threads(struct actor *actors, void *(*act)(void *)) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, act, &actors[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void threads_see_what_was_written(void **state) {
    (void)state;
    static const uint64_t sizes[] = {300, 5000, 1 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct actor actors[THREADS];
        struct prefix_table *table = make(sizes[s], 8 * MIB);
        for (uint16_t i = 0; i < THREADS; i++)
            actors[i] = (struct actor){table, i, 0, 0};
        run_threads(actors, write_and_read);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(actors[i].lies, 0);
        check(table);
        prefix_table_free(table);
    }
}

/* While shards grow under it: what a thread put is there at each moment. */
static void *put_and_find(void *arg) {
    struct actor *actor = arg;
    for (uint64_t i = 0; i < STEPS; i++) {
        put_one(actor->table, signed_hash(i, actor->number), actor->number, 1);
        actor->lost += !holds(actor->table, signed_hash(i, actor->number), actor->number);
        actor->lost += !holds(actor->table, signed_hash(i / 2, actor->number), actor->number);
    }
    return NULL;
}

static void growing_loses_nothing(void **state) {
    (void)state;
    struct actor actors[THREADS];
    struct prefix_table *table = make(1 << 20, 64 * MIB);
    for (uint16_t i = 0; i < THREADS; i++)
        actors[i] = (struct actor){table, i, 0, 0};
    run_threads(actors, put_and_find);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(actors[i].lost, 0);
    check(table);
    assert_int_equal(counts_of(table).evictions, 0);
    prefix_table_free(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_read),
        cmocka_unit_test(memory_follows_the_entries),
        cmocka_unit_test(zero_is_a_hash_like_any),
        cmocka_unit_test(a_changed_entry_is_not_read),
        cmocka_unit_test(a_moved_array_is_read_anew),
        cmocka_unit_test(a_set_keeps_the_last_four),
        cmocka_unit_test(late_news_does_not_turn_time_back),
        cmocka_unit_test(who_left_is_nobody),
        cmocka_unit_test(generations_come_round_without_nought),
        cmocka_unit_test(dropping_takes_one_holder),
        cmocka_unit_test(bounds_hold_at_every_step),
        cmocka_unit_test(bad_bounds_are_refused),
        cmocka_unit_test(counts_agree_with_contents),
        cmocka_unit_test(the_victim_is_the_oldest_of_its_window),
        cmocka_unit_test(the_oldest_go_first),
        cmocka_unit_test(a_flood_of_one_bucket_stays_there),
        cmocka_unit_test(a_lower_bound_gives_memory_back),
        cmocka_unit_test(resident_memory_is_what_it_says),
        cmocka_unit_test(order_survives_random_steps),
        cmocka_unit_test(threads_see_what_was_written),
        cmocka_unit_test(growing_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
