#include "lab/mock_tokens.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

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

static struct mock_tokens of_text(const char *text) {
    struct mock_tokens tokens = {.arena = arena};
    mock_tokens_text(&tokens, str_from(text));
    return tokens;
}

static struct mock_tokens of_json(const char *text, bool messages) {
    struct mock_tokens tokens = {.arena = arena};
    yyjson_doc *doc = json_parse(arena, str_from(text), NULL);
    assert_non_null(doc);
    if (messages)
        mock_tokens_messages(&tokens, yyjson_doc_get_root(doc));
    else
        mock_tokens_value(&tokens, yyjson_doc_get_root(doc));
    return tokens;
}

static bool same(struct mock_tokens a, struct mock_tokens b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ids, b.ids, a.len * sizeof *a.ids) == 0);
}

static void cuts_words_and_long_runs(void **state) {
    (void)state;
    assert_int_equal(of_text("").len, 0);
    assert_int_equal(of_text("  \n ").len, 0);
    assert_int_equal(of_text("one two\tthree\n").len, 3);
    assert_int_equal(of_text("0123456789abcdef").len, 1);
    assert_int_equal(of_text("0123456789abcdef0").len, 2);
    assert_true(same(of_text("one two"), of_text(" one\n\ntwo ")));
    assert_false(same(of_text("one two"), of_text("two one")));
    for (size_t i = 0; i < of_text("a b c d").len; i++)
        assert_true(of_text("a b c d").ids[i] < VOCABULARY);
}

static void reads_content_in_all_its_shapes(void **state) {
    (void)state;
    struct mock_tokens plain = of_text("hello there");
    assert_true(same(of_json("\"hello there\"", false), plain));
    assert_true(same(of_json("[{\"type\":\"text\",\"text\":\"hello\"},"
                             "{\"type\":\"input_text\",\"text\":\"there\"}]",
                             false),
                     plain));
    assert_int_equal(
        of_json("{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}}", false).len, 1);
    struct mock_tokens ids = of_json("[5,6,[7]]", false);
    assert_int_equal(ids.len, 3);
    assert_int_equal(ids.ids[2], 7);
    assert_int_equal(of_json("null", false).len, 0);
    assert_int_equal(of_json("[[[[[[[[[[[[\"too deep\"]]]]]]]]]]]]", false).len, 0);
}

static void conversations_share_their_prefix(void **state) {
    (void)state;
    struct mock_tokens first = of_json("[{\"role\":\"system\",\"content\":\"be kind\"},"
                                       "{\"role\":\"user\",\"content\":\"hi\"}]",
                                       true);
    struct mock_text answer = mock_tokens_answer(&first, 8000, 0, 0, 5);
    struct str next = arena_printf(
        arena,
        "[{\"role\":\"system\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\",\"content\":\"%.*s\"},{\"role\":\"user\",\"content\":\"more\"}]",
        STR_ARG(answer.text));
    struct mock_tokens second = of_json(next.ptr, true);
    assert_true(second.len > first.len);
    assert_memory_equal(first.ids, second.ids, first.len * sizeof *first.ids);
}

static void answers_follow_from_prompt_and_seed(void **state) {
    (void)state;
    struct mock_tokens a = of_text("a prompt"), b = of_text("a prompt"), c = of_text("a prompt"),
                       d = of_text("a prompt"), e = of_text("another");
    struct str text = mock_tokens_answer(&a, 65535, 7, 0, 40).text;
    assert_true(str_starts(text, STR("served-by-65535 ")));
    assert_true(str_eq(text, mock_tokens_answer(&b, 65535, 7, 0, 40).text));
    assert_false(str_eq(text, mock_tokens_answer(&c, 65535, 8, 0, 40).text));
    assert_false(str_eq(text, mock_tokens_answer(&d, 65535, 7, 1, 40).text));
    assert_false(str_eq(text, mock_tokens_answer(&e, 65535, 7, 0, 40).text));
    assert_int_equal(a.len, 2 + 40);
}

static void pieces_make_up_the_text(void **state) {
    (void)state;
    struct mock_tokens tokens = of_text("x");
    struct mock_text text = mock_tokens_answer(&tokens, 1, 0, 0, 100);
    size_t at = 0;
    for (size_t i = 0; i < text.count; i++) {
        struct str piece = mock_text_piece(&text, i);
        assert_true(str_eq(piece, str_head(str_skip(text.text, at), piece.len)));
        assert_int_equal(piece.ptr[0] == ' ', i > 0);
        at += piece.len;
    }
    assert_int_equal(at, text.text.len);
    struct mock_text none = mock_tokens_answer(&tokens, 1, 0, 0, 0);
    assert_int_equal(none.text.len, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_words_and_long_runs),
        cmocka_unit_test(reads_content_in_all_its_shapes),
        cmocka_unit_test(conversations_share_their_prefix),
        cmocka_unit_test(answers_follow_from_prompt_and_seed),
        cmocka_unit_test(pieces_make_up_the_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
