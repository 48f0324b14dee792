#include "gateway/routes.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* A path that fits the row's template, and what its first placeholder stands for. */
static void sample_path(const struct route *route, char *out, struct str *param) {
    struct str rest = route->path;
    char *at = out;
    *param = STR_NONE;
    while (rest.len > 0) {
        ptrdiff_t close = rest.ptr[0] == '{' ? str_find_char(rest, '}') : -1;
        if (close < 0) {
            *at++ = rest.ptr[0];
            rest = str_skip(rest, 1);
            continue;
        }
        const char *value = rest.ptr[close - 1] == '*' ? "http://h:1/x" : "a%2Fb.c-1";
        if (param->ptr == NULL)
            *param = str_make(at, strlen(value));
        at += snprintf(at, 32, "%s", value);
        rest = str_skip(rest, (size_t)close + 1);
    }
    *at = 0;
}

static bool has_method(const struct route *route, enum http_method method) {
    for (size_t i = 0; i < route_count; i++) {
        if (route_table[i].method == method && str_eq(route_table[i].path, route->path))
            return true;
    }
    return false;
}

static void every_row_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < route_count; i++) {
        char path[256];
        struct str want, param, allow;
        sample_path(&route_table[i], path, &want);
        const struct route *found =
            route_find(route_table[i].method, str_from(path), &param, &allow);
        if (found != &route_table[i])
            fail_msg("row %zu (%s) is not found at %s", i, route_table[i].path.ptr, path);
        assert_true(str_eq(param, want));
        assert_ptr_equal(allow.ptr, NULL);
        assert_int_equal(route_index(found), i);
    }
}

static void head_finds_get_rows(void **state) {
    (void)state;
    struct str param, allow;
    const struct route *found = route_find(HTTP_HEAD_METHOD, STR("/workers/x"), &param, &allow);
    assert_non_null(found);
    assert_int_equal(found->method, HTTP_GET_METHOD);
    assert_null(route_find(HTTP_HEAD_METHOD, STR("/generate"), &param, &allow));
    assert_true(str_eq(allow, STR("POST")));
}

static void wrong_methods_learn_the_right_ones(void **state) {
    (void)state;
    static const struct {
        enum http_method method;
        const char *name;
    } methods[] = {{HTTP_GET_METHOD, "GET, HEAD"},
                   {HTTP_POST_METHOD, "POST"},
                   {HTTP_PUT_METHOD, "PUT"},
                   {HTTP_PATCH_METHOD, "PATCH"},
                   {HTTP_DELETE_METHOD, "DELETE"}};
    for (size_t i = 0; i < route_count; i++) {
        char path[256];
        struct str param, allow;
        sample_path(&route_table[i], path, &param);
        assert_null(route_find(HTTP_OTHER_METHOD, str_from(path), &param, &allow));
        for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
            bool told = str_find(allow, str_from(methods[m].name)) >= 0;
            if (told != has_method(&route_table[i], methods[m].method))
                fail_msg("%s: Allow is %.*s", path, STR_ARG(allow));
        }
    }
}

static void allow_of_a_worker(void **state) {
    (void)state;
    struct str param, allow;
    assert_null(route_find(HTTP_POST_METHOD, STR("/workers/x"), &param, &allow));
    assert_true(str_eq(allow, STR("GET, HEAD, PUT, PATCH, DELETE")));
}

static void unknown_paths(void **state) {
    (void)state;
    static const char *const paths[] = {
        "/",
        "",
        "/v1",
        "/v1/",
        "/nope",
        "/workersx",
        "/workers/",
        "/metrics",
        "/scheduler",
        "/V1/models",
        "/v1/models/",
        "/v1/chat/completions/x",
        "/v1/responses/",
        "/v1/responses//cancel",
        "/v1/responses/a/b",
        "/v1/conversations/a/items/",
        "/v1/conversations/a/items/b/c",
        "/wasm/a/b",
        "/ha/",
        "/health/x",
        "//health",
        "/v1/tokenizers/a/statusx",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct str param, allow;
        if (route_find(HTTP_GET_METHOD, str_from(paths[i]), &param, &allow) || allow.len > 0)
            fail_msg("%s is known", paths[i]);
    }
}

