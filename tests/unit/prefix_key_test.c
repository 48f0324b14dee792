/* Keys: slice borders leave no trace, hashes agree exactly as far as texts do, thinning keeps what
 * the header promises, short keys are whole, and the hashes are pinned over builds. */
#include "fleet/prefix_key.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/rand.h"

enum { ROOM = 4096 };

struct result {
    struct prefix_key key;
    uint64_t hashes[ROOM];
};

static void start(struct result *out, struct prefix_shape shape, uint64_t seed, size_t cap) {
    prefix_key_init(&out->key, shape, seed, out->hashes, cap);
}

static struct result *whole(struct str text, uint64_t seed) {
    struct result *out = mem_alloc(sizeof *out);
    start(out, PREFIX_TEXT, seed, ROOM);
    prefix_key_add(&out->key, text);
    prefix_key_end(&out->key);
    return out;
}

static void assert_same(const struct result *a, const struct result *b) {
    assert_int_equal(a->key.count, b->key.count);
    assert_int_equal(a->key.length, b->key.length);
    assert_int_equal(a->key.tail, b->key.tail);
    assert_memory_equal(a->hashes, b->hashes, a->key.count * sizeof *a->hashes);
}

static void fill_text(char *text, size_t len, struct rand_stream *random) {
    for (size_t i = 0; i < len; i++)
        text[i] = (char)rand_stream_u64(random); /* any byte: this need not be UTF-8 */
}

/* --- cutting --------------------------------------------------------------------------------- */

static struct result *in_slices(struct str text, size_t most, struct rand_stream *random) {
    struct result *out = mem_alloc(sizeof *out);
    start(out, PREFIX_TEXT, 7, ROOM);
    while (text.len > 0) {
        size_t cut = (size_t)(rand_stream_u64(random) % (most + 1));
        prefix_key_add(&out->key, str_head(text, cut));
        text = str_skip(text, cut);
    }
    prefix_key_add(&out->key, STR_NONE);
    prefix_key_end(&out->key);
    return out;
}

static void slices_leave_no_trace(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 127, 128, 129, 1000, 2047, 2048, 5000, 70000, 200000};
    static const size_t slices[] = {1, 2, 127, 128, 129, 300, 5000};
    static char text[200000];
    struct rand_stream random;
    rand_stream_init(&random, 1);
    fill_text(text, sizeof text, &random);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct result *one = whole(str_make(text, sizes[i]), 7);
        for (size_t j = 0; j < sizeof slices / sizeof *slices; j++) {
            struct result *many = in_slices(str_make(text, sizes[i]), slices[j], &random);
            assert_same(one, many);
            mem_free(many);
        }
        mem_free(one);
    }
}

static size_t common_blocks(const struct result *a, const struct result *b) {
    size_t n = 0;
    while (n < a->key.count && n < b->key.count && a->hashes[n] == b->hashes[n])
        n++;
    for (size_t i = n; i < a->key.count && i < b->key.count; i++)
        assert_true(a->hashes[i] != b->hashes[i]);
    return n;
}

/* Two texts that first differ at `at` share the blocks that end at or before it. */
static void check_fork(char *text, size_t len, size_t at) {
    struct result *a = whole(str_make(text, len), 7);
    text[at] ^= 1;
    struct result *b = whole(str_make(text, len), 7);
    text[at] ^= 1;
    size_t n = common_blocks(a, b);
    assert_true(prefix_key_depth(&a->key, n) <= at);
    assert_true(n == a->key.count || prefix_key_depth(&a->key, n + 1) > at);
    mem_free(a);
    mem_free(b);
}

static void hashes_agree_as_far_as_texts(void **state) {
    (void)state;
    static char text[300000];
    struct rand_stream random;
    rand_stream_init(&random, 2);
    fill_text(text, sizeof text, &random);
    for (int i = 0; i < 300; i++) {
        size_t len = 1 + rand_stream_u64(&random) % (i % 3 == 0 ? sizeof text : 3000);
        check_fork(text, len, rand_stream_u64(&random) % len);
    }
}

static void longer_text_continues_the_chain(void **state) {
    (void)state;
    static char text[100000];
    struct rand_stream random;
    rand_stream_init(&random, 3);
    fill_text(text, sizeof text, &random);
    struct result *longer = whole(str_make(text, sizeof text), 7);
    for (size_t len = 1; len < sizeof text; len += 1 + len / 7) {
        struct result *part = whole(str_make(text, len), 7);
        size_t full = part->key.count - part->key.tail;
        assert_memory_equal(part->hashes, longer->hashes, full * sizeof *part->hashes);
        if (part->key.tail)
            assert_true(part->hashes[full] != longer->hashes[full]);
        mem_free(part);
    }
    mem_free(longer);
}

