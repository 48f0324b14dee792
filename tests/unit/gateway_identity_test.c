/* What a request is called, and what a browser is told. The answer of a preflight is caught
 * here. */
#include "gateway/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int answered_status;

static void fake_respond(struct request *request, int status, struct str type, struct str body) {
    (void)request;
    assert_int_equal(type.len + body.len, 0);
    answered_status = status;
}

#define request_respond fake_respond
#include "gateway/identity.c"

#include "base/rand.h"

static struct arena *arena;
static struct http_request http;
static struct gateway_settings settings;
static struct request request;

static void scene(enum http_method method, const char *path) {
    static const char *names[] = {"x-request-id"};
    const struct opt_list list = {.items = names, .len = 1};
    forward_init(&list);
    arena_free(arena);
    arena = arena_new();
    http = (struct http_request){.method = method, .path = str_from(path)};
    settings = (struct gateway_settings){0};
    request = (struct request){.arena = arena, .http = &http, .settings = &settings};
    answered_status = 0;
}

static void client_sends(const char *name, const char *value) {
    headers_add(&http.headers, arena, str_from(name), str_from(value));
}

static struct str out(const char *name) { return headers_get(&request.out, str_from(name)); }

/* --- ids --- */

static void prefix_by_path(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"/v1/chat/completions", "chatcmpl-"},
        {"/v1/completions", "cmpl-"},
        {"/generate", "gnt-"},
        {"/v1/responses", "resp-"},
        {"/v1/messages", "msg_"},
        {"/v1/embeddings", "req-"},
        {"/", "req-"},
        {"", "req-"},
        {"/v1/responses/x/cancel", "req-"},
        {"/health_generate", "req-"},
        {"/nope/chat/completions", "chatcmpl-"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene(HTTP_POST_METHOD, cases[i][0]);
        identity_set(&request);
        size_t prefix = strlen(cases[i][1]);
        assert_int_equal(request.id.len, prefix + 24);
        if (!str_starts(request.id, str_from(cases[i][1])))
            fail_msg("%s: %.*s", cases[i][0], STR_ARG(request.id));
        for (size_t k = prefix; k < request.id.len; k++)
            assert_non_null(memchr("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                                   request.id.ptr[k], 62));
        assert_int_equal(headers_count(&request.out, STR("x-request-id")), 1);
        assert_true(str_eq(out("x-request-id"), request.id));
    }
}

static void ids_differ(void **state) {
    (void)state;
    char seen[32];
    scene(HTTP_POST_METHOD, "/generate");
    identity_set(&request);
    assert_true(request.id.len <= sizeof seen);
    memcpy(seen, request.id.ptr, request.id.len);
    size_t len = request.id.len;
    scene(HTTP_POST_METHOD, "/generate");
    identity_set(&request);
    assert_false(str_eq(request.id, str_make(seen, len)));
}

static void given_ids(void **state) {
    (void)state;
    scene(HTTP_POST_METHOD, "/generate");
    client_sends("x-request-id", "Given:1/2");
    identity_set(&request);
    assert_true(str_eq(request.id, STR("Given:1/2")));
    assert_true(str_eq(out("x-request-id"), STR("Given:1/2")));
    scene(HTTP_POST_METHOD, "/generate");
    client_sends("x-request-id", "not one");
    identity_set(&request);
    assert_true(str_starts(request.id, STR("gnt-")));
}

/* --- CORS --- */

static void any_origin(void **state) {
    (void)state;
    scene(HTTP_GET_METHOD, "/");
    identity_cors(&request);
    assert_int_equal(request.out.len, 0);
    client_sends("origin", "https://a.test");
    identity_cors(&request);
    assert_true(str_eq(out("access-control-allow-origin"), STR("*")));
    assert_true(str_eq(out("access-control-expose-headers"), STR("*")));
    assert_null(out("vary").ptr);
}

static void listed_origins(void **state) {
    (void)state;
    static const char *list[] = {"https://a.test", "https://b.test"};
    static const struct {
        const char *origin;
        bool allowed;
    } cases[] = {{"https://a.test", true},
                 {"https://b.test", true},
                 {"https://c.test", false},
                 {"https://a.test.evil", false},
                 {"https://a.tes", false},
                 {"null", false},
                 {NULL, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene(HTTP_GET_METHOD, "/");
        settings.cors_origins = (struct opt_list){.items = list, .len = 2};
        if (cases[i].origin != NULL)
            client_sends("origin", cases[i].origin);
        identity_cors(&request);
        struct str allowed = out("access-control-allow-origin");
        assert_int_equal(allowed.ptr != NULL, cases[i].allowed);
        if (cases[i].allowed)
            assert_true(str_eq(allowed, str_from(cases[i].origin)));
        assert_true(str_eq(out("vary"), STR("origin"))); /* one cache serves all origins */
    }
}

static void preflight(void **state) {
    (void)state;
    scene(HTTP_OPTIONS_METHOD, "/v1/chat/completions");
    client_sends("origin", "https://a.test");
    assert_false(identity_preflight(&request)); /* a plain OPTIONS */
    client_sends("access-control-request-method", "POST");
    assert_true(identity_preflight(&request));
    assert_int_equal(answered_status, 200);
    assert_true(str_eq(out("access-control-allow-methods"), STR("*")));
    assert_true(str_eq(out("access-control-max-age"), STR("3600")));
    scene(HTTP_POST_METHOD, "/generate");
    client_sends("access-control-request-method", "POST");
    assert_false(identity_preflight(&request));
    static const char *list[] = {"https://a.test"};
    scene(HTTP_OPTIONS_METHOD, "/generate");
    settings.cors_origins = (struct opt_list){.items = list, .len = 1};
    client_sends("access-control-request-method", "PUT");
    assert_true(identity_preflight(&request));
    assert_true(str_find(out("access-control-allow-methods"), STR("PUT")) >= 0);
    assert_true(str_eq(out("access-control-allow-headers"), STR("content-type, authorization")));
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefix_by_path), cmocka_unit_test(ids_differ),
        cmocka_unit_test(given_ids),      cmocka_unit_test(any_origin),
        cmocka_unit_test(listed_origins), cmocka_unit_test(preflight),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
