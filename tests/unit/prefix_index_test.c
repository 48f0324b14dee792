/* Paths: matches against a plain model (a set of workers for each prefix), what a record writes and
 * what it leaves, removal, holes after evictions and how much they cost, and threads. */
#include "fleet/prefix_index.c"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rand.h"

#define MIB ((uint64_t)1 << 20)
enum { PATH_MAX_BLOCKS = 300 };

static struct prefix_index *make(uint64_t entries, uint64_t bytes, uint32_t touch_ms) {
    struct prefix_index *index = NULL;
    struct prefix_index_options options = {entries, bytes, touch_ms};
    assert_int_equal(prefix_index_new(&options, &index), 0);
    return index;
}

static struct prefix_stats stats_of(const struct prefix_index *index) {
    struct prefix_stats stats;
    prefix_index_stats(index, &stats);
    return stats;
}

struct path {
    uint32_t count;
    uint64_t hashes[PATH_MAX_BLOCKS];
};

static void extend(struct path *path, uint64_t symbol) {
    uint64_t seed = path->count > 0 ? path->hashes[path->count - 1] : 1;
    path->hashes[path->count++] = hash_seeded(&symbol, sizeof symbol, seed);
}

/* Blocks 0..count-1 of text `text`; texts share nothing. */
static struct path straight(uint64_t text, uint32_t count) {
    struct path path = {.count = 0};
    while (path.count < count)
        extend(&path, text);
    return path;
}

static size_t record(struct prefix_index *index, const struct path *path, uint16_t slot,
                     int64_t now_ms) {
    struct prefix_holder holder = prefix_index_holder(index, slot);
    return prefix_index_record(index, path->hashes, path->count, holder, now_ms);
}

static size_t match(const struct prefix_index *index, const struct path *path,
                    struct prefix_hit *hits) {
    return prefix_index_match(index, path->hashes, path->count, hits, PREFIX_HITS_MAX);
}

static uint32_t depth_of(const struct prefix_index *index, const struct path *path, uint16_t slot) {
    struct prefix_hit hits[PREFIX_HITS_MAX];
    size_t n = match(index, path, hits);
    for (size_t i = 0; i < n; i++) {
        if (hits[i].slot == slot)
            return hits[i].blocks;
    }
    return 0;
}

/* --- plain cases ----------------------------------------------------------------------------- */

static void nothing_matches_nothing(void **state) {
    (void)state;
    struct prefix_index *index = make(1000, MIB, 0);
    struct path path = straight(1, 40);
    struct prefix_hit hits[1];
    assert_int_equal(prefix_index_match(index, path.hashes, 40, hits, 1), 0);
    assert_int_equal(prefix_index_match(index, NULL, 0, hits, 1), 0);
    assert_int_equal(prefix_index_record(index, NULL, 0, prefix_index_holder(index, 1), 0), 0);
    prefix_index_free(index);
    prefix_index_free(NULL);
}

static void every_depth_is_found(void **state) {
    (void)state;
    for (uint32_t held = 1; held <= 140; held++) {
        struct prefix_index *index = make(1000, MIB, 0);
        struct path known = straight(1, held);
        assert_int_equal(record(index, &known, 7, 0), held);
        for (uint32_t asked = 1; asked <= 140; asked += 1 + asked / 9) {
            struct path path = straight(1, asked);
            assert_int_equal(depth_of(index, &path, 7), asked < held ? asked : held);
        }
        prefix_index_free(index);
    }
}

static void holders_come_deepest_first(void **state) {
    (void)state;
    struct prefix_index *index = make(1000, MIB, 0);
    struct path path = straight(1, 200);
    static const struct {
        uint16_t slot;
        uint32_t blocks;
    } held[] = {{9, 3}, {2, 150}, {5, 150}, {1, 60}};
    for (size_t i = 0; i < 4; i++) {
        struct path part = straight(1, held[i].blocks);
        record(index, &part, held[i].slot, (int64_t)i * 640);
    }
    struct prefix_hit hits[4];
    assert_int_equal(match(index, &path, hits), 4);
    assert_true(hits[0].slot == 2 && hits[0].blocks == 150 && hits[0].last_use_ms == 640);
    assert_true(hits[1].slot == 5 && hits[1].blocks == 150 && hits[1].last_use_ms == 1280);
    assert_true(hits[2].slot == 1 && hits[2].blocks == 60);
    assert_true(hits[3].slot == 9 && hits[3].blocks == 3 && hits[3].last_use_ms == 0);
    struct prefix_hit two[3] = {{0}, {0}, {.slot = 77}};
    assert_int_equal(prefix_index_match(index, path.hashes, 200, two, 2), 2);
    assert_true(two[1].slot == 5 && two[2].slot == 77);
    prefix_index_free(index);
}

