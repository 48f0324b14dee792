#include "gateway/forward.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct scene {
    struct arena *arena;
    struct http_request http;
    struct gateway_settings settings;
    struct request request;
    struct worker worker;
};

static void use_names(size_t count, const char **names) {
    const struct opt_list list = {.items = names, .len = count};
    forward_init(&list);
}

static void use_default_names(void) {
    static const char *names[] = {"x-request-id", "x-correlation-id", "x-trace-id", "request-id"};
    use_names(4, names);
}

static void scene_open(struct scene *scene) {
    *scene = (struct scene){.arena = arena_new()};
    scene->request = (struct request){.arena = scene->arena,
                                      .http = &scene->http,
                                      .settings = &scene->settings,
                                      .id = STR("the-id")};
    use_default_names();
}

static void scene_close(struct scene *scene) { arena_free(scene->arena); }

static void client_sends(struct scene *scene, const char *name, const char *value) {
    headers_add(&scene->http.headers, scene->arena, str_from(name), str_from(value));
    if (strcmp(name, "authorization") == 0)
        scene->request.facts.authorization = str_from(value);
}

/* Values of a name among header lines: how many, and the last. */
static size_t lines_named(struct str head, const char *name, struct str *value) {
    struct str line;
    size_t count = 0, len = strlen(name);
    while (str_split(&head, '\n', &line)) {
        if (line.len <= len + 3 || !str_starts(line, str_from(name)) || line.ptr[len] != ':')
            continue;
        assert_int_equal(line.ptr[line.len - 1], '\r');
        *value = str_head(str_skip(line, len + 2), line.len - len - 3);
        count++;
    }
    return count;
}

static void check_line(struct str head, const char *name, const char *expected) {
    struct str value;
    size_t count = lines_named(head, name, &value);
    if (count != (expected != NULL))
        fail_msg("%s stands %zu times in\n%.*s", name, count, STR_ARG(head));
    if (expected != NULL && !str_eq(value, str_from(expected)))
        fail_msg("%s: '%.*s' is not '%s'", name, STR_ARG(value), expected);
}

/* --- towards the worker --- */

static void the_allow_list(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool goes_on;
    } cases[] = {
        {"x-request-id", true},
        {"x-correlation-id", true},
        {"x-trace-id", true},
        {"request-id", true},
        {"x-request-id-parent", true},
        {"traceparent", true},
        {"tracestate", true},
        {"x-smg-routing-key", true},
        {"x-request-ids", false},
        {"x-request-i", false},
        {"cookie", false},
        {"host", false},
        {"content-length", false},
        {"transfer-encoding", false},
        {"connection", false},
        {"accept-encoding", false},
        {"user-agent", false},
        {"x-api-key", false},
        {"x-smg-target-worker", false},
        {"x-forwarded-for", false},
        {"expect", false},
        {"te", false},
        {"upgrade", false},
        {"proxy-authorization", false},
        {"x", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene scene;
        scene_open(&scene);
        client_sends(&scene, cases[i].name, "v");
        struct str head = forward_head(&scene.request, &scene.worker);
        check_line(head, cases[i].name, cases[i].goes_on ? "v" : NULL);
        check_line(head, "content-type", "application/json");
        scene_close(&scene);
    }
}

static void odd_values(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *expected;
    } cases[] = {
        {"x-correlation-id", "caf\xe9", NULL},
        {"x-correlation-id", "\x7f", NULL},
        {"x-correlation-id", "two words", "two words"},
        {"x-smg-routing-key", "tab\there", "tab\there"},
        {"tracestate", "a=1,b=2", "a=1,b=2"},
        {"x-request-id", "two words", "the-id"}, /* ours, as we tell the client */
        {"x-request-id", "", "the-id"},
        {"x-request-id", "caf\xe9", "the-id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene scene;
        scene_open(&scene);
        client_sends(&scene, cases[i].name, cases[i].value);
        check_line(forward_head(&scene.request, &scene.worker), cases[i].name, cases[i].expected);
        scene_close(&scene);
    }
}