static void parameters(void **state) {
    (void)state;
    static const struct {
        enum http_method method;
        const char *path, *row, *param;
    } cases[] = {
        {HTTP_GET_METHOD, "/workers/http://h:1", "/workers/{id}", "http://h:1"},
        {HTTP_GET_METHOD, "/workers/http%3A%2F%2Fh%3A1/", "/workers/{id}", "http%3A%2F%2Fh%3A1/"},
        {HTTP_POST_METHOD, "/v1/responses/r_1/cancel", "/v1/responses/{id}/cancel", "r_1"},
        {HTTP_GET_METHOD, "/v1/responses/cancel", "/v1/responses/{id}", "cancel"},
        {HTTP_GET_METHOD, "/v1/conversations/c/items/i", "/v1/conversations/{id}/items/{item_id}",
         "c"},
        {HTTP_GET_METHOD, "/ha/config/k", "/ha/config/{key}", "k"},
        {HTTP_GET_METHOD, "/workers", "/workers", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str param, allow;
        const struct route *found =
            route_find(cases[i].method, str_from(cases[i].path), &param, &allow);
        assert_non_null(found);
        assert_string_equal(found->path.ptr, cases[i].row);
        assert_true(str_eq(param, str_from(cases[i].param)));
    }
}

/* --- the table itself --- */

static void rows_are_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < route_count; i++) {
        const struct route *route = &route_table[i];
        assert_true((route->handler == NULL) == (route->missing != NULL));
        assert_true((route->endpoint != NULL) == (route->upstream.len > 0));
        if (route->endpoint != NULL) {
            assert_int_equal(route->auth, AUTH_DATA);
            assert_int_equal(route->method, HTTP_POST_METHOD);
            assert_int_not_equal(route->media, MEDIA_ANY);
        }
        assert_true(route->may_stream <= (route->endpoint != NULL));
        for (size_t k = i + 1; k < route_count; k++) {
            bool same = str_eq(route->path, route_table[k].path);
            assert_false(same && route->method == route_table[k].method);
            if (same && !str_eq(route->path, route_table[k - 1].path))
                fail_msg("rows of %s do not stand together", route->path.ptr);
        }
    }
}

static void texts_of_missing_rows(void **state) {
    (void)state;
    size_t count = 0;
    for (size_t i = 0; i < route_count; i++) {
        struct str text = str_from(route_table[i].missing);
        if (text.ptr == NULL)
            continue;
        count++;
        assert_true(str_ends(text, STR(" not implemented")) ||
                    str_ends(text, STR(" not implemented for this router")));
    }
    assert_int_equal(count, 46);
}

static void streams_and_labels(void **state) {
    (void)state;
    static const struct {
        const char *path, *endpoint, *upstream;
        bool stream;
        enum route_media media;
    } rows[] = {
        {"/generate", "generate", "/generate", true, MEDIA_JSON_415},
        {"/v1/chat/completions", "chat", "/v1/chat/completions", true, MEDIA_JSON_400},
        {"/v1/completions", "completions", "/v1/completions", true, MEDIA_JSON_400},
        {"/v1/responses", "responses", "/v1/responses", true, MEDIA_JSON_400},
        {"/v1/messages", "messages", "/v1/messages", true, MEDIA_JSON_400},
        {"/v1/embeddings", "embeddings", "/v1/embeddings", false, MEDIA_JSON_415},
        {"/v1/classify", "classify", "/v1/classify", false, MEDIA_JSON_415},
        {"/v1/rerank", "rerank", "/v1/rerank", false, MEDIA_JSON_415},
        {"/rerank", "rerank", "/v1/rerank", false, MEDIA_JSON_400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str param, allow;
        const struct route *route =
            route_find(HTTP_POST_METHOD, str_from(rows[i].path), &param, &allow);
        assert_non_null(route);
        assert_string_equal(route->endpoint, rows[i].endpoint);
        assert_string_equal(route->upstream.ptr, rows[i].upstream);
        assert_int_equal(route->may_stream, rows[i].stream);
        assert_int_equal(route->media, rows[i].media);
    }
}

static void classes(void **state) {
    (void)state;
    static const struct {
        const char *path;
        enum route_auth auth;
    } rows[] = {
        {"/liveness", AUTH_PUBLIC},
        {"/health", AUTH_PUBLIC},
        {"/readiness", AUTH_PUBLIC},
        {"/health_generate", AUTH_PUBLIC},
        {"/engine_metrics", AUTH_PUBLIC},
        {"/v1/models", AUTH_PUBLIC},
        {"/get_model_info", AUTH_PUBLIC},
        {"/server_info", AUTH_PUBLIC},
        {"/get_loads", AUTH_CONTROL},
        {"/v1/loads", AUTH_CONTROL},
        {"/workers", AUTH_CONTROL},
        {"/workers/x", AUTH_CONTROL},
        {"/list_workers", AUTH_CONTROL},
        {"/v1/tokenizers", AUTH_CONTROL},
        {"/wasm", AUTH_CONTROL},
        {"/ha/status", AUTH_CONTROL},
        {"/debug/decisions", AUTH_CONTROL},
        {"/v1/responses/x", AUTH_DATA},
        {"/v1/conversations/x", AUTH_DATA},
        {"/v1/realtime", AUTH_DATA},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str param, allow;
        const struct route *route =
            route_find(HTTP_GET_METHOD, str_from(rows[i].path), &param, &allow);
        assert_non_null(route);
        assert_int_equal(route->auth, rows[i].auth);
    }
}

static int set_up(void **state) {
    (void)state;
    routes_init();
    routes_init(); /* harmless when repeated */
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_found),
        cmocka_unit_test(head_finds_get_rows),
        cmocka_unit_test(wrong_methods_learn_the_right_ones),
        cmocka_unit_test(allow_of_a_worker),
        cmocka_unit_test(unknown_paths),
        cmocka_unit_test(parameters),
        cmocka_unit_test(rows_are_whole),
        cmocka_unit_test(texts_of_missing_rows),
        cmocka_unit_test(streams_and_labels),
        cmocka_unit_test(classes),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