static void matching_changes_nothing(void **state) {
    (void)state;
    struct prefix_index *index = make(50, MIB, 0);
    struct path old = straight(1, 20), new = straight(2, 40), hot = straight(3, 20);
    struct prefix_hit hits[4];
    record(index, &old, 1, 0);
    record(index, &hot, 1, 0);
    for (int i = 0; i < 1000; i++)
        match(index, &old, hits); /* does not keep it from going first */
    record(index, &hot, 1, 64);
    record(index, &new, 1, 128);
    assert_int_equal(depth_of(index, &hot, 1), 20);
    assert_true(depth_of(index, &old, 1) < 20);
    prefix_index_free(index);
}

/* --- what a record writes -------------------------------------------------------------------- */

static void only_new_blocks_are_written(void **state) {
    (void)state;
    struct prefix_index *index = make(100000, 16 * MIB, 10000);
    struct path path = straight(1, 100), longer = straight(1, 120);
    struct prefix_hit hit;
    assert_int_equal(record(index, &path, 1, 0), 100);
    assert_int_equal(record(index, &longer, 1, 5000), 20);
    assert_int_equal(prefix_index_match(index, path.hashes, 100, &hit, 1), 1);
    assert_int_equal(hit.last_use_ms, 0); /* the first 100 were left alone */
    assert_int_equal(prefix_index_match(index, longer.hashes, 120, &hit, 1), 1);
    assert_int_equal(hit.last_use_ms, 5000 / 64 * 64);
    assert_int_equal(record(index, &longer, 1, 9000), 0);
    assert_int_equal(record(index, &longer, 1, 16000), 0);
    assert_int_equal(prefix_index_match(index, path.hashes, 1, &hit, 1), 1);
    assert_int_equal(hit.last_use_ms, 16000); /* touch_ms has passed: all of it */
    assert_int_equal(prefix_index_held(index, 1), 120);
    assert_int_equal(stats_of(index).entries, 120);
    prefix_index_free(index);
}

static void aging_makes_it_write_all(void **state) {
    (void)state;
    struct prefix_index *index = make(3200, 16 * MIB, UINT32_MAX);
    struct path hot = straight(1, 100);
    struct prefix_hit hit;
    for (uint64_t text = 2; text < 1000; text++) { /* 100,000 blocks go by */
        struct path other = straight(text, 100);
        record(index, &other, 2, 0);
        record(index, &hot, 1, 0);
        for (uint32_t i = 0; text % 10 == 0 && i < 100; i++) /* without a hole */
            assert_int_equal(prefix_index_match(index, hot.hashes + i, 1, &hit, 1), 1);
    }
    assert_true(stats_of(index).evictions > 90000);
    prefix_index_free(index);
}

static void a_fifth_holder_takes_the_place_of_the_idlest(void **state) {
    (void)state;
    struct prefix_index *index = make(1000, MIB, 0);
    struct path path = straight(1, 50);
    for (uint16_t slot = 1; slot <= 5; slot++)
        record(index, &path, slot, slot * 64);
    assert_int_equal(depth_of(index, &path, 1), 0);
    for (uint16_t slot = 2; slot <= 5; slot++)
        assert_int_equal(depth_of(index, &path, slot), 50);
    assert_int_equal(stats_of(index).entries, 50);
    assert_int_equal(prefix_index_held(index, 1), 0);
    prefix_index_free(index);
}

static void removal_voids_at_once(void **state) {
    (void)state;
    struct prefix_index *index = make(1000, MIB, 0);
    struct path path = straight(1, 50), unknown = straight(2, 50);
    record(index, &path, 1, 0);
    record(index, &path, 2, 0);
    struct prefix_holder gone = prefix_index_holder(index, 1);
    prefix_index_remove(index, 1);
    assert_int_equal(depth_of(index, &path, 1), 0);
    assert_int_equal(depth_of(index, &path, 2), 50);
    assert_int_equal(prefix_index_record(index, path.hashes, 50, gone, 1), 0);
    assert_int_equal(prefix_index_record(index, unknown.hashes, 50, gone, 1), 0);
    assert_int_equal(stats_of(index).entries, 50);
    assert_int_equal(depth_of(index, &path, 1), 0); /* its successor does not inherit */
    assert_int_equal(record(index, &path, 1, 2), 50);
    assert_int_equal(depth_of(index, &path, 1), 50);
    prefix_index_free(index);
}

