#include "proto/http_conn.c"
#include "proto/http_exchange.c"
#include "proto/http_server.c"

#include <setjmp.h>
#include <stdarg.h>
#include <netinet/tcp.h>

#include <cmocka.h>

#include "loop_fixture.h"

#include "http_fixture.h"

#include "http_corpus.h"

#define MAX_BODY (8 << 20)

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
    (void)exchange_respond(
        x, 200, NULL,
        arena_printf(exchange_arena(x), "%.*s|%.*s|%.*s|%d", STR_ARG(request->method_text),
                     STR_ARG(request->path), STR_ARG(request->query), request->minor));
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
    struct problem problem = exchange_body(x, deadline_in(str_eq(exchange_request(x)->query, STR("soon")) ? 60 : 20000), &body);
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
    {"/", serve_hello},          {"/hello", serve_hello},     {"/echo", serve_echo},
    {"/target", serve_target},   {"/stream", serve_stream},   {"/sized", serve_sized},
    {"/short", serve_short},     {"/abort", serve_abort},     {"/cut", serve_cut},
    {"/raw", serve_raw},         {"/nothing", serve_nothing}, {"/unended", serve_unended},
    {"/204", serve_empty},       {"/304", serve_empty},       {"/problem", serve_problem},
    {"/late", serve_late_body},  {"/wait", serve_wait},       {"/flood", serve_flood},
    {"/large", serve_large},     {"/keep", serve_body_then_wait}, {"/drop", serve_drop},
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

static void scripted(void (*body)(struct wire *wire)) {
    used_options = server_options();
    used_loops = 1;
    script_body = body;
    on_loops(used_loops, body_scripted);
}

static void scripted_with(void (*body)(struct wire *wire), struct http_server_options options) {
    used_options = options;
    script_body = body;
    on_loops(1, body_scripted);
}