/* --- short keys ------------------------------------------------------------------------------ */

static void short_keys_are_whole(void **state) {
    (void)state;
    static char text[PREFIX_TAIL_BLOCKS * 128 + 100];
    memset(text, 'x', sizeof text);
    struct result *none = whole(STR_NONE, 7);
    assert_int_equal(none->key.count, 0);
    assert_int_equal(prefix_key_depth(&none->key, 0), 0);
    mem_free(none);
    for (size_t len = 1; len <= sizeof text; len++) {
        struct result *it = whole(str_make(text, len), 7);
        bool tail = len < PREFIX_TAIL_BLOCKS * 128 && len % 128 != 0;
        assert_int_equal(it->key.tail, tail);
        assert_int_equal(it->key.count, len / 128 + tail);
        assert_int_equal(prefix_key_depth(&it->key, it->key.count), tail ? len : len / 128 * 128);
        assert_true(it->key.count <= prefix_key_room(PREFIX_TEXT, len));
        mem_free(it);
    }
}

static void a_tail_is_not_a_block(void **state) {
    (void)state;
    struct result *a = whole(STR("Hello"), 7), *b = whole(STR("Hello\0"), 7);
    assert_int_equal(a->key.count, 1);
    assert_true(a->hashes[0] != b->hashes[0]);
    mem_free(a);
    mem_free(b);
}

/* --- long keys ------------------------------------------------------------------------------- */

/* Which blocks are kept, told in another way than the code does. */
static bool kept(uint64_t unit_end) {
    uint64_t step = 1;
    for (uint64_t edge = PREFIX_EXACT_BLOCKS; unit_end > edge; edge *= 2)
        step *= 2;
    return unit_end % step == 0;
}

static void thinning_is_as_promised(void **state) {
    (void)state;
    uint64_t n = 0, last = 0;
    for (uint64_t end = 1; end <= 1 << 18; end++) {
        n += kept(end);
        assert_int_equal(kept_within(end), n);
        if (!kept(end))
            continue;
        assert_int_equal(kept_end(n), end);
        if (end > PREFIX_EXACT_BLOCKS)
            assert_true((end - last) * 256 <= last);
        last = end;
    }
    assert_int_equal(prefix_key_room(PREFIX_TEXT, 1 << 20), 1536);
    assert_in_range(prefix_key_room(PREFIX_TEXT, 200 << 20), 3000, 3600);
    assert_true(prefix_key_room(PREFIX_TEXT, UINT64_MAX) < 16384);
}

static void a_long_key_fits_its_room(void **state) {
    (void)state;
    size_t len = (3 << 20) + 77;
    char *text = mem_alloc(len);
    memset(text, 'y', len);
    struct result *it = whole(str_make(text, len), 7);
    assert_int_equal(it->key.count, prefix_key_room(PREFIX_TEXT, len));
    assert_int_equal(it->key.length, len);
    uint64_t depth = prefix_key_depth(&it->key, it->key.count);
    assert_in_range(depth, len - len / 256, len);
    mem_free(it);
    mem_free(text);
}

static void past_the_room_only_length_counts(void **state) {
    (void)state;
    static char text[10000];
    memset(text, 'z', sizeof text);
    struct result *all = whole(str_make(text, sizeof text), 7);
    for (size_t cap = 0; cap < 80; cap++) {
        struct result few = {.hashes = {0}};
        start(&few, PREFIX_TEXT, 7, cap);
        few.hashes[cap] = 42;
        for (size_t at = 0; at < sizeof text; at += 100)
            prefix_key_add(&few.key, str_make(text + at, 100));
        prefix_key_end(&few.key);
        size_t count = cap < all->key.count ? cap : all->key.count;
        assert_int_equal(few.key.count, count);
        assert_int_equal(few.key.length, sizeof text);
        assert_memory_equal(few.hashes, all->hashes, count * sizeof *all->hashes);
        assert_int_equal(few.hashes[cap], 42); /* nothing past the room */
    }
    mem_free(all);
}

/* --- ids, seeds ------------------------------------------------------------------------------ */