static void forgetting_shortens_the_path(void **state) {
    (void)state;
    struct prefix_index *index = make(1000, MIB, 0);
    struct path path = straight(1, 50);
    struct prefix_holder first = prefix_index_holder(index, 1);
    record(index, &path, 1, 0);
    record(index, &path, 2, 0);
    prefix_index_forget(index, path.hashes + 20, 30, first);
    assert_int_equal(depth_of(index, &path, 1), 20);
    assert_int_equal(depth_of(index, &path, 2), 50);
    assert_int_equal(prefix_index_held(index, 1), 20);
    prefix_index_free(index);
}

/* --- against a model ------------------------------------------------------------------------- */

enum { MODEL_CAP = 1 << 18, MODEL_WORKERS = 64 };

struct model {
    struct {
        uint64_t hash;
        uint64_t workers; /* one bit each */
    } rows[MODEL_CAP];
    size_t len;
};

/* Its row, or the free one where it would stand. */
static size_t model_at(const struct model *model, uint64_t hash) {
    size_t at = hash % MODEL_CAP;
    while (model->rows[at].hash != 0 && model->rows[at].hash != hash)
        at = (at + 1) % MODEL_CAP;
    return at;
}

static uint32_t model_depth(const struct model *model, const struct path *path, uint64_t workers) {
    uint32_t depth = 0;
    for (uint32_t i = 0; i < path->count; i++) {
        if (model->rows[model_at(model, path->hashes[i])].workers & workers)
            depth = i + 1;
    }
    return depth;
}

static void model_record(struct model *model, const struct path *path, uint16_t slot) {
    for (uint32_t i = 0; i < path->count; i++) {
        size_t at = model_at(model, path->hashes[i]);
        model->len += model->rows[at].hash == 0;
        model->rows[at].hash = path->hashes[i];
        model->rows[at].workers |= UINT64_C(1) << slot;
    }
    assert_true(model->len < MODEL_CAP * 3 / 4);
}

static void model_remove(struct model *model, uint16_t slot) {
    for (size_t i = 0; i < MODEL_CAP; i++)
        model->rows[i].workers &= ~(UINT64_C(1) << slot);
}

/* A part of a known path and something new: what conversations look like. */
static struct path branch(const struct path *known, size_t count, struct rand_stream *random) {
    struct path path = {.count = 0};
    if (count > 0) {
        path = known[rand_stream_u64(random) % count];
        path.count = (uint32_t)(rand_stream_u64(random) % (path.count + 1));
    }
    uint32_t more = 1 + (uint32_t)(rand_stream_u64(random) % 40);
    while (more-- > 0 && path.count < PATH_MAX_BLOCKS)
        extend(&path, rand_stream_u64(random) % 3);
    return path;
}

static void compare(const struct prefix_index *index, struct model *model, const struct path *path,
                    unsigned workers) {
    struct prefix_hit hits[PREFIX_HITS_MAX];
    size_t n = match(index, path, hits), expected = 0;
    for (uint16_t slot = 0; slot < workers; slot++)
        expected += model_depth(model, path, UINT64_C(1) << slot) > 0;
    assert_int_equal(n, expected);
    for (size_t i = 0; i < n; i++) {
        uint32_t depth = model_depth(model, path, UINT64_C(1) << hits[i].slot);
        assert_int_equal(hits[i].blocks, depth);
        if (i > 0)
            assert_true(before(&hits[i - 1], &hits[i]));
    }
}

static void matches_are_those_of_a_model(void **state) {
    (void)state;
    enum { KNOWN = 100, STEPS = 2000 };
    static struct path known[KNOWN];
    static struct model model;
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct prefix_index *index = make(1 << 20, 64 * MIB, seed % 2 ? 1000 : 0);
        struct rand_stream random;
        rand_stream_init(&random, seed);
        memset(&model, 0, sizeof model);
        for (uint32_t i = 0; i < STEPS; i++) {
            struct path path = branch(known, i < KNOWN ? i : KNOWN, &random);
            uint16_t slot = (uint16_t)(rand_stream_u64(&random) % PREFIX_HOLDERS);
            compare(index, &model, &path, PREFIX_HOLDERS);
            if (i < KNOWN || i % 4 == 0) {
                known[i % KNOWN] = path;
                record(index, &path, slot, i * 10);
                model_record(&model, &path, slot);
                assert_int_equal(depth_of(index, &path, slot), path.count);
            }
            if (i % 500 == 499) {
                prefix_index_remove(index, slot);
                model_remove(&model, slot);
            }
        }
        assert_int_equal(stats_of(index).evictions, 0);
        prefix_index_free(index);
    }
}

