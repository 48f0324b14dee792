/* A server with one path for each behaviour, and scripts of a plain client against it. Include it after the .c files
 * under test. */
#pragma once

#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "loop_fixture.h"

#include "http_fixture.h"

#define MAX_BODY (8 << 20)

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define HEAD(path) "HEAD " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define GET10(path) "GET " path " HTTP/1.0\r\n\r\n"
#define POST(path, length) "POST " path " HTTP/1.1\r\nHost: h\r\nContent-Length: " length "\r\n\r\n"
#define CHUNKED(path) "POST " path " HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

/* --- the handler: one path for each behaviour --------------------------------------------------- */

static _Atomic int handled, cancelled, unwound;
static _Atomic bool gate;
static struct http_server *server;
static _Atomic int refusals;

static FIBER_FN void serve_hello(struct exchange *x) {
    (void)exchange_respond(x, 200, NULL, STR("hello"));
}

static FIBER_FN void serve_echo(struct exchange *x) {
    struct str body;
    struct problem problem = exchange_body(x, deadline_in(20000), &body);
    if (problem.id != PROBLEM_NONE)
        (void)exchange_problem(x, problem, NULL);
    else
        (void)exchange_respond(x, 200, NULL, body);
}

static FIBER_FN void serve_target(struct exchange *x) {
    const struct http_request *request = exchange_request(x);
    (void)exchange_respond(x, 200, NULL,
                           arena_printf(exchange_arena(x), "%.*s|%.*s|%.*s|%d",
                                        STR_ARG(request->method_text), STR_ARG(request->path),
                                        STR_ARG(request->query), request->minor));
}

static FIBER_FN void serve_stream(struct exchange *x) {
    struct headers headers = {0};
    headers_add(&headers, exchange_arena(x), STR("content-type"), STR("text/event-stream"));
    exchange_begin(x, 200, &headers, UINT64_MAX);
    (void)exchange_flush(x);
    for (int i = 0; i < 5; i++) {
        (void)fiber_yield();
        if (exchange_write(x, arena_printf(exchange_arena(x), "piece %d,", i)) < 0)
            return;
    }
    (void)exchange_end(x);
}

static FIBER_FN void serve_sized(struct exchange *x) {
    exchange_begin(x, 200, NULL, 10);
    (void)exchange_write(x, STR("01234"));
    (void)exchange_write(x, STR(""));
    (void)fiber_yield();
    (void)exchange_write(x, STR("56789"));
    (void)exchange_end(x);
}

static FIBER_FN void serve_short(struct exchange *x) {
    exchange_begin(x, 200, NULL, 10);
    (void)exchange_write(x, STR("01234"));
    assert_int_equal(exchange_end(x), -EPIPE);
}

static FIBER_FN void serve_abort(struct exchange *x) {
    exchange_begin(x, 200, NULL, UINT64_MAX);
    (void)exchange_write(x, STR("half"));
    exchange_abort(x);
    assert_int_equal(exchange_write(x, STR("more")), -EPIPE);
}

static FIBER_FN void serve_cut(struct exchange *x) {
    exchange_begin(x, 200, NULL, UINT64_MAX);
    (void)exchange_write(x, STR("half"));
    exchange_cut(x);
}

static FIBER_FN void serve_raw(struct exchange *x) { (void)exchange_raw(x, STR("no HTTP at all")); }
static FIBER_FN void serve_nothing(struct exchange *x) { (void)x; }
static FIBER_FN void serve_unended(struct exchange *x) {
    exchange_begin(x, 200, NULL, UINT64_MAX);
    (void)exchange_write(x, STR("half"));
}

static FIBER_FN void serve_empty(struct exchange *x) {
    bool modified = str_eq(exchange_request(x)->path, STR("/204"));
    (void)exchange_respond(x, modified ? 204 : 304, NULL, STR("never sent"));
}

static FIBER_FN void serve_problem(struct exchange *x) {
    struct headers extra = {0};
    headers_add(&extra, exchange_arena(x), STR("retry-after"), STR("3"));
    struct problem problem = {PROBLEM_QUEUE_FULL, STR("a \"quoted\" reason")};
    (void)exchange_problem(x, problem, &extra);
}

/* Begins its answer first and then asks for the body. */
static FIBER_FN void serve_late_body(struct exchange *x) {
    struct str body;
    exchange_begin(x, 200, NULL, UINT64_MAX);
    (void)exchange_flush(x);
    struct problem problem = exchange_body(x, deadline_in(20000), &body);
    (void)exchange_write(x, problem.id ? STR("none") : body);
    (void)exchange_end(x);
}

/* Until it is cancelled; then it still parks, in all ways, before it goes. */
static int slow_job(void *arg) {
    usleep(2000);
    *(int *)arg = 1;
    return 0;
}

static FIBER_FN void park_on_the_way_out(struct exchange *x) {
    int value = 0;
    assert_int_equal(loop_call(loop_control(), slow_job, &value), 0);
    assert_int_equal(value, 1);
    for (int i = 0; i < 5; i++)
        (void)fiber_yield();
    (void)arena_printf(exchange_arena(x), "the arena is still ours: %.*s",
                       STR_ARG(exchange_request(x)->path));
    (void)exchange_peer(x);
    assert_true(exchange_write(x, STR("x")) < 0);
    atomic_fetch_add(&unwound, 1);
}

static FIBER_FN void serve_wait(struct exchange *x) {
    while (!atomic_load(&gate)) {
        if (fiber_sleep(5) < 0) {
            atomic_fetch_add(&cancelled, 1);
            assert_true(exchange_client_gone(x));
            exchange_begin(x, 200, NULL, UINT64_MAX);
            park_on_the_way_out(x);
            return;
        }
    }
    (void)exchange_respond(x, 200, NULL, STR("waited"));
}