static void ids_are_cut_by_sixteen(void **state) {
    (void)state;
    uint32_t ids[100];
    struct result one, many;
    for (uint32_t i = 0; i < 100; i++)
        ids[i] = i * 7919;
    start(&one, PREFIX_IDS, 7, ROOM);
    prefix_key_add_ids(&one.key, ids, 100);
    prefix_key_end(&one.key);
    assert_int_equal(one.key.length, 100);
    assert_int_equal(one.key.count, 7); /* 6 blocks and 4 ids */
    assert_int_equal(prefix_key_depth(&one.key, 6), 96);
    assert_int_equal(prefix_key_depth(&one.key, 7), 100);
    start(&many, PREFIX_IDS, 7, ROOM);
    for (uint32_t i = 0; i < 100; i++)
        prefix_key_add_ids(&many.key, &ids[i], 1);
    prefix_key_end(&many.key);
    assert_same(&one, &many);
}

static void other_block_sizes(void **state) {
    (void)state;
    uint32_t ids[1024];
    for (uint32_t i = 0; i < 1024; i++)
        ids[i] = i;
    for (uint16_t block = 1; block <= 128; block++) {
        struct result it;
        start(&it, (struct prefix_shape){block, 4}, 7, ROOM);
        prefix_key_add_ids(&it.key, ids, 1024);
        prefix_key_end(&it.key);
        bool tail = 1024 / block < PREFIX_TAIL_BLOCKS && 1024 % block != 0;
        assert_int_equal(it.key.tail, tail);
        assert_in_range(it.key.count, 1, prefix_key_room(it.key.shape, 1024));
        uint64_t depth = prefix_key_depth(&it.key, it.key.count);
        assert_in_range(depth, tail ? 1024 : 1025 - 2 * block, 1024);
    }
}

static void nothing_in_common_across_seeds(void **state) {
    (void)state;
    static char text[1024];
    uint64_t seeds[] = {prefix_seed(STR("llama"), 0), prefix_seed(STR("llama"), 1),
                        prefix_seed(STR("qwen"), 0), prefix_seed(STR_NONE, 0)};
    struct result *results[4];
    for (int i = 0; i < 4; i++) {
        results[i] = whole(str_make(text, sizeof text), seeds[i]);
        for (int j = 0; j < i; j++)
            assert_int_equal(common_blocks(results[i], results[j]), 0);
    }
    struct result ids;
    start(&ids, PREFIX_IDS, seeds[0], ROOM);
    prefix_key_add(&ids.key, str_make(text, 64));
    prefix_key_end(&ids.key);
    struct result *same = whole(str_make(text, 64), seeds[0]);
    assert_int_equal(common_blocks(&ids, same), 0);
    mem_free(same);
    for (int i = 0; i < 4; i++)
        mem_free(results[i]);
}

static void no_two_blocks_alike(void **state) {
    (void)state;
    static char text[128 * 512];
    struct result *it = whole(str_make(text, sizeof text), 7); /* all blocks are equal */
    for (size_t i = 0; i < it->key.count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_true(it->hashes[i] != it->hashes[j]);
    }
    mem_free(it);
}

static void hashes_are_pinned(void **state) {
    (void)state;
    static char text[300];
    memset(text, 'p', sizeof text);
    struct result *it = whole(str_make(text, sizeof text), prefix_seed(STR("model"), 0));
    assert_int_equal(it->key.count, 3);
    assert_true(it->hashes[0] == UINT64_C(0xf79549b4c210b0a7));
    assert_true(it->hashes[1] == UINT64_C(0x45d40796e56619ec));
    assert_true(it->hashes[2] == UINT64_C(0x73d0fadfe4cea99d));
    mem_free(it);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_leave_no_trace),
        cmocka_unit_test(hashes_agree_as_far_as_texts),
        cmocka_unit_test(longer_text_continues_the_chain),
        cmocka_unit_test(short_keys_are_whole),
        cmocka_unit_test(a_tail_is_not_a_block),
        cmocka_unit_test(thinning_is_as_promised),
        cmocka_unit_test(a_long_key_fits_its_room),
        cmocka_unit_test(past_the_room_only_length_counts),
        cmocka_unit_test(ids_are_cut_by_sixteen),
        cmocka_unit_test(other_block_sizes),
        cmocka_unit_test(nothing_in_common_across_seeds),
        cmocka_unit_test(no_two_blocks_alike),
        cmocka_unit_test(hashes_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