/* Many workers: a set holds four of them, so that hits are some of the truth, and never more. */
static void crowded_blocks_say_nothing_false(void **state) {
    (void)state;
    enum { KNOWN = 100, STEPS = 2000 };
    static struct path known[KNOWN];
    static struct model model;
    struct prefix_index *index = make(1 << 20, 64 * MIB, 0);
    struct rand_stream random;
    struct prefix_hit hits[PREFIX_HITS_MAX];
    rand_stream_init(&random, 9);
    memset(&model, 0, sizeof model);
    for (uint32_t i = 0; i < STEPS; i++) {
        struct path path = branch(known, i < KNOWN ? i : KNOWN, &random);
        size_t n = match(index, &path, hits);
        assert_int_equal(n > 0 ? hits[0].blocks : 0, model_depth(&model, &path, UINT64_MAX));
        for (size_t j = 0; j < n; j++)
            assert_true(hits[j].blocks <= model_depth(&model, &path, UINT64_C(1) << hits[j].slot));
        uint16_t slot = (uint16_t)(rand_stream_u64(&random) % MODEL_WORKERS);
        if (i < KNOWN || i % 4 == 0) {
            known[i % KNOWN] = path;
            record(index, &path, slot, i * 64);
            model_record(&model, &path, slot);
            assert_int_equal(depth_of(index, &path, slot), path.count);
        }
    }
    prefix_index_free(index);
}

/* --- holes ----------------------------------------------------------------------------------- */

/* The deepest block that is there, by looking at each. */
static uint32_t true_depth(const struct prefix_index *index, const struct path *path) {
    struct prefix_hit hit;
    uint32_t depth = path->count;
    while (depth > 0 && prefix_index_match(index, path->hashes + depth - 1, 1, &hit, 1) == 0)
        depth--;
    return depth;
}

enum { TEXTS = 2200, OVERFULL = 20000 };

static struct path text_path(uint32_t text) { return straight(text, 16 + text * 7919 % 241); }

struct loss {
    uint64_t asked, ideal, got;       /* blocks of paths that came again */
    uint64_t paths, holed, all, lost; /* of those at least half there at the end, in blocks */
};

/* What an exact LRU of so many blocks still has of a text: all or nothing. */
static uint32_t ideal_depth(const uint32_t *last, uint32_t count, uint32_t text) {
    uint32_t blocks = text_path(text).count, since = blocks;
    for (uint32_t i = 0; i < count; i++)
        since += last[i] > last[text] ? text_path(i).count : 0;
    return since <= OVERFULL ? blocks : 0;
}

/* Ten times what fits; a third are texts told before, recent ones rather. */
static void overfill(struct prefix_index *index, uint64_t seed, struct loss *loss) {
    static uint32_t last[TEXTS];
    struct rand_stream random;
    struct prefix_hit hit;
    rand_stream_init(&random, seed);
    memset(last, 0, sizeof last);
    for (uint32_t i = 0; i < TEXTS; i++) {
        double back = rand_stream_unit(&random) * rand_stream_unit(&random) * i;
        uint32_t text = i > 0 && rand_stream_u64(&random) % 3 == 0 ? i - 1 - (uint32_t)back : i;
        struct path path = text_path(text);
        if (text != i && last[text] > 0) {
            loss->asked += path.count;
            loss->ideal += ideal_depth(last, i, text);
            if (prefix_index_match(index, path.hashes, path.count, &hit, 1) > 0)
                loss->got += hit.blocks;
        }
        last[text] = i + 1;
        record(index, &path, (uint16_t)(text % 50), (int64_t)i * 10);
    }
}

static void count_loss(const struct prefix_index *index, uint32_t text, struct loss *loss) {
    struct prefix_hit hit;
    struct path path = text_path(text);
    uint32_t truth = true_depth(index, &path), there = 0;
    for (uint32_t i = 0; i < truth; i++)
        there += prefix_index_match(index, path.hashes + i, 1, &hit, 1) > 0;
    size_t n = prefix_index_match(index, path.hashes, path.count, &hit, 1);
    uint32_t said = n > 0 ? hit.blocks : 0;
    assert_true(said <= truth);
    if (truth == 0 || there * 2 < truth)
        return;
    loss->paths++;
    loss->holed += there < truth;
    loss->all += truth;
    loss->lost += truth - said;
}

