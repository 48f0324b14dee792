/* What is read of a body. The pool is made up here: it says whether it was asked. */
#include "io/offload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int offloaded, offload_answer;

static int fake_offload(int (*fn)(void *arg), void *arg) {
    offloaded++;
    return offload_answer == 0 ? fn(arg) : offload_answer;
}

#define offload fake_offload
#include "gateway/facts.c"

static struct arena *arena;
static struct http_request http;
static struct route route;
static struct request request;

static void scene(struct str body, bool may_stream) {
    arena_free(arena);
    arena = arena_new();
    http = (struct http_request){.method = HTTP_POST_METHOD};
    route = (struct route){
        .path = STR("/v1/chat/completions"), .endpoint = "chat", .may_stream = may_stream};
    request = (struct request){.arena = arena, .http = &http, .route = &route, .body = body};
    offloaded = 0;
    offload_answer = 0;
}

static void models_and_streams(void **state) {
    (void)state;
    static const struct {
        const char *body, *model;
        bool has_model, stream;
    } cases[] = {
        {"{}", "unknown", false, false},
        {"{\"model\":\"m\"}", "m", true, false},
        {" { \"model\" : \"m\" , \"stream\" : true } ", "m", true, true},
        {"{\"model\":\"a\\u0062\\n\"}", "ab\n", true, false},
        {"{\"model\":\"\"}", "", true, false},
        {"{\"model\":17,\"stream\":null}", "unknown", false, false},
        {"{\"model\":null}", "unknown", false, false},
        {"{\"model\":[\"m\"],\"stream\":\"true\"}", "unknown", false, false},
        {"{\"stream\":1}", "unknown", false, false},
        {"{\"model\":\"a\",\"model\":\"b\"}", "b", true, false},
        {"{\"model\":\"a\",\"model\":3}", "unknown", false, false},
        {"{\"stream\":true,\"stream\":false}", "unknown", false, false},
        {"{\"x\":{\"model\":\"deep\",\"stream\":true}}", "unknown", false, false},
        {"{\"Model\":\"m\",\"STREAM\":true}", "unknown", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene(str_from(cases[i].body), true);
        assert_int_equal(facts_read(&request).id, PROBLEM_NONE);
        if (!str_eq(request.facts.model, str_from(cases[i].model)))
            fail_msg("%s: %.*s", cases[i].body, STR_ARG(request.facts.model));
        assert_int_equal(request.facts.has_model, cases[i].has_model);
        assert_int_equal(request.facts.stream, cases[i].stream);
        assert_int_equal(offloaded, 0);
    }
    scene(STR("{\"stream\":true}"), false); /* a route that never streams */
    assert_int_equal(facts_read(&request).id, PROBLEM_NONE);
    assert_false(request.facts.stream);
}

static void what_is_no_object(void **state) {
    (void)state;
    static const struct {
        const char *body, *message; /* its beginning */
    } cases[] = {
        {"[]", "Invalid JSON data: "},
        {"\"x\"", "Invalid JSON data: "},
        {"7", "Invalid JSON data: "},
        {"null", "Invalid JSON data: "},
        {"", "JSON syntax error: "},
        {"{", "JSON syntax error: "},
        {"{\"a\":1,}", "JSON syntax error: "},
        {"{\"a\":1}x", "JSON syntax error: "},
        {"{\"a\":\"\xff\"}", "JSON syntax error: "},
        {"{'a':1}", "JSON syntax error: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene(str_from(cases[i].body), true);
        struct problem problem = facts_read(&request);
        assert_int_equal(problem.id, PROBLEM_JSON_PARSE);
        if (!str_starts(problem.message, str_from(cases[i].message)))
            fail_msg("%s: %.*s", cases[i].body, STR_ARG(problem.message));
        assert_true(problem.message.len > strlen(cases[i].message));
    }
}

static struct str large(size_t len, const char *start, char fill, const char *end) {
    char *text = arena_alloc(arena, len + 64);
    size_t at = (size_t)snprintf(text, 64, "%s", start);
    memset(text + at, fill, len - at);
    memcpy(text + len, end, strlen(end));
    return str_make(text, len + strlen(end));
}

static void large_bodies_go_to_the_pool(void **state) {
    (void)state;
    static const struct {
        size_t len;
        int answer, asked;
    } cases[] = {{OFFLOAD_FROM - 100, 0, 0}, {OFFLOAD_FROM, 0, 1}, {OFFLOAD_FROM, -EBUSY, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        arena_free(arena);
        arena = arena_new();
        struct str body = large(cases[i].len, "{\"model\":\"m\",\"x\":\"", 'y', "\"}");
        struct arena *keep = arena;
        arena = NULL;
        scene(body, true);
        offload_answer = cases[i].answer;
        assert_int_equal(facts_read(&request).id, PROBLEM_NONE);
        assert_int_equal(offloaded, cases[i].asked);
        assert_true(str_eq(request.facts.model, STR("m"))); /* whoever read it */
        assert_int_equal(request.facts.tokens, body.len / 4);
        arena_free(keep);
    }
}

/* Saying where a huge text is wrong would take many times its memory. */
static void large_faults_are_not_explained(void **state) {
    (void)state;
    arena_free(arena);
    arena = arena_new();
    struct str body = large(DESCRIBE_MAX + 1000, "{\"x\":[1", ',', "]}");
    struct arena *keep = arena;
    arena = NULL;
    scene(body, true);
    size_t before = arena_footprint(arena);
    struct problem problem = facts_read(&request);
    assert_int_equal(problem.id, PROBLEM_JSON_PARSE);
    assert_true(str_eq(problem.message, STR("JSON syntax error: malformed text")));
    assert_true(arena_footprint(arena) - before <= 4096);
    arena_free(keep);
}

static void headers_for_routing(void **state) {
    (void)state;
    scene(STR("{}"), true);
    headers_add(&http.headers, arena, STR("x-smg-routing-key"), STR("k"));
    headers_add(&http.headers, arena, STR("x-smg-target-worker"), STR("1"));
    headers_add(&http.headers, arena, STR("authorization"), STR("Bearer a"));
    headers_add(&http.headers, arena, STR("x-forwarded-for"), STR("10.0.0.1"));
    headers_add(&http.headers, arena, STR("cookie"), STR("c=1"));
    assert_int_equal(facts_read(&request).id, PROBLEM_NONE);
    assert_true(str_eq(request.facts.routing_key, STR("k")));
    assert_true(str_eq(request.facts.target_worker, STR("1")));
    assert_true(str_eq(request.facts.authorization, STR("Bearer a")));
    assert_true(str_eq(request.facts.forwarded_for, STR("10.0.0.1")));
    assert_true(str_eq(request.facts.cookie, STR("c=1")));
    assert_true(str_eq(request.facts.route, route.path));
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_and_streams),
        cmocka_unit_test(what_is_no_object),
        cmocka_unit_test(large_bodies_go_to_the_pool),
        cmocka_unit_test(large_faults_are_not_explained),
        cmocka_unit_test(headers_for_routing),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