static void our_id_when_there_is_none(void **state) {
    (void)state;
    static const struct {
        const char *name, *value;
        bool ours;
    } cases[] = {
        {"cookie", "x", true},
        {"traceparent", "x", true},
        {"x-request-id-parent", "x", true},
        {"x-correlation-id", "c", false},
        {"request-id", "r", false},
        {"x-trace-id", "bad one", true},
        {"x-request-id", "x", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene scene;
        struct str value;
        scene_open(&scene);
        client_sends(&scene, cases[i].name, cases[i].value);
        struct str head = forward_head(&scene.request, &scene.worker);
        bool ours = lines_named(head, "x-request-id", &value) == 1 && str_eq(value, STR("the-id"));
        if (ours != cases[i].ours)
            fail_msg("%s: %s", cases[i].name, cases[i].value);
        scene_close(&scene);
    }
}

static void connection_names_are_not_passed(void **state) {
    (void)state;
    struct scene scene;
    scene_open(&scene);
    client_sends(&scene, "connection", "close, X-Trace-Id");
    client_sends(&scene, "x-trace-id", "t");
    client_sends(&scene, "tracestate", "s");
    client_sends(&scene, "connection", "x-request-id");
    client_sends(&scene, "x-request-id", "mine");
    struct str head = forward_head(&scene.request, &scene.worker);
    check_line(head, "x-trace-id", NULL);
    check_line(head, "tracestate", "s");
    check_line(head, "x-request-id", "the-id");
    scene_close(&scene);
}

static void names_that_may_not_be_ids(void **state) {
    (void)state;
    static const char *names[] = {"authorization", "content-length", "transfer-encoding",
                                  "host",          "connection",     "expect",
                                  "x-mine"};
    struct scene scene;
    scene_open(&scene);
    use_names(7, names);
    for (int i = 0; i < 7; i++)
        client_sends(&scene, names[i], i < 6 ? "77" : "mine");
    scene.worker.auth_line = STR("Authorization: Bearer worker\r\n");
    struct str head = forward_head(&scene.request, &scene.worker);
    for (int i = 0; i < 6; i++)
        check_line(head, names[i], NULL);
    check_line(head, "x-mine", "mine");
    assert_true(str_eq(forward_given_id(&scene.http.headers), STR("mine")));
    scene_close(&scene);
}

static void one_authorization(void **state) {
    (void)state;
    static const struct {
        const char *key, *worker, *client, *expected;
    } cases[] = {
        {NULL, NULL, NULL, NULL},
        {NULL, NULL, "Bearer own", "Bearer own"},
        {NULL, NULL, "Basic eA==", "Basic eA=="},
        {NULL, "w", NULL, "Bearer w"},
        {NULL, "w", "Bearer own", "Bearer w"},
        {"k", NULL, "Bearer k", NULL},
        {"k", NULL, "bearer  k", NULL},
        {"k", NULL, "Bearer kk", "Bearer kk"},
        {"k", "w", "Bearer k", "Bearer w"},
        {"k", NULL, "Basic k", "Basic k"},
        {"k", NULL, "Bearer \xff", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene scene;
        struct str value;
        scene_open(&scene);
        scene.settings.api_key = cases[i].key;
        if (cases[i].worker != NULL)
            scene.worker.auth_line =
                arena_printf(scene.arena, "authorization: Bearer %s\r\n", cases[i].worker);
        if (cases[i].client != NULL)
            client_sends(&scene, "authorization", cases[i].client);
        struct str head = forward_head(&scene.request, &scene.worker);
        size_t count = lines_named(head, "authorization", &value);
        if (count != (cases[i].expected != NULL) ||
            (count == 1 && !str_eq(value, str_from(cases[i].expected))))
            fail_msg("case %zu:\n%.*s", i, STR_ARG(head));
        scene_close(&scene);
    }
}

/* The room for the lines is counted beforehand: many long ones must fit. */
static void many_long_headers(void **state) {
    (void)state;
    struct scene scene;
    static char value[2000];
    memset(value, 'v', sizeof value - 1);
    scene_open(&scene);
    for (int i = 0; i < 100; i++)
        client_sends(&scene, "x-request-id-n", value);
    client_sends(&scene, "authorization", value);
    struct str head = forward_head(&scene.request, &scene.worker), last;
    assert_int_equal(lines_named(head, "x-request-id-n", &last), 100);
    assert_true(head.len <= lines_room(&scene.request, &scene.worker));
    scene_close(&scene);
}

/* --- ids --- */

static void usable_ids(void **state) {
    (void)state;
    char text[300];
    memset(text, 'i', sizeof text);
    assert_false(forward_id_usable(STR_NONE));
    assert_false(forward_id_usable(STR("")));
    assert_true(forward_id_usable(str_make(text, 1)));
    assert_true(forward_id_usable(str_make(text, 256)));
    assert_false(forward_id_usable(str_make(text, 257)));
    for (int c = 0; c < 256; c++) {
        text[2] = (char)c;
        assert_int_equal(forward_id_usable(str_make(text, 5)), c > 0x20 && c < 0x7f);
    }
}

static void first_usable_name_wins(void **state) {
    (void)state;
    struct scene scene;
    scene_open(&scene);
    assert_null(forward_given_id(&scene.http.headers).ptr);
    client_sends(&scene, "request-id", "d");
    assert_true(str_eq(forward_given_id(&scene.http.headers), STR("d")));
    client_sends(&scene, "x-trace-id", "c");
    assert_true(str_eq(forward_given_id(&scene.http.headers), STR("c")));
    client_sends(&scene, "x-correlation-id", "bad one");
    assert_true(str_eq(forward_given_id(&scene.http.headers), STR("c")));
    client_sends(&scene, "x-request-id", "a");
    assert_true(str_eq(forward_given_id(&scene.http.headers), STR("a")));
    scene_close(&scene);
}

/* --- back to the client --- */

static struct headers answer(struct scene *scene, const char *const *theirs, bool stream) {
    static struct headers list;
    list = (struct headers){0};
    for (size_t i = 0; theirs[i] != NULL; i += 2)
        headers_add(&list, scene->arena, str_from(theirs[i]), str_from(theirs[i + 1]));
    return forward_answer(&scene->request, &list, stream);
}

static void what_comes_back(void **state) {
    (void)state;
    static const char *const theirs[] = {"connection",
                                         "x-private, keep-alive",
                                         "keep-alive",
                                         "timeout=5",
                                         "x-private",
                                         "1",
                                         "proxy-authenticate",
                                         "Basic",
                                         "proxy-authorization",
                                         "x",
                                         "te",
                                         "x",
                                         "trailers",
                                         "x",
                                         "trailer",
                                         "x",
                                         "upgrade",
                                         "h2c",
                                         "transfer-encoding",
                                         "chunked",
                                         "content-length",
                                         "5",
                                         "content-encoding",
                                         "gzip",
                                         "host",
                                         "h",
                                         "x-request-id",
                                         "theirs",
                                         "access-control-allow-origin",
                                         "evil",
                                         "server",
                                         "uvicorn",
                                         "content-type",
                                         "text/plain",
                                         "x-twice",
                                         "1",
                                         "set-cookie",
                                         "a=1",
                                         "x-twice",
                                         "2",
                                         "set-cookie",
                                         "b=2",
                                         NULL};
    struct scene scene;
    for (int stream = 0; stream < 2; stream++) {
        scene_open(&scene);
        headers_add(&scene.request.out, scene.arena, STR("x-request-id"), STR("the-id"));
        struct headers got = answer(&scene, theirs, stream);
        assert_int_equal(got.len, 6);
        assert_true(str_eq(headers_get(&got, STR("x-request-id")), STR("the-id")));
        assert_true(str_eq(headers_get(&got, STR("server")), STR("uvicorn")));
        assert_true(str_eq(headers_get(&got, STR("x-twice")), STR("2")));
        assert_int_equal(headers_count(&got, STR("set-cookie")), 2);
        assert_int_equal(headers_count(&got, STR("content-type")), 1);
        assert_true(str_eq(headers_get(&got, STR("content-type")),
                           stream ? STR("text/event-stream") : STR("text/plain")));
        scene_close(&scene);
    }
}

static void own_keys(void **state) {
    (void)state;
    struct scene scene;
    scene_open(&scene);
    assert_false(forward_own_key(&scene.request, STR("Bearer x")));
    scene.settings.api_key = "x";
    assert_true(forward_own_key(&scene.request, STR("bearer x")));
    assert_false(forward_own_key(&scene.request, STR("Bearer ")));
    assert_false(forward_own_key(&scene.request, STR_NONE));
    scene_close(&scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_allow_list),
        cmocka_unit_test(odd_values),
        cmocka_unit_test(our_id_when_there_is_none),
        cmocka_unit_test(connection_names_are_not_passed),
        cmocka_unit_test(names_that_may_not_be_ids),
        cmocka_unit_test(one_authorization),
        cmocka_unit_test(many_long_headers),
        cmocka_unit_test(usable_ids),
        cmocka_unit_test(first_usable_name_wins),
        cmocka_unit_test(what_comes_back),
        cmocka_unit_test(own_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