static void holes_cost_little(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct prefix_index *index = make(OVERFULL, 16 * MIB, 1000);
        struct loss loss = {0};
        overfill(index, seed, &loss);
        for (uint32_t text = 0; text < TEXTS; text++)
            count_loss(index, text, &loss);
        print_message("# blocks asked for again: %llu, an exact LRU has %llu, found %llu; of %llu "
                      "paths %llu have holes, %llu of %llu blocks are missed\n",
                      (unsigned long long)loss.asked, (unsigned long long)loss.ideal,
                      (unsigned long long)loss.got, (unsigned long long)loss.paths,
                      (unsigned long long)loss.holed, (unsigned long long)loss.lost,
                      (unsigned long long)loss.all);
        assert_true(stats_of(index).evictions > 100000);
        assert_true(loss.got * 100 > loss.ideal * 97);
        assert_true(loss.holed * 10 > loss.paths); /* else nothing is shown */
        assert_true(loss.lost * 100 < loss.all);
        prefix_index_free(index);
    }
}

/* Blocks taken out of the middle on purpose: found again, and mended by the next record. */
static void a_hole_is_leapt_over_and_mended(void **state) {
    (void)state;
    for (uint32_t at = 0; at < 99; at++) {
        struct prefix_index *index = make(1000, MIB, UINT32_MAX);
        struct path path = straight(1, 100);
        struct prefix_hit hit;
        record(index, &path, 1, 0);
        prefix_index_forget(index, path.hashes + at, 1, prefix_index_holder(index, 1));
        assert_int_equal(depth_of(index, &path, 1), 100);
        struct path part = straight(1, 99);
        assert_true(depth_of(index, &part, 1) >= (at == 98 ? 98u : 99u));
        assert_int_equal(prefix_index_match(index, path.hashes + at, 1, &hit, 1), 0);
        record(index, &path, 1, (int64_t)UINT32_MAX);
        assert_int_equal(prefix_index_match(index, path.hashes + at, 1, &hit, 1), 1);
        prefix_index_free(index);
    }
}

/* --- the whole ------------------------------------------------------------------------------- */

static void same_calls_same_answers(void **state) {
    (void)state;
    struct prefix_index *two[] = {make(3000, MIB, 500), make(3000, MIB, 500)};
    struct prefix_hit hits[2][PREFIX_HITS_MAX];
    static struct path known[50];
    struct rand_stream random;
    rand_stream_init(&random, 5);
    for (uint32_t i = 0; i < 5000; i++) {
        struct path path = branch(known, i < 50 ? i : 50, &random);
        uint16_t slot = (uint16_t)(rand_stream_u64(&random) % 20);
        size_t n = match(two[0], &path, hits[0]);
        assert_int_equal(match(two[1], &path, hits[1]), n);
        for (size_t j = 0; j < n; j++) {
            assert_int_equal(hits[0][j].slot, hits[1][j].slot);
            assert_int_equal(hits[0][j].blocks, hits[1][j].blocks);
            assert_true(hits[0][j].last_use_ms == hits[1][j].last_use_ms);
        }
        size_t added = record(two[0], &path, slot, i);
        assert_int_equal(record(two[1], &path, slot, i), added);
        known[i % 50] = path;
    }
    assert_int_equal(stats_of(two[0]).evictions, stats_of(two[1]).evictions);
    assert_true(stats_of(two[0]).evictions > 0);
    prefix_index_free(two[0]);
    prefix_index_free(two[1]);
}

static void bounds_are_kept_and_given_back(void **state) {
    (void)state;
    struct prefix_index *index = make(UINT64_MAX, 4 * MIB, 0);
    uint64_t limit = stats_of(index).entry_limit;
    for (uint64_t text = 0; text < 10 * limit / 100; text++) {
        struct path path = straight(text, 100);
        record(index, &path, 1, (int64_t)text);
        if (text % 16 == 0)
            assert_true(stats_of(index).entries <= limit && stats_of(index).bytes <= 4 * MIB);
    }
    prefix_index_limit(index, 1000);
    assert_in_range(stats_of(index).entries, 900, 1000);
    assert_true(stats_of(index).bytes < 2 * MIB);
    prefix_index_limit(index, UINT64_MAX);
    assert_int_equal(stats_of(index).entry_limit, limit);
    assert_int_equal(stats_of(index).byte_limit, 4 * MIB);
    prefix_index_free(index);
}

