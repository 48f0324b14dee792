/* Strings: comparing, cutting, numbers, percent decoding. Inputs that must not be read past their
 * end are exact-sized heap copies, so that AddressSanitizer sees an overrun. */
#include "base/str.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void equality_and_order(void **state) {
    (void)state;
    assert_true(str_eq(STR("abc"), STR("abc")));
    assert_false(str_eq(STR("abc"), STR("abd")));
    assert_false(str_eq(STR("abc"), STR("ab")));
    assert_true(str_eq(STR(""), STR_NONE));
    assert_true(str_ieq(STR("Content-TYPE"), STR("content-type")));
    assert_false(str_ieq(STR("a"), STR("b")));
    assert_false(str_ieq(STR("["), STR("{"))); /* 0x20 apart, not letters */
    assert_false(str_ieq(STR("@"), STR("`")));
    assert_false(str_ieq(STR("\xc4"), STR("\xe4")));
    assert_true(str_cmp(STR("a"), STR("b")) < 0);
    assert_true(str_cmp(STR("b"), STR("a")) > 0);
    assert_true(str_cmp(STR("a"), STR("ab")) < 0);
    assert_true(str_cmp(STR("ab"), STR("a")) > 0);
    assert_true(str_cmp(STR("\x7f"), STR("\x80")) < 0);
    assert_int_equal(str_cmp(STR_NONE, STR("")), 0);
}

static void prefixes_and_suffixes(void **state) {
    (void)state;
    assert_true(str_starts(STR("Bearer x"), STR("Bearer ")));
    assert_false(str_starts(STR("bearer x"), STR("Bearer ")));
    assert_true(str_istarts(STR("bEARer x"), STR("Bearer ")));
    assert_false(str_starts(STR("Bea"), STR("Bearer ")));
    assert_false(str_istarts(STR("Bea"), STR("Bearer ")));
    assert_true(str_starts(STR("x"), STR("")));
    assert_true(str_starts(STR_NONE, STR_NONE));
    assert_true(str_ends(STR("model.gguf"), STR(".gguf")));
    assert_false(str_ends(STR("gguf"), STR(".gguf")));
    assert_true(str_ends(STR_NONE, STR("")));
}

static void finding(void **state) {
    (void)state;
    assert_int_equal(str_find(STR("data: [DONE]"), STR("[DONE]")), 6);
    assert_int_equal(str_find(STR("aab"), STR("ab")), 1);
    assert_int_equal(str_find(STR("ab"), STR("abc")), -1);
    assert_int_equal(str_find(STR("ab"), STR("")), 0);
    assert_int_equal(str_find(STR_NONE, STR("")), 0);
    assert_int_equal(str_find(STR_NONE, STR("a")), -1);
    assert_int_equal(str_find(STR("a\0b"), STR("b")), 2);
    assert_int_equal(str_find_char(STR("host:80"), ':'), 4);
    assert_int_equal(str_find_char(STR("host"), ':'), -1);
    assert_int_equal(str_find_char(STR_NONE, ':'), -1);
}

static void cutting(void **state) {
    (void)state;
    assert_true(str_eq(str_trim(STR(" \t a b\r\n ")), STR("a b")));
    assert_int_equal(str_trim(STR(" \n")).len, 0);
    assert_int_equal(str_trim(STR_NONE).len, 0);
    assert_true(str_eq(str_skip(STR("abc"), 1), STR("bc")));
    assert_int_equal(str_skip(STR("abc"), 9).len, 0);
    assert_null(str_skip(STR_NONE, 1).ptr);
    assert_true(str_eq(str_head(STR("abc"), 2), STR("ab")));
    assert_true(str_eq(str_head(STR("abc"), 9), STR("abc")));
}

static void check_split(struct str rest, const char *want) {
    char got[64];
    size_t len = 0;
    struct str part;
    while (str_split(&rest, ',', &part))
        len += (size_t)snprintf(got + len, sizeof got - len, "[%.*s]", STR_ARG(part));
    got[len] = '\0';
    assert_string_equal(got, want);
    assert_null(rest.ptr);
    assert_false(str_split(&rest, ',', &part));
}

static void splitting(void **state) {
    (void)state;
    check_split(STR("a,,b"), "[a][][b]");
    check_split(STR("a"), "[a]");
    check_split(STR(""), "[]");
    check_split(STR(",a,"), "[][a][]");
    check_split(STR_NONE, "");
}

static void check_u64(const char *text, int err, uint64_t want) {
    uint64_t got = 77;
    assert_int_equal(str_to_u64(str_from(text), &got), err);
    assert_int_equal(got, err ? 77 : want);
}

