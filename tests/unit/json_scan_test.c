/* json_scan agrees with the document parser about what is JSON, and hands out the right members. */
#include "proto/json_scan.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rand.h"

struct seen {
    int count;
    char text[512];
};

static void note(void *arg, struct str key, struct str value) {
    struct seen *seen = arg;
    size_t used = strlen(seen->text);
    seen->count++;
    snprintf(seen->text + used, sizeof seen->text - used, "%.*s=%.*s;", STR_ARG(key),
             STR_ARG(value));
}

static enum json_kind kind_of(const char *text, struct seen *seen) {
    *seen = (struct seen){0};
    return json_scan(str_from(text), note, seen);
}

static void hands_out_top_level_members(void **state) {
    (void)state;
    struct seen seen;
    assert_int_equal(
        kind_of(" {\"model\" : \"m\", \"n\":[1,{\"model\":2}], \"stream\":true } ", &seen),
        JSON_OBJECT);
    assert_string_equal(seen.text, "model=\"m\";n=[1,{\"model\":2}];stream=true;");
    assert_int_equal(kind_of("[{\"a\":1}]", &seen), JSON_OTHER);
    assert_int_equal(seen.count, 0);
    assert_int_equal(kind_of("{}", &seen), JSON_OBJECT);
    assert_int_equal(seen.count, 0);
    assert_int_equal(kind_of("{\"a\":1,\"a\":2}", &seen), JSON_OBJECT);
    assert_string_equal(seen.text, "a=1;a=2;");
}

static const struct {
    const char *text;
    enum json_kind kind;
} cases[] = {
    {"", JSON_INVALID},
    {"  ", JSON_INVALID},
    {"null", JSON_OTHER},
    {"nul", JSON_INVALID},
    {"-", JSON_INVALID},
    {"-0", JSON_OTHER},
    {"01", JSON_INVALID},
    {"1.", JSON_INVALID},
    {".5", JSON_INVALID},
    {"1e", JSON_INVALID},
    {"1e+5", JSON_OTHER},
    {"1e999", JSON_OTHER},
    {"+1", JSON_INVALID},
    {"NaN", JSON_INVALID},
    {"'a'", JSON_INVALID},
    {"\"\\u12\"", JSON_INVALID},
    {"\"\\ud800\"", JSON_INVALID},
    {"\"\\udc00\"", JSON_INVALID},
    {"\"\\ud83d\\ude00\"", JSON_OTHER},
    {"\"\\x\"", JSON_INVALID},
    {"\"a\tb\"", JSON_INVALID},
    {"\"\x7f\"", JSON_OTHER},
    {"\"\xc3\x28\"", JSON_INVALID},
    {"\"\xc3\xa9\"", JSON_OTHER},
    {"{\"a\":1,}", JSON_INVALID},
    {"[1,]", JSON_INVALID},
    {"{a:1}", JSON_INVALID},
    {"{\"a\" 1}", JSON_INVALID},
    {"{} {}", JSON_INVALID},
    {"[1}", JSON_INVALID},
    {"{\"a\":1]", JSON_INVALID},
    {"{\"a\":", JSON_INVALID},
    {"[", JSON_INVALID},
    {"{\"0123456789abcdef\":\"0123456789abcdef0123456789abcdef\"}", JSON_OBJECT},
    {"\"0123456789abcdef\x01\"", JSON_INVALID},
    {"\"0123456789abcde\\\"", JSON_INVALID},
    {"\xef\xbb\xbf{}", JSON_INVALID},
    {"// c\n1", JSON_INVALID},
    {"{\"\":{}}", JSON_OBJECT},
};

static void knows_what_is_json(void **state) {
    (void)state;
    struct seen seen;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (kind_of(cases[i].text, &seen) != cases[i].kind)
            fail_msg("case %zu: %s", i, cases[i].text);
}

static void bounds_the_depth(void **state) {
    (void)state;
    static char text[2 * JSON_MAX_DEPTH + 8];
    struct seen seen;
    for (size_t depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        text[2 * depth] = '\0';
        assert_int_equal(kind_of(text, &seen), depth <= JSON_MAX_DEPTH ? JSON_OTHER : JSON_INVALID);
    }
}

/* --- against the document parser --- */

static void ignore(void *arg, struct str key, struct str value) {
    (void)arg;
    (void)key;
    (void)value;
}

static const char *const pieces[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"a\"",
    "\"\"",
    "1",
    "-0.5e-3",
    "true",
    "null",
    " ",
    "\n",
    "\"\\n\"",
    "\"",
    "\\",
    "\"\xc3\xa9\"",
    "\"model\"",
    "\xff",
    "\"long enough for sixteen\"",
    "\"\\ud83d\\ude00\"",
    "0",
    "\t",
};

static size_t random_text(char *out, size_t size) {
    size_t len = 0, count = rand_below(14);
    for (size_t i = 0; i < count; i++) {
        const char *piece = pieces[rand_below(sizeof pieces / sizeof *pieces)];
        size_t n = strlen(piece);
        if (len + n >= size)
            break;
        memcpy(out + len, piece, n);
        len += n;
    }
    return len;
}

static void agrees_with_the_parser(void **state) {
    (void)state;
    size_t valid = 0;
    for (int i = 0; i < 300000; i++) {
        char text[256];
        size_t len = random_text(text, sizeof text);
        struct arena *arena = arena_new();
        struct str error = STR("");
        bool theirs = json_parse(arena, str_make(text, len), &error) != NULL;
        bool ours = json_scan(str_make(text, len), ignore, NULL) != JSON_INVALID;
        arena_free(arena);
        if (ours != theirs)
            fail_msg("disagree about: %.*s (%.*s)", (int)len, text, STR_ARG(error));
        valid += ours;
    }
    assert_true(valid > 3000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_out_top_level_members),
        cmocka_unit_test(knows_what_is_json),
        cmocka_unit_test(bounds_the_depth),
        cmocka_unit_test(agrees_with_the_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
