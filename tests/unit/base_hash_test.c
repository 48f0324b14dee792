/* Hashes are stable over runs and builds: known XXH3 values pin them. */
#include "base/hash.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void known_values(void **state) {
    (void)state;
    assert_true(hash_bytes(NULL, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash_str(STR("")) == hash_bytes(NULL, 0));
}

static void same_input_same_hash(void **state) {
    (void)state;
    char a[1000], b[1000];
    memset(a, 'p', sizeof a);
    memset(b, 'p', sizeof b);
    assert_true(hash_bytes(a, sizeof a) == hash_bytes(b, sizeof b));
    assert_true(hash_seeded(a, sizeof a, 0) == hash_bytes(a, sizeof a));
    b[999] = 'q';
    assert_true(hash_bytes(a, sizeof a) != hash_bytes(b, sizeof b));
    assert_true(hash_bytes(a, 999) == hash_bytes(b, 999));
}

static void seeds_differ(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 16, 128, 240, 241, 4096};
    char text[4096];
    memset(text, 't', sizeof text);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_true(hash_seeded(text, sizes[i], 1) != hash_seeded(text, sizes[i], 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(same_input_same_hash),
        cmocka_unit_test(seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