static void unsigned_numbers(void **state) {
    (void)state;
    check_u64("0", 0, 0);
    check_u64("007", 0, 7);
    check_u64("18446744073709551615", 0, UINT64_MAX);
    check_u64("18446744073709551616", -ERANGE, 0);
    check_u64("18446744073709551620", -ERANGE, 0);
    check_u64("99999999999999999999999999", -ERANGE, 0);
    check_u64("99999999999999999999999999x", -EINVAL, 0);
    check_u64("", -EINVAL, 0);
    check_u64("-1", -EINVAL, 0);
    check_u64("+1", -EINVAL, 0);
    check_u64(" 1", -EINVAL, 0);
    check_u64("1 ", -EINVAL, 0);
    check_u64("0x10", -EINVAL, 0);
    check_u64(NULL, -EINVAL, 0);
}

static void check_i64(const char *text, int err, int64_t want) {
    int64_t got = 77;
    assert_int_equal(str_to_i64(str_from(text), &got), err);
    assert_true(got == (err ? 77 : want));
}

static void signed_numbers(void **state) {
    (void)state;
    check_i64("-1", 0, -1);
    check_i64("-0", 0, 0);
    check_i64("9223372036854775807", 0, INT64_MAX);
    check_i64("9223372036854775808", -ERANGE, 0);
    check_i64("-9223372036854775808", 0, INT64_MIN);
    check_i64("-9223372036854775809", -ERANGE, 0);
    check_i64("-", -EINVAL, 0);
    check_i64("--1", -EINVAL, 0);
    check_i64("", -EINVAL, 0);
}

static void check_double(const char *text, int err, double want) {
    double got = 77;
    assert_int_equal(str_to_double(str_from(text), &got), err);
    assert_true(got == (err ? 77 : want));
}

static void fractions(void **state) {
    (void)state;
    check_double("0.3", 0, 0.3);
    check_double("-1.5e3", 0, -1500);
    check_double("+.5", 0, 0.5);
    check_double("2.", 0, 2);
    check_double("1E-2", 0, 0.01);
    check_double("1e400", -ERANGE, 0);
    check_double("1e-400", 0, 0);
    static const char *const bad[] = {"",    ".",   "-",     "e5", "1e", "1e+", "1.2.3",
                                      "inf", "nan", "0x1p3", " 1", "1 ", "1,5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_double(bad[i], -EINVAL, 0);
}

static void fraction_ends_at_its_length(void **state) {
    (void)state;
    double got;
    assert_int_equal(str_to_double(str_make("1.25999", 4), &got), 0);
    assert_true(got == 1.25);
    char long_text[300];
    memset(long_text, '0', sizeof long_text);
    long_text[1] = '.';
    long_text[299] = '5';
    assert_int_equal(str_to_double(str_make(long_text, 300), &got), 0);
    assert_true(got > 4e-298 && got < 6e-298);
}

static void copies(void **state) {
    (void)state;
    char *copy = str_dup(str_make("abcdef", 3));
    assert_string_equal(copy, "abc");
    mem_free(copy);
    copy = str_dup(STR_NONE);
    assert_string_equal(copy, "");
    mem_free(copy);
}

static void check_percent(const char *text, const char *want) {
    size_t len = strlen(text);
    char *in = mem_alloc(len);
    memcpy(in, text, len);
    ptrdiff_t n = str_percent_decode(str_make(in, len), in);
    if (want == NULL) {
        assert_int_equal(n, -EINVAL);
    } else {
        assert_int_equal(n, strlen(want));
        assert_memory_equal(in, want, strlen(want));
    }
    mem_free(in);
}

static void percent_decoding(void **state) {
    (void)state;
    check_percent("http%3A%2f%2Fw1%3a8000", "http://w1:8000");
    check_percent("a+b", "a+b");
    check_percent("%25%34%31", "%41");
    check_percent("", "");
    check_percent("%", NULL);
    check_percent("%4", NULL);
    check_percent("a%4", NULL);
    check_percent("%g0", NULL);
    check_percent("%0g", NULL);
    check_percent("%%41", NULL);
    char out[1];
    assert_int_equal(str_percent_decode(STR("%00"), out), 1);
    assert_int_equal(out[0], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_and_order),
        cmocka_unit_test(prefixes_and_suffixes),
        cmocka_unit_test(finding),
        cmocka_unit_test(cutting),
        cmocka_unit_test(splitting),
        cmocka_unit_test(unsigned_numbers),
        cmocka_unit_test(signed_numbers),
        cmocka_unit_test(fractions),
        cmocka_unit_test(fraction_ends_at_its_length),
        cmocka_unit_test(copies),
        cmocka_unit_test(percent_decoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
