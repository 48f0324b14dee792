/* Random numbers: repeatable under a seed, not otherwise; uniform; UUIDs well-formed. */
#include "base/rand.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"

/* The state 1, 2, 3, 4 has outputs that can be worked out by hand: rotl(1 + 4, 23) + 1 first. */
static void generator_by_hand(void **state) {
    (void)state;
    struct rand_stream stream = {{1, 2, 3, 4}};
    assert_true(rand_stream_u64(&stream) == 41943041);
    assert_true(rand_stream_u64(&stream) == 58720359);
    /* splitmix64 of seed 0 starts with this number in every published test. */
    uint64_t seed = 0;
    assert_true(splitmix64(&seed) == UINT64_C(0xe220a8397b1dcdaf));
}

static void streams_repeat(void **state) {
    (void)state;
    struct rand_stream a, b, c;
    rand_stream_init(&a, 42);
    rand_stream_init(&b, 42);
    rand_stream_init(&c, 43);
    int same_as_other_seed = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rand_stream_u64(&a);
        assert_true(x == rand_stream_u64(&b));
        same_as_other_seed += x == rand_stream_u64(&c);
    }
    assert_int_equal(same_as_other_seed, 0);
    for (int i = 0; i < 1000; i++) {
        double u = rand_stream_unit(&a);
        assert_true(u >= 0 && u < 1);
    }
}

static void *draw_as_thread(void *arg) {
    uint64_t *number = arg;
    rand_seed_thread((uint32_t)*number);
    *number = rand_u64();
    return NULL;
}

static uint64_t first_of_thread(uint64_t number) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, draw_as_thread, &number), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return number;
}

static void process_seed_fixes_threads(void **state) {
    (void)state;
    rand_seed_process(7);
    assert_int_equal(rand_process_seed(), 7);
    uint64_t mine = rand_u64(); /* this is thread 0 */
    uint64_t one = first_of_thread(1), two = first_of_thread(2);
    assert_true(mine == first_of_thread(0));
    assert_true(one != two && one != mine && two != mine);
    assert_true(one == first_of_thread(1));
    rand_seed_process(8);
    assert_true(rand_u64() != mine);
    rand_seed_process(7);
    assert_true(rand_u64() == mine);
    rand_seed_process(0);
    assert_int_equal(rand_process_seed(), 0);
    assert_true(first_of_thread(1) != one);
}

static void below_is_uniform(void **state) {
    (void)state;
    rand_seed_process(11);
    int counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t x = rand_below(7);
        assert_true(x < 7);
        counts[x]++;
    }
    /* Ten standard deviations of a binomial with p = 1/7 are about 926. */
    for (int i = 0; i < 7; i++)
        assert_true(abs(counts[i] - 10000) < 926);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rand_below(1), 0);
}

/* With n three quarters of the range, a plain modulo would give the first third twice its share, and
 * a plain product would give it to the multiples of three. */
static void below_has_no_bias_for_large_n(void **state) {
    (void)state;
    rand_seed_process(12);
    const uint64_t n = UINT64_C(3) << 62;
    int thirds[3] = {0}, rests[3] = {0};
    for (int i = 0; i < 30000; i++) {
        uint64_t x = rand_below(n);
        assert_true(x < n);
        thirds[x >> 62]++;
        rests[x % 3]++;
    }
    for (int i = 0; i < 3; i++) {
        assert_true(abs(thirds[i] - 10000) < 820);
        assert_true(abs(rests[i] - 10000) < 820);
    }
}

static void alnum_is_alphanumeric(void **state) {
    (void)state;
    rand_seed_process(13);
    int counts[256] = {0};
    for (size_t len = 0; len < 300; len++) {
        unsigned char *out = mem_alloc(len + 1);
        out[len] = '#';
        rand_alnum((char *)out, len);
        assert_int_equal(out[len], '#');
        for (size_t i = 0; i < len; i++)
            counts[out[i]]++;
        mem_free(out);
    }
    int kinds = 0;
    for (int c = 0; c < 256; c++) {
        bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        assert_int_equal(letter, counts[c] > 0);
        kinds += counts[c] > 0;
        /* 44,850 characters, 723 of each, standard deviation 27. */
        assert_true(!letter || abs(counts[c] - 723) < 270);
    }
    assert_int_equal(kinds, 62);
}

static int by_text(const void *a, const void *b) { return memcmp(a, b, UUID_LEN); }

static void uuids(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    char(*all)[UUID_LEN + 1] = mem_alloc(COUNT * sizeof *all);
    uint64_t before = (uint64_t)clock_wall_ms();
    for (int i = 0; i < COUNT; i++) {
        uuid_v7(all[i]);
        assert_int_equal(strlen(all[i]), UUID_LEN);
        assert_true(uuid_valid(str_from(all[i])));
        assert_int_equal(all[i][14], '7');
        assert_non_null(strchr("89ab", all[i][19]));
    }
    uint64_t after = (uint64_t)clock_wall_ms();
    char hex[13] = {0};
    memcpy(hex, all[0], 8);
    memcpy(hex + 8, all[0] + 9, 4);
    uint64_t stamp = strtoull(hex, NULL, 16);
    assert_true(stamp >= before && stamp <= after);
    qsort(all, COUNT, sizeof *all, by_text);
    for (int i = 1; i < COUNT; i++)
        assert_string_not_equal(all[i - 1], all[i]);
    mem_free(all);
}

static void uuid_syntax(void **state) {
    (void)state;
    assert_true(uuid_valid(STR("0190a6f2-7c31-7ABC-8def-0123456789aB")));
    assert_false(uuid_valid(STR("0190a6f2-7c31-7abc-8def-0123456789a")));
    assert_false(uuid_valid(STR("0190a6f2-7c31-7abc-8def-0123456789abc")));
    assert_false(uuid_valid(STR("0190a6f2-7c31-7abc-8def-0123456789ag")));
    assert_false(uuid_valid(STR("0190a6f27-c31-7abc-8def-0123456789ab")));
    assert_false(uuid_valid(STR("0190a6f2 7c31-7abc-8def-0123456789ab")));
    assert_false(uuid_valid(STR_NONE));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generator_by_hand),
        cmocka_unit_test(streams_repeat),
        cmocka_unit_test(process_seed_fixes_threads),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(below_has_no_bias_for_large_n),
        cmocka_unit_test(alnum_is_alphanumeric),
        cmocka_unit_test(uuids),
        cmocka_unit_test(uuid_syntax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