static void anew(struct wire *wire) {
    wire_close(wire);
    wire_open(wire, raw_connect(port));
    int on = 1;
    (void)setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void spin_until(_Atomic int *counter, int value) {
    for (int i = 0; i < 20000 && atomic_load(counter) < value; i++)
        usleep(1000);
    assert_int_equal(atomic_load(counter), value);
}

/* --- ordinary answers ---------------------------------------------------------------------------- */

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define HEAD(path) "HEAD " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define GET10(path) "GET " path " HTTP/1.0\r\n\r\n"
#define POST(path, length) "POST " path " HTTP/1.1\r\nHost: h\r\nContent-Length: " length "\r\n\r\n"
#define CHUNKED(path) "POST " path " HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

static void script_answers(struct wire *wire) {
    struct answer answer;
    int how;
    for (int i = 0; i < 3; i++) { /* one connection for all */
        wire_text(wire, GET("/hello"));
        assert_true(wire_answer(wire, false, &answer, &how));
        assert_int_equal(answer.status, 200);
        assert_true(head_has(answer.head, "HTTP/1.1 200 OK\r\n"));
        assert_true(head_has(answer.head, "\r\ncontent-length: 5\r\n"));
        assert_true(head_has(answer.head, "\r\ndate: "));
        assert_false(head_has(answer.head, "\r\nconnection:"));
        wire_text(wire, HEAD("/hello"));
        assert_true(wire_answer(wire, true, &answer, &how));
        assert_int_equal(head_number(answer.head, "\r\ncontent-length: "), 5);
        wire_text(wire, HEAD("/stream"));
        assert_true(wire_answer(wire, true, &answer, &how));
        assert_true(answer.chunked);
        wire_text(wire, GET("/204"));
        assert_true(wire_answer(wire, false, &answer, &how));
        assert_int_equal(answer.status, 204);
        assert_false(head_has(answer.head, "content-length"));
        wire_text(wire, GET("/304"));
        assert_int_equal(wire_expect(wire, ""), 304);
        wire_text(wire, GET("/stream"));
        assert_int_equal(wire_expect(wire, "piece 0,piece 1,piece 2,piece 3,piece 4,"), 200);
        wire_text(wire, GET("/sized"));
        assert_int_equal(wire_expect(wire, "0123456789"), 200);
        wire_text(wire, "OPTIONS /target?a=b&c HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(wire_expect(wire, "OPTIONS|/target|a=b&c|1"), 200);
        wire_text(wire, "GET http://h:80/target?x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(wire_expect(wire, "GET|/target|x|1"), 200);
        wire_text(wire, GET("/problem"));
        assert_true(wire_answer(wire, false, &answer, &how));
        assert_int_equal(answer.status, 429);
        assert_true(head_has(answer.head, "\r\nretry-after: 3\r\n"));
        assert_true(head_has(answer.head, "\r\nx-smg-error-code: queue_full\r\n"));
        assert_non_null(memmem(answer.body, answer.body_len, "a \\\"quoted\\\" reason", 19));
        wire_text(wire, GET("/nothing"));
        assert_int_equal(wire_expect(wire, NULL), 500);
    }
    assert_int_equal(wire_ending(wire, 20), -1);
    wire_text(wire, "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" GET("/hello"));
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_true(answer.close);
    assert_int_equal(wire_ending(wire, 5000), 0); /* the second one is not served */
}

static void test_answers(void **state) {
    (void)state;
    scripted(script_answers);
}

static void script_old_clients(struct wire *wire) {
    struct answer answer;
    int how;
    wire_text(wire, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_true(head_has(answer.head, "\r\nconnection: keep-alive\r\n"));
    wire_text(wire, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_true(answer.close && !answer.chunked);
    char *body = wire_exact(wire, 40); /* until the end */
    assert_non_null(body);
    assert_memory_equal(body, "piece 0,piece 1,piece 2,piece 3,piece 4,", 40);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    wire_text(wire, GET10("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire); /* 100-continue is not for them */
    wire_text(wire, "POST /echo HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab");
    assert_int_equal(wire_expect(wire, "ab"), 200);
}

static void test_http_1_0(void **state) {
    (void)state;
    scripted(script_old_clients);
}

/* --- answers that do not end well ------------------------------------------------------------------ */

static void broken(struct wire *wire, const char *request, const char *got, int how_ended) {
    size_t len;
    int how = 1;
    wire_text(wire, request);
    assert_non_null(wire_head(wire, &len, &how));
    if (wire_unread(wire) < strlen(got) && wire_exact(wire, strlen(got) - wire_unread(wire)) == NULL)
        fail_msg("%s: too little", request);
    while (wire_more(wire, 5000, &how))
        continue;
    assert_int_equal(how, how_ended);
    assert_null(memmem(wire->bytes, wire->len, "0\r\n\r\n", 5));
    anew(wire);
}

static void script_broken(struct wire *wire) {
    broken(wire, GET("/short"), "01234", -2);
    broken(wire, GET("/abort"), "4\r\nhalf\r\n", -2);
    broken(wire, GET("/unended"), "4\r\nhalf\r\n", -2);
    broken(wire, GET("/cut"), "4\r\nhalf\r\n", 0);
    int how = 1;
    wire_text(wire, GET("/raw"));
    while (wire_more(wire, 5000, &how))
        continue;
    assert_int_equal(how, 0);
    assert_memory_equal(wire->bytes, "no HTTP at all", 14);
    assert_int_equal(wire->len, 14);
}

static void test_broken_answers(void **state) {
    (void)state;
    scripted(script_broken);
}

/* --- pipelining ------------------------------------------------------------------------------------ */

static const char three[] = POST("/echo", "4") "abcd" GET("/target?1")
    CHUNKED("/echo") "3;e=x\r\n123\r\n2\r\n45\r\n0\r\nT: r\r\n\r\n" GET("/target?2");

static void expect_three(struct wire *wire) {
    assert_int_equal(wire_expect(wire, "abcd"), 200);
    assert_int_equal(wire_expect(wire, "GET|/target|1|1"), 200);
    assert_int_equal(wire_expect(wire, "12345"), 200);
    assert_int_equal(wire_expect(wire, "GET|/target|2|1"), 200);
}

static void script_every_split(struct wire *wire) {
    size_t len = sizeof three - 1;
    for (size_t cut = 1; cut < len; cut++) {
        wire_send(wire, three, cut);
        usleep(300);
        wire_send(wire, three + cut, len - cut);
        expect_three(wire);
    }
    for (size_t i = 0; i < len; i++) {
        wire_send(wire, three + i, 1);
        usleep(50);
    }
    expect_three(wire);
    wire_send(wire, three, len);
    wire_send(wire, three, len);
    expect_three(wire);
    expect_three(wire);
}

static void test_every_split_position(void **state) {
    (void)state;
    scripted(script_every_split);
}

/* Far more than is read ahead, sent while the first one is still being served: nothing is lost. */
#define CROWD 12000

static void sender_thread(void *arg) {
    struct wire *wire = arg;
    char text[64];
    for (int i = 0; i < CROWD; i++) {
        int len = snprintf(text, sizeof text, GET("/target?%d"), i);
        wire_send(wire, text, (size_t)len);
    }
}

static void script_pipelined_crowd(struct wire *wire) {
    pthread_t thread;
    struct script sender = {.main = sender_thread, .arg = wire};
    int small = 4096;
    assert_int_equal(setsockopt(wire->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    wire_text(wire, GET("/wait"));
    assert_int_equal(pthread_create(&thread, NULL, script_thread, &sender), 0);
    usleep(50000);
    assert_false(atomic_load(&sender.done)); /* held back: 12,000 requests do not fit ahead */
    assert_int_equal(atomic_load(&handled), 1);
    atomic_store(&gate, true);
    assert_int_equal(wire_expect(wire, "waited"), 200);
    for (int i = 0; i < CROWD; i++) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "GET|/target|%d|1", i);
        assert_int_equal(wire_expect(wire, wanted), 200);
    }
    pthread_join(thread, NULL);
}

static void body_pipelined_crowd(void) {
    struct script script;
    used_options = server_options();
    server_open(used_options);
    script_start(&script, script_client, NULL);
    script_join(&script);
    server_gone();
}

static void test_pipelined_crowd(void **state) {
    (void)state;
    script_body = script_pipelined_crowd;
    on_loops(1, body_pipelined_crowd);
}

/* --- bodies ---------------------------------------------------------------------------------------- */

static void script_continue(struct wire *wire) {
    struct answer answer;
    int how;
    for (int i = 0; i < 2; i++) {
        wire_text(wire, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
        assert_int_equal(wire_expect(wire, ""), 100);
        assert_int_equal(wire_ending(wire, 20), -1);
        wire_text(wire, "xyz");
        assert_int_equal(wire_expect(wire, "xyz"), 200);
    }
    wire_text(wire, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nxyz");
    assert_int_equal(wire_expect(wire, "xyz"), 200); /* it did not wait, so it is not told */
    wire_text(wire, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(wire_expect(wire, ""), 200);
    wire_text(wire, "POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_true(wire_answer(wire, false, &answer, &how)); /* answered without its body */
    assert_int_equal(answer.status, 200);
    assert_true(answer.close);
    wire_text(wire, GET("/hello")); /* may be the body, may be a request: never served */
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    wire_text(wire, "POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    size_t len;
    char *head = wire_head(wire, &len, &how);
    assert_memory_equal(head, "HTTP/1.1 200", 12);
    assert_int_equal(wire_ending(wire, 30), -1); /* no 100 behind a final head */
    wire_text(wire, "abc");
    char *chunk = wire_exact(wire, 13);
    assert_memory_equal(chunk, "3\r\nabc\r\n0\r\n\r\n", 13);
}

static void test_expect_continue(void **state) {
    (void)state;
    scripted(script_continue);
}

static void script_too_large(struct wire *wire) {
    struct answer answer;
    int how;
    char text[256];
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", MAX_BODY + 1);
    wire_text(wire, text); /* nothing of the body is sent */
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    assert_true(answer.close);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", MAX_BODY + 1);
    wire_text(wire, text);
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    anew(wire); /* a client that writes it all before it reads gets the answer too */
    static const char zeros[1 << 20];
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 4 * MAX_BODY);
    wire_text(wire, text);
    for (int i = 0; i < 4 * MAX_BODY >> 20; i++)
        wire_send(wire, zeros, sizeof zeros);
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    wire_text(wire, CHUNKED("/echo")); /* only found out on the way */
    for (int i = 0; i < (MAX_BODY >> 20) + 2; i++) {
        wire_text(wire, "100000\r\n");
        wire_send(wire, zeros, sizeof zeros);
        wire_text(wire, "\r\n");
    }
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    assert_true(answer.close);
}

static void test_too_large(void **state) {
    (void)state;
    scripted(script_too_large);
}

static void script_large_both_ways(struct wire *wire) {
    size_t size = 4 << 20, got = 0, len;
    int how = 1;
    wire_text(wire, GET("/large"));
    assert_non_null(wire_head(wire, &len, &how));
    while (got < size) {
        for (; wire->taken < wire->len; wire->taken++, got++)
            if (wire->bytes[wire->taken] != (char)('a' + got % 23))
                fail_msg("wrong byte at %zu", got);
        if (got < size)
            assert_true(wire_more(wire, 20000, &how));
    }
    static char block[100000];
    char head[128];
    snprintf(head, sizeof head, POST("/drop", "%zu"), sizeof block * 50);
    wire_text(wire, head);
    for (int i = 0; i < 50; i++)
        wire_send(wire, block, sizeof block);
    assert_int_equal(wire_expect(wire, "dropped"), 200);
    wire_text(wire, GET("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
}

static void test_large_bodies(void **state) {
    (void)state;
    scripted(script_large_both_ways);
}

/* Bodies over 1 MiB share a budget: the second one is not read until the first is gone. */
static struct wire second_wire;

static void script_budget(struct wire *wire) {
    static const char zeros[3 << 20];
    http_body_budget(5 << 20);
    wire_open(&second_wire, raw_connect(port));
    wire_text(wire, POST("/keep", "3145728"));
    wire_send(wire, zeros, sizeof zeros);
    while (atomic_load(&budget.used) == 0) /* the first one has its room */
        usleep(1000);
    wire_text(&second_wire, POST("/keep?soon", "3145728"));
    int flags = fcntl(second_wire.fd, F_GETFL);
    (void)fcntl(second_wire.fd, F_SETFL, flags | O_NONBLOCK);
    (void)!write(second_wire.fd, zeros, sizeof zeros);
    (void)fcntl(second_wire.fd, F_SETFL, flags);
    assert_int_equal(wire_expect(&second_wire, NULL), 503); /* not within its time */
    wire_close(&second_wire);
    wire_open(&second_wire, raw_connect(port));
    wire_text(&second_wire, POST("/keep", "3145728"));
    atomic_store(&gate, true); /* the first one answers, and its room goes to the second */
    wire_send(&second_wire, zeros, sizeof zeros);
    assert_int_equal(wire_expect(wire, "kept"), 200);
    assert_int_equal(wire_expect(&second_wire, "kept"), 200);
    wire_close(&second_wire);
}

static void test_body_budget(void **state) {
    (void)state;
    scripted(script_budget);
}

/* --- faults ---------------------------------------------------------------------------------------- */

static void refused(struct wire *wire, const char *bytes, int status) {
    struct answer answer;
    int how, before = atomic_load(&handled);
    wire_text(wire, bytes);
    if (!wire_answer(wire, false, &answer, &how))
        fail_msg("no answer to %s", bytes);
    assert_int_equal(answer.status, status);
    assert_true(answer.close);
    assert_true(head_has(answer.head, "\r\ncontent-type: application/json\r\n"));
    wire_text(wire, GET("/hello")); /* whatever follows is not served */
    assert_int_equal(wire_ending(wire, 5000), 0);
    assert_int_equal(atomic_load(&handled), before);
    anew(wire);
}

static void script_refusals(struct wire *wire) {
    static char large[70000];
    refused(wire, "\x16\x03\x01 hello\r\n\r\n", 400);
    refused(wire, "GET / HTTP/1.1\r\n\r\n", 400);
    refused(wire, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    refused(wire, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400);
    refused(wire, CHUNKED("/echo") "zz\r\n", 400);
    memset(large, 'x', sizeof large - 1);
    memcpy(large, "GET /", 5);
    memcpy(large + 9000, " HTTP/1.1\r\nHost: a\r\n\r\n", 23);
    refused(wire, large, 414);
    memset(large, 'x', sizeof large - 1);
    memcpy(large, "GET / HTTP/1.1\r\nHost: a\r\nA: ", 28);
    refused(wire, large, 431);
    char *at = stpcpy(large, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 100; i++)
        at = stpcpy(at, "a:b\r\n");
    stpcpy(at, "\r\n");
    refused(wire, large, 431);
    assert_int_equal(atomic_load(&refusals), 8);
    /* A fault inside a body whose handler is at work: 400 and the end. */
    struct answer answer;
    int how;
    wire_text(wire, CHUNKED("/echo") "3\r\nabc\r\n");
    usleep(20000);
    wire_text(wire, "zz\r\n" GET("/hello"));
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 400);
    assert_true(answer.close);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire); /* the good ones before it are answered */
    wire_text(wire, GET("/hello") POST("/echo", "1") "x" "GET /x\r\n\r\n" GET("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
    assert_int_equal(wire_expect(wire, "x"), 200);
    assert_int_equal(wire_expect(wire, NULL), 400);
    assert_int_equal(wire_ending(wire, 5000), 0);
}

static void test_refusals(void **state) {
    (void)state;
    scripted(script_refusals);
}

static struct corpus corpus;

/* Answers in order until the connection ends or falls silent. */
static int answers_to(struct wire *wire, const struct corpus_case *one, int *last, bool *ended) {
    struct answer answer;
    int how = 1, count = 0;
    *last = 0;
    wire_send(wire, one->raw.ptr, one->raw.len);
    if (one->truncated)
        shutdown(wire->fd, SHUT_WR);
    int ms = one->expect == CORPUS_ACCEPT ? 30 : 3000;
    for (;;) {
        if (wire_unread(wire) == 0 && !wire_more(wire, count < (int)one->requests ? 5000 : ms, &how))
            break;
        if (!wire_answer(wire, str_starts(one->raw, STR("HEAD ")), &answer, &how))
            break;
        count += answer.status != 100;
        *last = answer.status;
    }
    *ended = how != -1;
    return count;
}

static void script_corpus(struct wire *wire) {
    for (size_t i = 0; i < corpus.len; i++) {
        const struct corpus_case *one = &corpus.cases[i];
        int last, before = atomic_load(&handled);
        bool ended;
        int count = answers_to(wire, one, &last, &ended);
        bool fault = last == 400 || last == 408 || last == 414 || last == 431 || last == 413;
        if (one->expect == CORPUS_ACCEPT && !one->may_be_refused &&
            (fault || count != (int)one->requests))
            fail_msg("%.*s: %d answers, the last %d", STR_ARG(one->name), count, last);
        if (one->expect == CORPUS_REFUSE && !one->may_be_accepted && !(fault && ended))
            fail_msg("%.*s: the last answer is %d", STR_ARG(one->name), last);
        if (one->expect == CORPUS_CLOSE && !ended)
            fail_msg("%.*s: not closed", STR_ARG(one->name));
        if (one->truncated)
            assert_int_equal(count, 0);
        assert_true(atomic_load(&handled) - before <= count + one->truncated);
        anew(wire);
    }
}

static void test_shared_corpus(void **state) {
    (void)state;
    if (!corpus_load(&corpus)) {
        print_message("the shared corpus is not here\n");
        skip();
    }
    scripted(script_corpus);
    arena_free(corpus.arena);
}

/* --- time ------------------------------------------------------------------------------------------ */

static void script_timeouts(struct wire *wire) {
    assert_int_equal(wire_ending(wire, 5000), 0); /* idle from the start */
    anew(wire);
    wire_text(wire, GET("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
    assert_int_equal(wire_ending(wire, 5000), 0); /* idle after an answer */
    anew(wire);
    wire_text(wire, "GET / HT");
    assert_int_equal(wire_expect(wire, NULL), 408);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    static const char slow[] = "GET / HTTP/1.1\r\nHost:";
    for (int i = 0; i < 20; i++) { /* one byte now and then does not help */
        if (send(wire->fd, &slow[i], 1, MSG_NOSIGNAL) < 0)
            break;
        usleep(20000);
    }
    assert_int_equal(wire_expect(wire, NULL), 408);
    anew(wire);
    wire_text(wire, POST("/echo", "10") "abc");
    assert_int_equal(wire_expect(wire, NULL), 408);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire); /* a client that reads nothing is given up */
    wire_text(wire, GET("/flood"));
    spin_until(&unwound, 1);
}

static void test_timeouts(void **state) {
    (void)state;
    struct http_server_options options = server_options();
    options.idle_timeout_ms = 150;
    options.header_timeout_ms = 150;
    options.body_idle_timeout_ms = 150;
    options.write_timeout_ms = 150;
    scripted_with(script_timeouts, options);
}

/* --- clients that go ------------------------------------------------------------------------------- */

static void script_gone(struct wire *wire) {
    for (int i = 0; i < 12; i++) {
        wire_text(wire, GET("/wait"));
        spin_until(&handled, i + 1);
        if (i % 3 == 0)
            shutdown(wire->fd, SHUT_WR); /* a half-closed client counts as gone */
        if (i % 3 == 1)
            wire_reset(wire);
        else if (i % 3 == 2)
            wire_close(wire);
        spin_until(&cancelled, i + 1);
        spin_until(&unwound, i + 1);
        if (i % 3 == 0)
            wire_close(wire);
        wire_open(wire, raw_connect(port));
    }
    wire_text(wire, POST("/echo", "10") "abc"); /* inside a small body: no handler sees it */
    anew(wire);
    spin_until(&refusals, 1);
    wire_text(wire, GET("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
    assert_int_equal(atomic_load(&handled), 13);
}

static void test_clients_that_go(void **state) {
    (void)state;
    scripted(script_gone);
}

/* In the midst of a write that does not get on; the handler parks before it ends. */
static void script_gone_in_a_write(struct wire *wire) {
    for (int i = 0; i < 6; i++) {
        size_t len;
        int how = 1;
        wire_text(wire, GET("/flood"));
        assert_non_null(wire_head(wire, &len, &how));
        usleep(20000);
        if (i % 2)
            wire_reset(wire);
        else
            wire_close(wire);
        spin_until(&unwound, i + 1);
        wire_open(wire, raw_connect(port));
    }
}

static void test_clients_that_go_in_a_write(void **state) {
    (void)state;
    scripted(script_gone_in_a_write);
}

/* --- the end of a server ----------------------------------------------------------------------------- */

static struct wire wires[4];

static void script_drain(struct wire *wire) {
    struct answer answer;
    int how;
    for (int i = 0; i < 4; i++)
        wire_open(&wires[i], raw_connect(port));
    wire_text(&wires[0], GET("/hello"));
    assert_int_equal(wire_expect(&wires[0], "hello"), 200); /* idle, kept alive */
    wire_text(&wires[1], GET("/wait"));                     /* at work */
    wire_text(&wires[2], "GET /hel");                       /* half a head */
    spin_until(&handled, 2);
    usleep(20000);
    http_server_drain(server);
    assert_int_equal(wire_ending(&wires[0], 5000), 0);
    assert_int_equal(wire_ending(&wires[3], 5000), 0);
    wire_text(&wires[2], "lo HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(wire_answer(&wires[2], false, &answer, &how));
    assert_true(answer.status == 200 && answer.close);
    assert_int_equal(wire_ending(&wires[2], 5000), 0);
    atomic_store(&gate, true);
    assert_true(wire_answer(&wires[1], false, &answer, &how));
    assert_true(answer.status == 200 && answer.close);
    assert_int_equal(wire_ending(&wires[1], 5000), 0);
    for (int i = 0; i < 4; i++)
        wire_close(&wires[i]);
    (void)wire;
}

static void test_drain(void **state) {
    (void)state;
    scripted(script_drain);
}

static void script_cut(struct wire *wire) {
    for (int i = 0; i < 4; i++)
        wire_open(&wires[i], raw_connect(port));
    wire_text(&wires[0], GET("/wait"));
    wire_text(&wires[1], GET("/flood"));
    wire_text(&wires[2], "GET /hel");
    spin_until(&handled, 2);
    usleep(20000);
    http_server_cut(server);
    http_server_cut(server);
    spin_until(&unwound, 2);
    assert_int_equal(wire_ending(&wires[0], 5000), -2);
    int how = 1;
    while (wire_more(&wires[1], 5000, &how))
        wires[1].taken = wires[1].len;
    assert_int_equal(how, -2);
    assert_int_equal(wire_ending(&wires[2], 5000), 0);
    assert_int_equal(wire_ending(&wires[3], 5000), 0);
    for (int i = 0; i < 4; i++)
        wire_close(&wires[i]);
    (void)wire;
}

static void test_cut(void **state) {
    (void)state;
    scripted(script_cut);
}

/* --- garbage ------------------------------------------------------------------------------------------ */

static void script_garbage(struct wire *wire) {
    uint64_t x = 7;
    char noise[512];
    for (int i = 0; i < 400; i++) {
        for (size_t k = 0; k < sizeof noise; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            noise[k] = i % 2 ? (char)(x >> 33) : "GET POSTHTP/1. \r\n:aContent-Length"[(x >> 33) % 33];
        }
        (void)send(wire->fd, noise, 1 + (size_t)(x >> 40) % sizeof noise, MSG_NOSIGNAL);
        if (i % 5 == 0)
            wire_reset(wire);
        else
            wire_close(wire);
        wire_open(wire, raw_connect(port));
    }
    wire_text(wire, GET("/hello"));
    assert_int_equal(wire_expect(wire, "hello"), 200);
}

static void test_garbage(void **state) {
    (void)state;
    scripted(script_garbage);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_http_1_0),
        cmocka_unit_test(test_broken_answers),
        cmocka_unit_test(test_every_split_position),
        cmocka_unit_test(test_pipelined_crowd),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_body_budget),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_shared_corpus),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_clients_that_go),
        cmocka_unit_test(test_clients_that_go_in_a_write),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
