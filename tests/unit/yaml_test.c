/* YAML in, JSON text out; what is refused, and on which line. */
#include "proto/yaml.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rand.h"

static struct arena *arena;

static int begin(void **state) {
    (void)state;
    arena = arena_new();
    return 0;
}

static int end(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static void assert_json(const char *yaml, const char *json) {
    struct str out;
    struct yaml_error error;
    if (yaml_to_json(arena, str_from(yaml), &out, &error) != 0)
        fail_msg("%s: line %d: %s", yaml, error.line, error.reason);
    if (!str_eq(out, str_from(json)))
        fail_msg("%s: %.*s, not %s", yaml, STR_ARG(out), json);
}

static void assert_refused(const char *yaml, int line, const char *reason) {
    struct str out;
    struct yaml_error error;
    if (yaml_to_json(arena, str_from(yaml), &out, &error) != -EINVAL)
        fail_msg("%s was taken", yaml);
    if (strstr(error.reason, reason) == NULL)
        fail_msg("%s: %s, not %s", yaml, error.reason, reason);
    assert_int_equal(error.line, line);
}

static void collections_nest(void **state) {
    (void)state;
    assert_json("a: 1\nb:\n  - x\n  - y: [2, {z: q}]\nc: {}\nd: []\n",
                "{\"a\":1,\"b\":[\"x\",{\"y\":[2,{\"z\":\"q\"}]}],\"c\":{},\"d\":[]}");
    assert_json("- 1\n- two\n", "[1,\"two\"]");
    assert_json("--- # one document\na: 1\n...\n", "{\"a\":1}");
    assert_json("", "null");
    assert_json("# only a comment\n", "null");
    assert_json("a:\nb: 1\n", "{\"a\":null,\"b\":1}");
    assert_json("{a: 1, \"b\": 2}", "{\"a\":1,\"b\":2}");
    assert_json("%YAML 1.2\n---\nx", "\"x\"");
}

static void plain_scalars_follow_the_core_schema(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"null", "null"},
        {"Null", "null"},
        {"~", "null"},
        {"true", "true"},
        {"True", "true"},
        {"TRUE", "true"},
        {"false", "false"},
        {"FALSE", "false"},
        {"yes", "\"yes\""},
        {"on", "\"on\""},
        {"tRUE", "\"tRUE\""},
        {"nULL", "\"nULL\""},
        {"0", "0"},
        {"-0", "-0"},
        {"007", "7"},
        {"+12", "12"},
        {"-12", "-12"},
        {"18446744073709551615", "18446744073709551615"},
        {"1.50", "1.50"},
        {"1.", "1.0"},
        {".5", "0.5"},
        {"-.5", "-0.5"},
        {"1e3", "1.0e3"},
        {"1.5E-3", "1.5e-3"},
        {"+1.e+2", "1.0e+2"},
        {"0x1F", "31"},
        {"0o17", "15"},
        {"0x", "\"0x\""},
        {"0o8", "\"0o8\""},
        {"0b1", "\"0b1\""},
        {"-0x1", "\"-0x1\""},
        {"1_000", "\"1_000\""},
        {"1e", "\"1e\""},
        {".", "\".\""},
        {"-", "[null]"},
        {"+", "\"+\""},
        {"1.2.3", "\"1.2.3\""},
        {"12:30", "\"12:30\""},
        {"2026-01-02", "\"2026-01-02\""},
        {"http://h:1", "\"http://h:1\""},
        {"0xfffffffffffffffff", "\"0xfffffffffffffffff\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_json(cases[i][0], cases[i][1]);
}

static void quoted_and_block_scalars_are_text(void **state) {
    (void)state;
    assert_json("a: \"1\"\nb: 'true'\nc: ''\n", "{\"a\":\"1\",\"b\":\"true\",\"c\":\"\"}");
    assert_json("a: |\n  x\n  y\n", "{\"a\":\"x\\ny\\n\"}");
    assert_json("a: >-\n  x\n  y\n", "{\"a\":\"x y\"}");
    assert_json("a: \"\\x41\\u00e9\\\"\\n\"\n", "{\"a\":\"A\xc3\xa9\\\"\\n\"}");
    assert_json("1: a\ntrue: b\n", "{\"1\":\"a\",\"true\":\"b\"}");
}

static void what_has_no_place_in_a_configuration_is_refused(void **state) {
    (void)state;
    assert_refused("a: 1\nb: &x 2\n", 2, "anchors are not allowed");
    assert_refused("a: &x [1]\n", 1, "anchors are not allowed");
    assert_refused("a: 1\nb: *x\n", 2, "aliases are not allowed");
    assert_refused("a: !!str 1\n", 1, "tags are not allowed");
    assert_refused("a: !x {}\n", 1, "tags are not allowed");
    assert_refused("a: 1\n\na: 2\n", 3, "the key 'a' stands twice");
    assert_refused("x: {a: 1, a: 2}\n", 1, "the key 'a' stands twice");
    assert_refused("a: 1\n---\nb: 2\n", 2, "more than one document");
    assert_refused("? [1, 2]\n: x\n", 1, "a key must be plain text");
    assert_refused("? {a: b}\n: x\n", 1, "a key must be plain text");
    assert_refused("a: .inf\n", 1, "infinity and NaN");
    assert_refused("a: -.INF\n", 1, "infinity and NaN");
    assert_refused("a:\n  - .nan\n", 2, "infinity and NaN");
}

static void syntax_errors_name_their_line(void **state) {
    (void)state;
    assert_refused("a: 1\nb: [1, 2\n", 3, "did not find expected");
    assert_refused("a: 1\n\tb: 2\n", 2, "tab character");
    assert_refused("a: b: c\n", 1, "mapping values are not allowed");
    assert_refused("a: \"x\n", 2, "unexpected end of stream");
    assert_refused("a: 1\nb\n", 3, "could not find expected ':'");
}

static void depth_and_size_are_bounded(void **state) {
    (void)state;
    char deep[2 * YAML_MAX_DEPTH + 3];
    memset(deep, '[', YAML_MAX_DEPTH);
    memset(deep + YAML_MAX_DEPTH, ']', YAML_MAX_DEPTH);
    deep[2 * YAML_MAX_DEPTH] = '\0';
    assert_json(deep, deep);
    memset(deep, '[', YAML_MAX_DEPTH + 1);
    deep[YAML_MAX_DEPTH + 1] = '\0';
    assert_refused(deep, 1, "nested deeper than 64 levels");
    struct str out;
    struct yaml_error error;
    char *large = mem_alloc(YAML_MAX_BYTES + 1);
    memset(large, ' ', YAML_MAX_BYTES + 1);
    assert_int_equal(yaml_to_json(arena, str_make(large, YAML_MAX_BYTES + 1), &out, &error),
                     -EINVAL);
    assert_non_null(strstr(error.reason, "larger than"));
    mem_free(large);
}

static void bytes_that_are_no_text_are_refused(void **state) {
    (void)state;
    struct str out;
    struct yaml_error error;
    static const char *const cases[] = {"a: \xff\xfe\n", "a: \x01\n", "\xc3", "a: \xed\xa0\x80\n"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(yaml_to_json(arena, str_from(cases[i]), &out, &error), -EINVAL);
    assert_int_equal(yaml_to_json(arena, str_make("a: \0b", 5), &out, &error), -EINVAL);
}

static void lines_of_keys_are_found(void **state) {
    (void)state;
    struct str text = STR("# comment\nhost: x\n\nlist:\n  - host2\n  - a: {port: 1}\nport: 3\n"
                          "text: |\n  seed: 1\nseed: 2\n? odd\n: value\nlast: odd\n");
    static const struct {
        const char *key;
        int line;
    } cases[] = {{"host", 2}, {"list", 4},  {"port", 7}, {"text", 8},  {"seed", 10},
                 {"odd", 11}, {"last", 13}, {"a", 0},    {"value", 0}, {"host2", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(yaml_line_of(text, str_from(cases[i].key)), cases[i].line);
    assert_int_equal(yaml_line_of(STR("a: [\n"), STR("a")), 0);
    assert_int_equal(yaml_line_of(STR(""), STR("a")), 0);
}

/* Whatever is taken is JSON; nothing crashes or leaks. */
static void random_text_is_json_or_refused(void **state) {
    (void)state;
    static const char *const pieces[] = {"a",  ": ", "\n", "- ",  "[",  "]",   "{",  "}",
                                         ", ", "\"", "'",  "  ",  "1",  ".5",  "~",  "#",
                                         "|",  ">",  "? ", "&x ", "*",  "!!x", "\t", "--- ",
                                         "%",  "\\", "e",  "-",   "\r", "\xff"};
    struct rand_stream rand;
    rand_stream_init(&rand, 7);
    for (int round = 0; round < 20000; round++) {
        char text[128] = "";
        size_t len = 0;
        struct str out, why;
        struct yaml_error error;
        size_t count = rand_stream_u64(&rand) % 24;
        for (size_t i = 0; i < count; i++)
            len +=
                (size_t)snprintf(text + len, sizeof text - len, "%s",
                                 pieces[rand_stream_u64(&rand) % (sizeof pieces / sizeof *pieces)]);
        struct arena *own = arena_new();
        if (yaml_to_json(own, str_from(text), &out, &error) == 0) {
            if (json_parse(own, out, &why) == NULL)
                fail_msg("%s: %.*s", text, STR_ARG(out));
        } else {
            assert_true(error.line >= 1 && error.reason[0] != '\0');
        }
        (void)yaml_line_of(str_from(text), STR("a"));
        arena_free(own);
    }
}

#define IN_ARENA(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_ARENA(collections_nest),
        IN_ARENA(plain_scalars_follow_the_core_schema),
        IN_ARENA(quoted_and_block_scalars_are_text),
        IN_ARENA(what_has_no_place_in_a_configuration_is_refused),
        IN_ARENA(syntax_errors_name_their_line),
        IN_ARENA(depth_and_size_are_bounded),
        IN_ARENA(bytes_that_are_no_text_are_refused),
        cmocka_unit_test(lines_of_keys_are_found),
        cmocka_unit_test(random_text_is_json_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