static void bad_options_are_refused(void **state) {
    (void)state;
    struct prefix_index *index;
    assert_int_equal(prefix_index_new(&(struct prefix_index_options){0, MIB, 0}, &index), -EINVAL);
    assert_int_equal(prefix_index_new(&(struct prefix_index_options){1, 9, 0}, &index), -EINVAL);
}

/* --- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 1500 };

struct actor {
    struct prefix_index *index;
    uint16_t number;
    uint64_t false_hits, missed;
};

/* Texts belong to workers: worker w alone has texts w, w + 16, ... A hit of another is a lie. */
static void *ask_and_tell(void *arg) {
    struct actor *actor = arg;
    struct rand_stream random;
    struct prefix_hit hits[PREFIX_HITS_MAX];
    rand_stream_init(&random, actor->number);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint64_t draw = rand_stream_u64(&random), text = draw % 200;
        struct path path = straight(text, 1 + (uint32_t)(draw >> 32) % 150);
        record(actor->index, &path, (uint16_t)(text % 16), i);
        struct path asked = straight(draw >> 16 & 0xff, 150);
        size_t n = match(actor->index, &asked, hits);
        for (size_t j = 0; j < n; j++)
            actor->false_hits += hits[j].slot != (draw >> 16 & 0xff) % 16 || hits[j].blocks > 150;
        if (actor->number == 0 && i % 100 == 0)
            prefix_index_remove(actor->index, (uint16_t)(text % 16));
        if (actor->number == 1 && i % 300 == 0)
            prefix_index_limit(actor->index, i % 600 ? UINT64_MAX : 1000);
        if (actor->number == 2 && i % 50 == 0)
            prefix_index_forget(actor->index, path.hashes, path.count,
                                prefix_index_holder(actor->index, (uint16_t)(text % 16)));
    }
    return NULL;
}

/* Each has a path that nobody touches, in an index with room for all. */
static void *keep_finding(void *arg) {
    struct actor *actor = arg;
    struct path mine = straight(1000 + actor->number, 100);
    record(actor->index, &mine, actor->number, 0);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct path other = straight((actor->number + UINT64_C(1)) << 32 | i, 60);
        record(actor->index, &other, actor->number, i);
        actor->missed += depth_of(actor->index, &mine, actor->number) != 100;
        actor->missed += depth_of(actor->index, &other, actor->number) != 60;
    }
    return NULL;
}

static void run(struct actor *actors, struct prefix_index *index, void *(*act)(void *)) {
    pthread_t threads[THREADS];
    for (uint16_t i = 0; i < THREADS; i++) {
        actors[i] = (struct actor){index, i, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, act, &actors[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void threads_tell_no_lies(void **state) {
    (void)state;
    struct actor actors[THREADS];
    struct prefix_index *index = make(8000, MIB, 10);
    run(actors, index, ask_and_tell);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(actors[i].false_hits, 0);
    assert_true(stats_of(index).entries <= stats_of(index).entry_limit);
    prefix_index_free(index);
}

static void threads_lose_nothing_while_it_grows(void **state) {
    (void)state;
    struct actor actors[THREADS];
    struct prefix_index *index = make(1 << 21, 128 * MIB, 0);
    run(actors, index, keep_finding);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(actors[i].missed, 0);
        assert_int_equal(prefix_index_held(index, (uint16_t)i), 100 + 60 * ROUNDS);
    }
    assert_int_equal(stats_of(index).evictions, 0);
    prefix_index_free(index);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_matches_nothing),
        cmocka_unit_test(every_depth_is_found),
        cmocka_unit_test(holders_come_deepest_first),
        cmocka_unit_test(matching_changes_nothing),
        cmocka_unit_test(only_new_blocks_are_written),
        cmocka_unit_test(aging_makes_it_write_all),
        cmocka_unit_test(a_fifth_holder_takes_the_place_of_the_idlest),
        cmocka_unit_test(removal_voids_at_once),
        cmocka_unit_test(forgetting_shortens_the_path),
        cmocka_unit_test(matches_are_those_of_a_model),
        cmocka_unit_test(crowded_blocks_say_nothing_false),
        cmocka_unit_test(holes_cost_little),
        cmocka_unit_test(a_hole_is_leapt_over_and_mended),
        cmocka_unit_test(same_calls_same_answers),
        cmocka_unit_test(bounds_are_kept_and_given_back),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(threads_tell_no_lies),
        cmocka_unit_test(threads_lose_nothing_while_it_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
