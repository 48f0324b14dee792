#include "auth/keys.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void bearer_tokens(void **state) {
    (void)state;
    static const struct {
        const char *header, *token; /* NULL: none */
    } cases[] = {
        {"Bearer abc", "abc"},
        {"bearer abc", "abc"},
        {"BEARER abc", "abc"},
        {"Bearer  abc ", "abc"},
        {"Bearer a b", "a b"},
        {"Bearer Abc", "Abc"},
        {"Bearer ", ""},
        {"Bearer", NULL},
        {"Bearerabc", NULL},
        {"Basic abc", NULL},
        {"", NULL},
        {"abc", NULL},
        {" Bearer abc", NULL},
        {"Token Bearer x", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str token = keys_bearer(str_from(cases[i].header));
        assert_int_equal(token.ptr != NULL, cases[i].token != NULL);
        if (cases[i].token != NULL && !str_eq(token, str_from(cases[i].token)))
            fail_msg("%s gives '%.*s'", cases[i].header, STR_ARG(token));
    }
    assert_null(keys_bearer(STR_NONE).ptr);
}

static void equal_keys(void **state) {
    (void)state;
    static const char *const keys[] = {"a",      "b",      "aa",      "ab",    "ba",          "aaa",
                                       "secret", "secreT", "secret ", "ecret", "secretsecret"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            assert_int_equal(keys_equal(str_from(keys[i]), str_from(keys[k])), i == k);
}

/* An absent key must never open a door. */
static void nothing_equals_nothing(void **state) {
    (void)state;
    static const struct str nothing[] = {{NULL, 0}, {"", 0}};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < 2; k++)
            assert_false(keys_equal(nothing[i], nothing[k]));
        assert_false(keys_equal(nothing[i], STR("x")));
        assert_false(keys_equal(STR("x"), nothing[i]));
    }
}

/* Every byte counts, the first and the last as well. */
static void one_bit_differs(void **state) {
    (void)state;
    char a[33] = "0123456789abcdef0123456789abcdef", b[33];
    for (size_t bit = 0; bit < 32 * 8; bit++) {
        memcpy(b, a, sizeof a);
        b[bit / 8] = (char)(b[bit / 8] ^ (1 << bit % 8));
        assert_false(keys_equal(str_make(a, 32), str_make(b, 32)));
    }
    assert_true(keys_equal(str_make(a, 32), str_make(a, 32)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bearer_tokens),
        cmocka_unit_test(equal_keys),
        cmocka_unit_test(nothing_equals_nothing),
        cmocka_unit_test(one_bit_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
