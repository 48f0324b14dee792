/* Base64: the RFC's vectors, round trips, and everything that strict decoding must refuse. */
#include "base/base64.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/rand.h"

static void check_pair(const char *plain, const char *coded) {
    char out[64];
    size_t len = base64_encode(str_from(plain), out);
    assert_int_equal(len, strlen(coded));
    assert_int_equal(len, base64_encoded_len(strlen(plain)));
    assert_memory_equal(out, coded, len);
    assert_int_equal(base64_decode(str_from(coded), out), strlen(plain));
    assert_memory_equal(out, plain, strlen(plain));
}

static void published_vectors(void **state) {
    (void)state;
    check_pair("", "");
    check_pair("f", "Zg==");
    check_pair("fo", "Zm8=");
    check_pair("foo", "Zm9v");
    check_pair("foob", "Zm9vYg==");
    check_pair("fooba", "Zm9vYmE=");
    check_pair("foobar", "Zm9vYmFy");
    check_pair("\xfb\xef\xbe\xff", "++++/w==");
}

/* Exact-sized heap buffers show overruns under AddressSanitizer; decoding is in place. */
static void round_trips(void **state) {
    (void)state;
    struct rand_stream random;
    rand_stream_init(&random, 5);
    for (size_t len = 1; len < 300; len++) {
        char *plain = mem_alloc(len);
        for (size_t i = 0; i < len; i++)
            plain[i] = (char)rand_stream_u64(&random);
        size_t coded_len = base64_encoded_len(len);
        char *coded = mem_alloc(coded_len);
        assert_int_equal(base64_encode(str_make(plain, len), coded), coded_len);
        assert_true(base64_decoded_max(coded_len) >= len);
        assert_int_equal(base64_decode(str_make(coded, coded_len), coded), len);
        assert_memory_equal(coded, plain, len);
        mem_free(coded);
        mem_free(plain);
    }
}

static void strictness(void **state) {
    (void)state;
    static const char *const bad[] = {
        "Z",    "Zg",   "Zg=",  "Zg===",    "====",       "=Zg=",      "Z===",
        "Zg=g", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v Zg=",   "Zm9v\n===", "Zm9v\nZm9",
        "-___", "Zm9*", " Zm9", "Zm8=Zm9v", "Zm\xc3\xa9",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char out[64];
        assert_int_equal(base64_decode(str_from(bad[i]), out), -EINVAL);
    }
    char out[4];
    assert_int_equal(base64_decode(STR("Zm\0v"), out), -EINVAL);
    assert_int_equal(base64_decode(STR_NONE, out), 0);
}

/* Of all groups of four characters from a small set, exactly those decode that encoding makes. */
static void one_text_for_given_bytes(void **state) {
    (void)state;
    static const char set[] = "ABQZgw059+/=";
    const size_t n = sizeof set - 1;
    int good = 0;
    for (size_t i = 0; i < n * n * n * n; i++) {
        char text[4] = {set[i % n], set[i / n % n], set[i / n / n % n], set[i / n / n / n]};
        char plain[3], again[4];
        ptrdiff_t len = base64_decode(str_make(text, 4), plain);
        if (len < 0)
            continue;
        good++;
        assert_int_equal(base64_encode(str_make(plain, (size_t)len), again), 4);
        assert_memory_equal(again, text, 4);
    }
    /* Full groups take any of the 11 letters. Before one pad the third must have its low two bits
     * zero (A, Q, g, w, 0), before two pads the second its low four (A, Q, g, w). */
    assert_int_equal(good, 11 * 11 * 11 * 11 + 11 * 11 * 5 + 11 * 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(strictness),
        cmocka_unit_test(one_text_for_given_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
