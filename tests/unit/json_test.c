#include "proto/json.c"
#include "proto/json_writer.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rand.h"

static struct arena *arena;

static int setup(void **state) {
    (void)state;
    arena = arena_new();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static yyjson_val *root_of(struct str text) {
    yyjson_doc *doc = json_parse(arena, text, NULL);
    return doc ? yyjson_doc_get_root(doc) : NULL;
}

/* --- reading -------------------------------------------------------------------------------- */

static void reads_members_by_type(void **state) {
    (void)state;
    yyjson_val *root = root_of(STR("{\"s\":\"a\\u00e9\",\"i\":-3,\"u\":18446744073709551615,"
                                   "\"d\":1.5,\"t\":true,\"n\":null,\"i\":7,\"e\":\"\"}"));
    assert_non_null(root);
    assert_true(str_eq(json_get_str(root, "s", STR("x")), STR("a\xc3\xa9")));
    assert_true(str_eq(json_get_str(root, "e", STR("x")), STR("")));
    assert_true(str_eq(json_get_str(root, "i", STR("x")), STR("x")));
    assert_true(str_eq(json_get_str(root, "none", STR("x")), STR("x")));
    assert_int_equal(json_get_int(root, "i", 1), 7); /* the last duplicate */
    assert_int_equal(json_get_int(root, "u", 1), 1); /* out of range */
    assert_int_equal(json_get_int(root, "d", 1), 1);
    assert_true(json_get_num(root, "d", 0) == 1.5);
    assert_true(json_get_num(root, "i", 0) == 7);
    assert_true(json_get_bool(root, "t", false));
    assert_true(json_get_bool(root, "n", true));
    assert_null(json_get(json_get(root, "s"), "x"));
    assert_null(json_get(NULL, "x"));
    assert_null(json_str(json_get(root, "n")).ptr);
}

static void names_place_and_reason_of_errors(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",    "{",    "{\"a\":1,}",  "[1 2]", "\"\x80\"", "{'a':1}",
        "nul", "{} x", "\"\\ud800\"", "01",    "1e999",    "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct str error = STR_NONE;
        assert_null(json_parse(arena, str_from(bad[i]), &error));
        assert_true(error.len > 0);
    }
    struct str error = STR_NONE;
    assert_null(json_parse(arena, STR("{\n  \"a\": 1,\n  x\n}"), &error));
    assert_true(str_ends(error, STR("at line 3 column 3")));
}

static struct str nested(size_t depth) {
    char *text = arena_alloc(arena, depth * 2 + 1);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    return str_make(text, depth * 2);
}

static void bounds_the_depth(void **state) {
    (void)state;
    struct str error = STR_NONE;
    assert_non_null(json_parse(arena, nested(JSON_MAX_DEPTH), &error));
    assert_null(json_parse(arena, nested(JSON_MAX_DEPTH + 1), &error));
    assert_true(str_find(error, STR("512")) >= 0);
    assert_null(json_parse(arena, nested(100000), &error));
    /* Many values, flat, are not deep; siblings of a deep place are not counted on top. */
    struct buf wide = buf_make(1 << 20);
    assert_int_equal(buf_append(&wide, "[", 1), 0);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(buf_append(&wide, "[[],{\"a\":[]}],", 14), 0);
    assert_int_equal(buf_append(&wide, "0]", 2), 0);
    assert_non_null(json_parse(arena, buf_str(&wide), &error));
    buf_free(&wide);
}

static void reads_documents_larger_than_the_arena_likes(void **state) {
    (void)state;
    struct buf big = buf_make(64 << 20);
    assert_int_equal(buf_append(&big, "[0", 2), 0);
    for (int i = 0; i < 1500000; i++) /* dense: makes yyjson grow its first guess */
        assert_int_equal(buf_append(&big, ",1", 2), 0);
    assert_int_equal(buf_append(&big, "]", 1), 0);
    yyjson_val *root = root_of(buf_str(&big));
    assert_non_null(root);
    assert_int_equal(yyjson_arr_size(root), 1500001);
    buf_free(&big);
}

/* --- writing -------------------------------------------------------------------------------- */

static void writes_commas_and_escapes(void **state) {
    (void)state;
    struct json_writer writer;
    json_writer_init(&writer, 4096);
    json_object(&writer);
    json_kv_str(&writer, "s", STR("q\" b\\ n\n \x01 \x7f \xc3\xa9 \xff!"));
    json_kv_int(&writer, "min", INT64_MIN);
    json_kv_int(&writer, "max", INT64_MAX);
    json_kv_double(&writer, "d", 0.1);
    json_kv_double(&writer, "one", 1);
    json_kv_double(&writer, "nan", 0.0 / 0.0);
    json_kv_double(&writer, "inf", -1e308 * 10);
    json_kv_bool(&writer, "t", true);
    json_key_str(&writer, STR("a\"k"));
    json_array(&writer);
    json_null(&writer);
    json_array(&writer);
    json_array_end(&writer);
    json_object(&writer);
    json_object_end(&writer);
    json_raw(&writer, STR("{\"raw\":1}"));
    json_array_end(&writer);
    json_object_end(&writer);
    struct str text = json_writer_end(&writer, arena);
    assert_non_null(text.ptr);
    assert_string_equal(
        text.ptr, "{\"s\":\"q\\\" b\\\\ n\\n \\u0001 \x7f \xc3\xa9 \xef\xbf\xbd!\","
                  "\"min\":-9223372036854775808,\"max\":9223372036854775807,\"d\":0.1,\"one\":1.0,"
                  "\"nan\":null,\"inf\":null,\"t\":true,\"a\\\"k\":[null,[],{},{\"raw\":1}]}");
    assert_non_null(root_of(text));
}

static void every_escape_reads_back(void **state) {
    (void)state;
    struct rand_stream rand;
    rand_stream_init(&rand, 3);
    for (int round = 0; round < 20000; round++) {
        char bytes[40];
        size_t len = rand_stream_u64(&rand) % sizeof bytes;
        for (size_t i = 0; i < len; i++) /* ASCII, with many that need an escape */
            bytes[i] = (char)(rand_stream_u64(&rand) % (round % 2 ? 128 : 40));
        struct json_writer writer;
        json_writer_init(&writer, 4096);
        json_string(&writer, str_make(bytes, len));
        struct arena_mark mark = arena_mark(arena);
        yyjson_val *root = root_of(json_writer_end(&writer, arena));
        assert_true(str_eq(json_str(root), str_make(bytes, len)));
        arena_reset(arena, mark);
    }
}

static void writer_errors_stick(void **state) {
    (void)state;
    struct json_writer writer;
    json_writer_init(&writer, 8);
    json_array(&writer);
    json_string(&writer, STR("longer than eight"));
    json_int(&writer, 1);
    json_array_end(&writer);
    assert_int_equal(writer.error, -EMSGSIZE);
    assert_null(json_writer_end(&writer, arena).ptr);
}

/* --- spans ---------------------------------------------------------------------------------- */

static void finds_spans(void **state) {
    (void)state;
    static const struct {
        const char *text, *key, *value; /* value NULL: absent */
    } cases[] = {
        {"{\"a\":1}", "a", "1"},
        {"{\"a\":1}", "b", NULL},
        {"{}", "a", NULL},
        {" { \"a\" : [ {\"b\":2} , \"]\" ] , \"b\" : -1.5e3 } ", "a", "[ {\"b\":2} , \"]\" ]"},
        {" { \"a\" : [ {\"b\":2} , \"]\" ] , \"b\" : -1.5e3 } ", "b", "-1.5e3"},
        {"{\"a\":1,\"a\":2}", "a", "2"},
        {"{\"s\":\"x\\\\\",\"t\":\"y\\\"\",\"u\":null}", "t", "\"y\\\"\""},
        {"{\"s\":\"x\\\\\",\"t\":\"y\\\"\",\"u\":null}", "u", "null"},
        {"{\"m\\u006fdel\":\"x\"}", "model", "\"x\""},
        {"{\"\\ud83d\\ude00\\n\":true}", "\xf0\x9f\x98\x80\n", "true"},
        {"{\"a\\\\b\":0}", "a\\b", "0"},
        {"{\"\":0}", "", "0"},
        {"{\"modelx\":0,\"mode\":1}", "model", NULL},
        {"{\"o\":{\"a\":1}}", "a", NULL},
        {"[{\"a\":1}]", "a", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str text = str_from(cases[i].text);
        size_t start = 99, end = 99;
        int err = json_member_span(text, str_from(cases[i].key), &start, &end);
        assert_int_equal(err, cases[i].value ? 0 : -ENOENT);
        if (cases[i].value)
            assert_true(str_eq(str_make(text.ptr + start, end - start), str_from(cases[i].value)));
    }
}

static struct rand_stream dice;
static uint64_t roll(uint64_t n) { return rand_stream_u64(&dice) % n; }

static void random_string(struct buf *out) {
    static const char *const parts[] = {"a",
                                        "b",
                                        "\\\\",
                                        "\\\"",
                                        "\\u0061",
                                        "\\n",
                                        "\\/",
                                        "{",
                                        "]",
                                        ",",
                                        ":",
                                        " ",
                                        "\xc3\xa9",
                                        "\\u00e9",
                                        "\\ud83d\\ude00",
                                        "\xf0\x9f\x98\x80"};
    assert_int_equal(buf_append(out, "\"", 1), 0);
    for (uint64_t n = roll(4); n > 0; n--)
        assert_int_equal(buf_add(out, str_from(parts[roll(sizeof parts / sizeof *parts)])), 0);
    assert_int_equal(buf_append(out, "\"", 1), 0);
}

static void random_blanks(struct buf *out) {
    static const char *const blanks[] = {"", "", "", " ", "\n", "\t\r "};
    assert_int_equal(buf_add(out, str_from(blanks[roll(6)])), 0);
}

static void random_value(struct buf *out, int depth);

static void random_members(struct buf *out, int depth, bool object) {
    for (uint64_t n = roll(4), i = 0; i < n; i++) {
        if (i > 0)
            assert_int_equal(buf_append(out, ",", 1), 0);
        random_blanks(out);
        if (object) {
            random_string(out);
            random_blanks(out);
            assert_int_equal(buf_append(out, ":", 1), 0);
        }
        random_value(out, depth);
    }
}

static void random_value(struct buf *out, int depth) {
    static const char *const scalars[] = {"0", "-1.5e-3", "true", "false", "null", "12345"};
    random_blanks(out);
    switch (depth > 3 ? 0 : roll(4)) {
    case 0: assert_int_equal(buf_add(out, str_from(scalars[roll(6)])), 0); break;
    case 1: random_string(out); break;
    case 2:
        assert_int_equal(buf_append(out, "[", 1), 0);
        random_members(out, depth + 1, false);
        assert_int_equal(buf_append(out, "]", 1), 0);
        break;
    default:
        assert_int_equal(buf_append(out, "{", 1), 0);
        random_members(out, depth + 1, true);
        assert_int_equal(buf_append(out, "}", 1), 0);
    }
    random_blanks(out);
}

/* The bytes of the span must parse to the value that the parser finds under the key. */
static void check_member(struct str text, yyjson_val *root, struct str key, const char *ckey) {
    size_t start, end;
    assert_int_equal(json_member_span(text, key, &start, &end), 0);
    yyjson_val *want = json_get(root, ckey),
               *got = root_of(str_make(text.ptr + start, end - start));
    assert_non_null(got);
    size_t want_len, got_len;
    char *want_text = yyjson_val_write(want, 0, &want_len);
    char *got_text = yyjson_val_write(got, 0, &got_len);
    assert_true(str_eq(str_make(want_text, want_len), str_make(got_text, got_len)));
    free(want_text);
    free(got_text);
}

static void spans_agree_with_the_parser(void **state) {
    (void)state;
    rand_stream_init(&dice, 11);
    struct buf text = buf_make(1 << 20);
    int members = 0;
    for (int round = 0; round < 20000; round++) {
        struct arena_mark mark = arena_mark(arena);
        buf_clear(&text);
        random_blanks(&text);
        assert_int_equal(buf_append(&text, "{", 1), 0);
        random_members(&text, 0, true);
        random_blanks(&text);
        assert_int_equal(buf_append(&text, "}", 1), 0);
        yyjson_val *root = root_of(buf_str(&text)), *key;
        assert_non_null(root);
        size_t start, end;
        assert_int_equal(json_member_span(buf_str(&text), STR("absent"), &start, &end), -ENOENT);
        yyjson_obj_iter iter = yyjson_obj_iter_with(root);
        for (; (key = yyjson_obj_iter_next(&iter)) != NULL; members++)
            check_member(buf_str(&text), root, json_str(key), yyjson_get_str(key));
        arena_reset(arena, mark);
    }
    assert_true(members > 10000);
    buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_members_by_type),
        cmocka_unit_test(names_place_and_reason_of_errors),
        cmocka_unit_test(bounds_the_depth),
        cmocka_unit_test(reads_documents_larger_than_the_arena_likes),
        cmocka_unit_test(writes_commas_and_escapes),
        cmocka_unit_test(every_escape_reads_back),
        cmocka_unit_test(writer_errors_stick),
        cmocka_unit_test(finds_spans),
        cmocka_unit_test(spans_agree_with_the_parser),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
