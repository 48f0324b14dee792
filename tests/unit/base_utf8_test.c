/* UTF-8: every code point both ways, and every byte sequence up to three bytes by a second opinion
 * that decodes first and judges the number afterwards. */
#include "base/utf8.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void every_code_point(void **state) {
    (void)state;
    size_t last = 1;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        char out[4];
        size_t len = utf8_encode(code, out);
        if (code >= 0xd800 && code <= 0xdfff) {
            assert_int_equal(len, 0);
            continue;
        }
        assert_true(len == last || len == last + 1);
        last = len;
        assert_true(utf8_valid(str_make(out, len)));
        /* A part of a character is not valid. */
        assert_int_equal(utf8_valid_prefix(str_make(out, len - 1)), 0);
    }
    assert_int_equal(last, 4);
}

static void encoding(void **state) {
    (void)state;
    char out[4];
    assert_int_equal(utf8_encode(0x24, out), 1);
    assert_memory_equal(out, "$", 1);
    assert_int_equal(utf8_encode(0xe9, out), 2);
    assert_memory_equal(out, "\xc3\xa9", 2);
    assert_int_equal(utf8_encode(0x20ac, out), 3);
    assert_memory_equal(out, "\xe2\x82\xac", 3);
    assert_int_equal(utf8_encode(0x1f600, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(utf8_encode(0x110000, out), 0);
    assert_int_equal(utf8_encode(UINT32_MAX, out), 0);
}

/* True when p[0..len) is one whole character: decoded by its lead byte's length, then judged by the
 * smallest number of that length, the surrogates and the top. */
static bool is_character(const unsigned char *p, size_t len) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t want = p[0] < 0x80       ? 1
                  : p[0] >> 5 == 6  ? 2
                  : p[0] >> 4 == 14 ? 3
                  : p[0] >> 3 == 30 ? 4
                                    : 0;
    if (want != len)
        return false;
    uint32_t code = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return false;
        code = code << 6 | (p[i] & 63);
    }
    return code >= least[len] && (code < 0xd800 || code > 0xdfff) && code <= 0x10ffff;
}

static bool is_text(const unsigned char *p, size_t len) {
    if (len == 0)
        return true;
    for (size_t n = 1; n <= len && n <= 4; n++) {
        if (is_character(p, n) && is_text(p + n, len - n))
            return true;
    }
    return false;
}

static void every_short_sequence(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 1 << 24; bits++) {
        /* The third byte matters by its class only: one of each class will do. */
        unsigned char third = bits & 0xff;
        if (third != 0x00 && third != 0x7f && third != 0x80 && third != 0xbf && third < 0xc0)
            continue;
        unsigned char p[3] = {(unsigned char)(bits >> 16), (unsigned char)(bits >> 8), third};
        bool valid = utf8_valid(str_make((char *)p, 3));
        if (valid != is_text(p, 3))
            fail_msg("%02x %02x %02x", p[0], p[1], p[2]);
    }
}

static void four_byte_borders(void **state) {
    (void)state;
    assert_true(utf8_valid(STR("\xf0\x90\x80\x80")));
    assert_false(utf8_valid(STR("\xf0\x8f\xbf\xbf")));
    assert_true(utf8_valid(STR("\xf4\x8f\xbf\xbf")));
    assert_false(utf8_valid(STR("\xf4\x90\x80\x80")));
    assert_false(utf8_valid(STR("\xf5\x80\x80\x80")));
    assert_false(utf8_valid(STR("\xf1\x80\x80\x41")));
    assert_false(utf8_valid(STR("\xf1\x80\xc0\x80")));
    assert_false(utf8_valid(STR("\xff")));
}

/* The bad byte is found at every offset of a run of ASCII, whatever the eight-byte steps. */
static void prefix_lengths(void **state) {
    (void)state;
    for (size_t len = 0; len < 40; len++) {
        for (size_t at = 0; at < len; at++) {
            char *text = mem_alloc(len);
            memset(text, 'a', len);
            text[at] = '\xff';
            assert_int_equal(utf8_valid_prefix(str_make(text, len)), at);
            text[at] = '\0';
            assert_true(utf8_valid(str_make(text, len)));
            mem_free(text);
        }
    }
    assert_true(utf8_valid(STR_NONE));
    assert_int_equal(utf8_valid_prefix(STR("caf\xc3\xa9 \xe2\x82")), 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point),     cmocka_unit_test(encoding),
        cmocka_unit_test(every_short_sequence), cmocka_unit_test(four_byte_borders),
        cmocka_unit_test(prefix_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
