/* The HTTP server: answers, pipelining, bodies. */
#include "proto/http_conn.c"
#include "proto/http_exchange.c"
#include "proto/http_server.c"

#include "http_server_fixture.h"

/* --- ordinary answers ---------------------------------------------------------------------------- */

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
    if (wire_unread(wire) < strlen(got) &&
        wire_exact(wire, strlen(got) - wire_unread(wire)) == NULL)
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
        wire_text(
            wire,
            "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
        assert_int_equal(wire_expect(wire, ""), 100);
        assert_int_equal(wire_ending(wire, 20), -1);
        wire_text(wire, "xyz");
        assert_int_equal(wire_expect(wire, "xyz"), 200);
    }
    wire_text(
        wire,
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nxyz");
    assert_int_equal(wire_expect(wire, "xyz"), 200); /* it did not wait, so it is not told */
    wire_text(
        wire,
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(wire_expect(wire, ""), 200);
    wire_text(
        wire,
        "POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_true(wire_answer(wire, false, &answer, &how)); /* answered without its body */
    assert_int_equal(answer.status, 200);
    assert_true(answer.close);
    wire_text(wire, GET("/hello")); /* may be the body, may be a request: never served */
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    wire_text(
        wire,
        "POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
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
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
             MAX_BODY + 1);
    wire_text(wire, text); /* nothing of the body is sent */
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    assert_true(answer.close);
    assert_int_equal(wire_ending(wire, 5000), 0);
    anew(wire);
    snprintf(text, sizeof text,
             "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
             MAX_BODY + 1);
    wire_text(wire, text);
    assert_true(wire_answer(wire, false, &answer, &how));
    assert_int_equal(answer.status, 413);
    anew(wire); /* a client that writes it all before it reads gets the answer too */
    static const char zeros[1 << 20];
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
             4 * MAX_BODY);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),         cmocka_unit_test(test_http_1_0),
        cmocka_unit_test(test_broken_answers),  cmocka_unit_test(test_every_split_position),
        cmocka_unit_test(test_pipelined_crowd), cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_too_large),       cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_body_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
