/* The HTTP server: malformed requests, clients that stall or go, its own end. */
#include "proto/http_conn.c"
#include "proto/http_exchange.c"
#include "proto/http_server.c"

#include "http_server_fixture.h"

#include "http_corpus.h"

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
    refused(wire, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            400);
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
    wire_text(wire, GET("/hello") POST("/echo", "1") "x"
                                                     "GET /x\r\n\r\n" GET("/hello"));
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
        if (wire_unread(wire) == 0 &&
            !wire_more(wire, count < (int)one->requests ? 5000 : ms, &how))
            break;
        if (!wire_answer(wire, str_starts(one->raw, STR("HEAD ")), &answer, &how))
            break;
        count += answer.status != 100;
        *last = answer.status;
    }
    *ended = how != -1;
    return count;
}

static bool is_fault(int status) {
    return status == 400 || status == 408 || status == 413 || status == 414 || status == 431;
}

static bool as_expected(const struct corpus_case *one, int count, int last, bool ended) {
    if (one->truncated && count != 0)
        return false;
    switch (one->expect) {
    case CORPUS_ACCEPT:
        return one->may_be_refused || (!is_fault(last) && count == (int)one->requests);
    case CORPUS_REFUSE: return one->may_be_accepted || (is_fault(last) && ended);
    case CORPUS_CLOSE: return ended;
    }
    return false;
}

static void script_corpus(struct wire *wire) {
    for (size_t i = 0; i < corpus.len; i++) {
        const struct corpus_case *one = &corpus.cases[i];
        int last, before = atomic_load(&handled);
        bool ended;
        int count = answers_to(wire, one, &last, &ended);
        if (!as_expected(one, count, last, ended))
            fail_msg("%.*s: %d answers, the last %d, %s", STR_ARG(one->name), count, last,
                     ended ? "closed" : "open");
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
            noise[k] =
                i % 2 ? (char)(x >> 33) : "GET POSTHTP/1. \r\n:aContent-Length"[(x >> 33) % 33];
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
