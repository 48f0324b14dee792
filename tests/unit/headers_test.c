#include "proto/headers.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct headers sample(struct arena *arena) {
    struct headers headers = {0};
    headers_add(&headers, arena, STR("content-type"), STR("application/json"));
    headers_add(&headers, arena, STR("connection"), STR("keep-alive , Upgrade"));
    headers_add(&headers, arena, STR("set-cookie"), STR("a=1"));
    headers_add(&headers, arena, STR("set-cookie"), STR("b=2"));
    headers_add(&headers, arena, STR("connection"), STR("close"));
    headers_add(&headers, arena, STR("x-empty"), STR(""));
    return headers;
}

static void looks_up_by_name(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct headers headers = sample(arena);
    assert_true(str_eq(headers_get(&headers, STR("content-type")), STR("application/json")));
    assert_true(str_eq(headers_get(&headers, STR("set-cookie")), STR("a=1")));
    assert_null(headers_get(&headers, STR("content-typ")).ptr);
    assert_non_null(headers_get(&headers, STR("x-empty")).ptr);
    assert_int_equal(headers_count(&headers, STR("set-cookie")), 2);
    assert_int_equal(headers_count(&headers, STR("cookie")), 0);
    arena_free(arena);
}

static void finds_tokens_over_all_lines(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct headers headers = sample(arena);
    assert_true(headers_has_token(&headers, STR("connection"), STR("upgrade")));
    assert_true(headers_has_token(&headers, STR("connection"), STR("Keep-Alive")));
    assert_true(headers_has_token(&headers, STR("connection"), STR("CLOSE")));
    assert_false(headers_has_token(&headers, STR("connection"), STR("keep")));
    assert_false(headers_has_token(&headers, STR("upgrade"), STR("close")));
    arena_free(arena);
}

static void grows_past_its_first_room(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct headers headers = {0};
    for (int i = 0; i < 100; i++) {
        struct str name = arena_printf(arena, "x-%d", i);
        headers_add(&headers, arena, name, arena_printf(arena, "value %d", i));
    }
    assert_int_equal(headers.len, 100);
    assert_true(str_eq(headers_get(&headers, STR("x-0")), STR("value 0")));
    assert_true(str_eq(headers_get(&headers, STR("x-99")), STR("value 99")));
    arena_free(arena);
}

static void knows_hop_by_hop_names(void **state) {
    (void)state;
    static const char *const hop[] = {"connection",
                                      "keep-alive",
                                      "proxy-authenticate",
                                      "proxy-authorization",
                                      "te",
                                      "trailer",
                                      "trailers",
                                      "transfer-encoding",
                                      "upgrade",
                                      "content-encoding",
                                      "host",
                                      "proxy-connection"};
    static const char *const end_to_end[] = {
        "content-type", "content-length", "date",    "server",
        "x-request-id", "set-cookie",     "",        "t",
        "xe",           "hosts",          "upgradx", "transfer-encodinh",
        "keep_alive",   "x-mock-worker"};
    for (size_t i = 0; i < sizeof hop / sizeof *hop; i++)
        assert_true(headers_hop_by_hop(str_from(hop[i])));
    for (size_t i = 0; i < sizeof end_to_end / sizeof *end_to_end; i++)
        assert_false(headers_hop_by_hop(str_from(end_to_end[i])));
}

static void judges_values(void **state) {
    (void)state;
    assert_true(headers_value_ok(STR("")));
    assert_true(headers_value_ok(STR("a b\tc")));
    assert_true(headers_value_ok(STR("caf\xc3\xa9")));
    assert_false(headers_value_ok(STR(" a")));
    assert_false(headers_value_ok(STR("a\t")));
    assert_false(headers_value_ok(STR("a\r\nx: y")));
    assert_false(headers_value_ok(STR("a\nb")));
    assert_false(headers_value_ok(str_make("a\0b", 3)));
    assert_false(headers_value_ok(STR("a\x7f")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks_up_by_name),
        cmocka_unit_test(finds_tokens_over_all_lines),
        cmocka_unit_test(grows_past_its_first_room),
        cmocka_unit_test(knows_hop_by_hop_names),
        cmocka_unit_test(judges_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