/* Writes until the client is gone, then goes on for a while. */
static FIBER_FN void serve_flood(struct exchange *x) {
    static const char block[60000];
    exchange_begin(x, 200, NULL, UINT64_MAX);
    while (exchange_write(x, str_make(block, sizeof block)) == 0)
        continue;
    park_on_the_way_out(x);
}

/* A body and an answer of several MiB. */
static FIBER_FN void serve_large(struct exchange *x) {
    size_t size = 4 << 20;
    char *bytes = arena_alloc(exchange_arena(x), size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)('a' + i % 23);
    (void)exchange_respond(x, 200, NULL, str_make(bytes, size));
}

static FIBER_FN void serve_body_then_wait(struct exchange *x) {
    struct str body;
    struct problem problem = exchange_body(
        x, deadline_in(str_eq(exchange_request(x)->query, STR("soon")) ? 60 : 20000), &body);
    while (problem.id == PROBLEM_NONE && !atomic_load(&gate))
        (void)fiber_sleep(2);
    if (problem.id != PROBLEM_NONE)
        (void)exchange_problem(x, problem, NULL);
    else
        (void)exchange_respond(x, 200, NULL, STR("kept"));
}

static FIBER_FN void serve_drop(struct exchange *x) {
    struct str body;
    struct problem problem = exchange_body(x, deadline_in(20000), &body);
    exchange_drop_body(x);
    exchange_drop_body(x);
    (void)exchange_respond(x, problem.id ? 500 : 200, NULL, STR("dropped"));
}

static const struct {
    const char *path;
    void (*serve)(struct exchange *x);
} routes[] = {
    {"/", serve_hello},         {"/hello", serve_hello},         {"/echo", serve_echo},
    {"/target", serve_target},  {"/stream", serve_stream},       {"/sized", serve_sized},
    {"/short", serve_short},    {"/abort", serve_abort},         {"/cut", serve_cut},
    {"/raw", serve_raw},        {"/nothing", serve_nothing},     {"/unended", serve_unended},
    {"/204", serve_empty},      {"/304", serve_empty},           {"/problem", serve_problem},
    {"/late", serve_late_body}, {"/wait", serve_wait},           {"/flood", serve_flood},
    {"/large", serve_large},    {"/keep", serve_body_then_wait}, {"/drop", serve_drop},
};

static FIBER_FN void handler(void *arg, struct exchange *x) {
    assert_ptr_equal(arg, &server);
    atomic_fetch_add(&handled, 1);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (str_eq(exchange_request(x)->path, str_from(routes[i].path))) {
            routes[i].serve(x);
            return;
        }
    serve_echo(x); /* every other path takes a body */
}

static void on_refused(void *arg, struct exchange *x, struct problem problem) {
    (void)arg;
    (void)x;
    assert_int_not_equal(problem.id, PROBLEM_NONE);
    atomic_fetch_add(&refusals, 1);
}

/* --- around a script ----------------------------------------------------------------------------- */

static struct listener *listener;
static uint64_t descriptors_before;
static uint16_t port;

static struct http_server_options server_options(void) {
    return (struct http_server_options){.max_header_bytes = 65536,
                                        .max_headers = 100,
                                        .max_request_line = 8192,
                                        .max_body = MAX_BODY,
                                        .header_timeout_ms = 20000,
                                        .idle_timeout_ms = 20000,
                                        .body_idle_timeout_ms = 20000,
                                        .write_timeout_ms = 20000,
                                        .handler = handler,
                                        .arg = &server,
                                        .refused = on_refused};
}

static void server_open(struct http_server_options options) {
    server = http_server_new(&options);
    struct listener_options listening = {
        .host = "127.0.0.1", .accepted = http_server_accept, .arg = server};
    assert_int_equal(listener_open(&listening, &listener), 0);
    port = listener_port(listener);
    listener_start(listener);
    descriptors_before = descriptors_in_use();
}

/* Nothing is left of it: no exchange, no connection, no descriptor. */
static void server_gone(void) {
    listener_close(listener);
    http_server_drain(server);
    await(http_server_exchanges(server) == 0);
    await(http_server_connections(server) == 0);
    assert_int_equal(descriptors_in_use(), descriptors_before);
    assert_int_equal(atomic_load(&budget.used), 0);
    for (unsigned i = 0; i < loops_count(); i++)
        assert_int_equal(atomic_load(&loop_stats(loop_at(i))->connections), 0);
}

static void (*script_body)(struct wire *wire);

static void script_client(void *arg) {
    (void)arg;
    static struct wire wire;
    wire_open(&wire, raw_connect(port));
    int on = 1;
    (void)setsockopt(wire.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    script_body(&wire);
    wire_close(&wire);
}

static struct http_server_options used_options;
static unsigned used_loops;

static void body_scripted(void) {
    struct script script;
    server_open(used_options);
    script_start(&script, script_client, NULL);
    script_join(&script);
    server_gone();
}

static inline void scripted(void (*body)(struct wire *wire)) {
    used_options = server_options();
    used_loops = 1;
    script_body = body;
    on_loops(used_loops, body_scripted);
}

static inline void scripted_with(void (*body)(struct wire *wire),
                                 struct http_server_options options) {
    used_options = options;
    script_body = body;
    on_loops(1, body_scripted);
}

static inline void anew(struct wire *wire) {
    wire_close(wire);
    wire_open(wire, raw_connect(port));
    int on = 1;
    (void)setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void spin_until(_Atomic int *counter, int value) {
    for (int i = 0; i < 20000 && atomic_load(counter) < value; i++)
        usleep(1000);
    assert_int_equal(atomic_load(counter), value);
}
