/* The HTTP client: answers of all shapes, reuse, failures. */
#include "proto/http_call.c"
#include "proto/http_client.c"
#include "proto/http_peer.c"

#include "io/resolver.c"

#include "http_client_fixture.h"

/* --- requests and answers ---------------------------------------------------------------------------- */

static void script_simple(void) {
    worker_accept();
    assert_true(worker_request());
    assert_true(
        str_starts(str_from(request_head_text), STR("POST /x HTTP/1.1\r\nhost: 127.0.0.1:")));
    assert_memory_equal(request_body, "abcdef", 6);
    assert_true(head_has(request_head_text, "\r\nx-more: 1\r\n"));
    assert_true(head_has(request_head_text, "\r\naccept-encoding: identity\r\n"));
    assert_int_equal(head_number(request_head_text, "\r\ncontent-length: "), 6);
    worker_say(SIZED("5") "hello");
    assert_true(worker_request());
    assert_false(head_has(request_head_text, "content-length"));
    worker_say(CHUNKS "1\r\na\r\n2;x=y\r\nbc\r\n0\r\nTrailer: z\r\n\r\n");
    assert_true(worker_request());
    assert_int_equal(head_number(request_head_text, "\r\ncontent-length: "), 0);
    worker_say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_true(worker_request()); /* HEAD, three times */
    worker_say(SIZED("500"));
    assert_true(worker_request());
    worker_say(CHUNKS);
    assert_true(worker_request());
    worker_say(OK_HEAD "\r\n");
    assert_true(worker_request());
    worker_say("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n");
    assert_true(worker_request());
    worker_say(OK_HEAD "Connection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_false(worker_request()); /* the client closed as well */
    wire_close(&worker);
    worker_accept();
    assert_true(worker_request());
    worker_say(OK_HEAD "\r\nuntil ");
    worker_say("the end");
    wire_close(&worker);
}

static void body_simple(void) {
    worker_start(script_simple);
    struct str parts[3] = {STR("abc"), STR(""), STR("def")};
    struct http_call_request request = ask("POST");
    request.body = parts;
    request.body_parts = 3;
    request.has_body = true;
    call(&request, &got);
    check_fine(200, "hello", false);
    assert_int_equal(got.length, 5);
    call_simple("GET");
    check_fine(200, "abc", true);
    assert_int_equal(got.length, UINT64_MAX);
    request.body_parts = 0;
    call(&request, &got);
    check_fine(204, "", true);
    for (int i = 0; i < 3; i++) {
        call_simple("HEAD");
        check_fine(200, "", true);
        assert_int_equal(got.length, i == 0 ? 500 : UINT64_MAX);
    }
    call_simple("GET");
    check_fine(304, "", true);
    call_simple("GET");
    check_fine(200, "ok", true);
    call_simple("GET");
    check_fine(200, "until the end", false);
    worker_end();
}

static void test_requests_and_answers(void **state) {
    (void)state;
    on_loops(1, body_simple);
}

static const char *const split_answers[] = {
    SIZED("11") "hello world",
    CHUNKS "5\r\nhello\r\n1;e\r\n \r\n005\r\nworld\r\n0\r\nA: b\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" SIZED(
        "11") "hello world",
};

static void script_every_split(void) {
    worker_accept();
    for (size_t i = 0; i < 3; i++)
        for (size_t cut = 1; cut <= strlen(split_answers[i]); cut++) {
            assert_true(worker_request());
            wire_send(&worker, split_answers[i], cut);
            usleep(300);
            wire_send(&worker, split_answers[i] + cut, strlen(split_answers[i]) - cut);
        }
}

static void body_every_split(void) {
    worker_start(script_every_split);
    bool first = true;
    for (size_t i = 0; i < 3; i++)
        for (size_t cut = 1; cut <= strlen(split_answers[i]); cut++) {
            call_simple("GET");
            check_fine(200, "hello world", !first);
            first = false;
        }
    worker_end();
}

static void test_every_split_position(void **state) {
    (void)state;
    on_loops(1, body_every_split);
}

/* --- interim answers have an end ----------------------------------------------------------------------- */

static void script_interims(void) {
    worker_accept();
    assert_true(worker_request());
    for (int i = 0; i < 16; i++)
        worker_say("HTTP/1.1 102 Processing\r\n\r\n");
    worker_say(SIZED("2") "ok");
    assert_true(worker_request());
    for (int i = 0; i < 17; i++)
        worker_say("HTTP/1.1 102 Processing\r\n\r\n");
    int how = 1;
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
    worker_accept();
    assert_true(worker_request());
    worker_say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
    worker_accept();
    assert_true(worker_request());
    worker_say("HTTP/1.1 051 What\r\nContent-Length: 0\r\n\r\n");
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
}

static void body_interims(void) {
    worker_start(script_interims);
    call_simple("GET");
    check_fine(200, "ok", false);
    call_simple("GET");
    assert_int_equal(got.start, -EPROTO);
    assert_int_equal(got.failure, HTTP_BROKEN);
    for (int i = 0; i < 2; i++) {
        call_simple("GET");
        assert_int_equal(got.start, -EPROTO);
    }
    worker_end();
}

static void test_interim_answers(void **state) {
    (void)state;
    on_loops(1, body_interims);
}

/* --- connections that were kept ------------------------------------------------------------------------ */

static void script_stale(void) {
    for (int i = 0; i < 2; i++) { /* kept, and closed while idle: at once, and when it is used */
        worker_accept();
        assert_true(worker_request());
        worker_say(SIZED("1") "1");
        if (i == 1)
            assert_true(worker_request());
        wire_close(&worker);
    }
    worker_accept(); /* the replacement; it breaks too, behind a byte of an answer */
    assert_true(worker_request());
    worker_say(SIZED("1") "2");
    assert_true(worker_request());
    worker_say("H");
    wire_close(&worker);
    worker_accept(); /* a fresh one that breaks is not replaced */
    assert_true(worker_request());
    wire_close(&worker);
    worker_accept(); /* says more than its answer */
    assert_true(worker_request());
    worker_say(SIZED("1") "3" SIZED("6") "poison");
    int how = 1;
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
    worker_accept(); /* says something while idle */
    assert_true(worker_request());
    worker_say(SIZED("1") "4");
    usleep(30000);
    worker_say(SIZED("6") "poison");
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
    worker_accept();
    assert_true(worker_request());
    worker_say(SIZED("1") "5");
}

static void body_stale(void) {
    worker_start(script_stale);
    call_simple("GET");
    check_fine(200, "1", false);
    await(peer_here(peer)->count == 0); /* its end was seen while idle */
    call_simple("GET");
    check_fine(200, "1", false);
    call_simple("GET"); /* dies under the request: replaced, silently */
    check_fine(200, "2", false);
    call_simple("GET");
    assert_int_equal(got.failure, HTTP_BROKEN);
    assert_true(got.reused);
    call_simple("GET");
    assert_int_equal(got.failure, HTTP_BROKEN);
    assert_false(got.reused);
    call_simple("GET");
    check_fine(200, "3", false);
    call_simple("GET");
    check_fine(200, "4", false);
    await(peer_here(peer)->count == 0);
    call_simple("GET");
    check_fine(200, "5", false);
    assert_int_equal(atomic_load(&worker_accepted), 7);
    worker_end();
}

static void test_reused_connections(void **state) {
    (void)state;
    on_loops(1, body_stale);
}

/* --- a worker that answers before it has the request ------------------------------------------------------ */

static _Atomic bool worker_may_go;

static void worker_wait(void) {
    for (int i = 0; i < 20000 && !atomic_load(&worker_may_go); i++)
        usleep(1000);
    atomic_store(&worker_may_go, false);
}

static void script_early(void) {
    size_t len;
    int how;
    worker_accept(); /* a whole answer; reads nothing, closes nothing */
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    worker_wait();
    wire_close(&worker);
    worker_accept(); /* and closes */
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
    usleep(20000);
    wire_close(&worker);
    worker_accept(); /* half an answer, then a reset */
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say("HTTP/1.1 500 Oops\r\nContent-Length: 300\r\n\r\nbig");
    usleep(20000);
    wire_reset(&worker);
    worker_accept(); /* no answer, only the end of its side */
    assert_non_null(wire_head(&worker, &len, &how));
    shutdown(worker.fd, SHUT_WR);
    worker_wait();
    wire_close(&worker);
    worker_accept(); /* garbage */
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say("what is this?\r\n\r\n");
    worker_wait();
    wire_close(&worker);
    worker_accept(); /* half an answer, a pause, and the rest of both */
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say(OK_HEAD "Content-Length: 10\r\n\r\nfirst");
    usleep(20000);
    assert_true(worker_body(HUGE_BODY));
    worker_say("later");
    assert_true(worker_request());
    worker_say(SIZED("1") "k");
}

static FIBER_FN void call_huge(void) {
    struct str part = str_make(huge, HUGE_BODY);
    struct http_call_request request = ask("POST");
    request.body = &part;
    request.body_parts = 1;
    request.deadline = deadline_in(10000);
    int64_t start = clock_ms();
    call(&request, &got);
    assert_true(clock_ms() - start < 8000);
}

static void body_early(void) {
    huge = mem_zalloc(HUGE_BODY);
    worker_start(script_early);
    call_huge();
    check_fine(413, "big", false);
    assert_int_equal(peer_here(peer)->count, 0); /* not to be used again */
    atomic_store(&worker_may_go, true);
    call_huge();
    check_fine(413, "big", false);
    call_huge();
    assert_int_equal(got.failure, HTTP_BROKEN);
    assert_true(got.status == 500 || got.start < 0);
    call_huge();
    assert_int_equal(got.start, -ECONNRESET);
    atomic_store(&worker_may_go, true);
    call_huge();
    assert_int_equal(got.start, -EPROTO);
    atomic_store(&worker_may_go, true);
    call_huge();
    check_fine(200, "firstlater", false);
    call_simple("GET");
    check_fine(200, "k", true);
    worker_end();
    mem_free(huge);
}

static void test_early_answers(void **state) {
    (void)state;
    on_loops(1, body_early);
}

/* More of an early answer than is held, and then a reset: the write fails while the connection is not read, so nothing
 * more will come, and nobody says so but the write.
 */
static void script_early_flood(void) {
    static char flood[400000];
    size_t len;
    int how;
    worker_accept();
    assert_non_null(wire_head(&worker, &len, &how));
    worker_say(SIZED("1000000"));
    wire_send(&worker, flood, sizeof flood);
    usleep(50000);
    wire_reset(&worker);
}

static void body_early_flood(void) {
    struct arena *arena = arena_new();
    struct http_call_request request = ask("POST");
    struct http_call *one;
    struct str part, piece;
    int rc;
    huge = mem_zalloc(HUGE_BODY);
    part = str_make(huge, HUGE_BODY);
    request.body = &part;
    request.body_parts = 1;
    request.deadline = deadline_in(10000);
    worker_start(script_early_flood);
    int64_t start = clock_ms();
    rc = http_call_start(arena, peer, &request, &one);
    while (rc >= 0 && (rc = http_call_read(one, &piece, 0)) == 1)
        turns(2);
    assert_true(rc == -ECONNRESET || rc == -EPIPE);
    assert_int_equal(http_call_failure(one), HTTP_BROKEN);
    assert_true(clock_ms() - start < 8000); /* not by the deadline */
    turns(2);
    http_call_finish(one);
    arena_free(arena);
    worker_end();
    mem_free(huge);
}

static void test_early_answer_of_any_length(void **state) {
    (void)state;
    on_loops(1, body_early_flood);
}

/* --- how calls fail ---------------------------------------------------------------------------------------- */

static void script_failures(void) {
    int how = 1;
    for (int i = 0; i < 3; i++) { /* no answer at all; only a head; silence inside the body */
        static const char *const said[] = {"", SIZED("10"), SIZED("10") "abc"};
        worker_accept();
        assert_true(worker_request());
        worker_say(said[i]);
        while (wire_more(&worker, 20000, &how)) /* until the client closes */
            continue;
        wire_close(&worker);
    }
    static const char *const broken[] = {SIZED("10") "abc", CHUNKS "3\r\nabc\r\n",
                                         OK_HEAD "X: ", SIZED("10") "abc"};
    for (int i = 0; i < 4; i++) {
        worker_accept();
        assert_true(worker_request());
        worker_say(broken[i]);
        if (i == 3) {
            usleep(20000);
            wire_reset(&worker);
        } else {
            wire_close(&worker);
        }
    }
}

static void body_failures(void) {
    struct http_call_request request;
    struct arena *arena = arena_new();
    struct http_call *one;
    struct str piece;
    worker_start(script_failures);
    request = ask("GET");
    request.head_ms = 50;
    call(&request, &got);
    assert_int_equal(got.start, -ETIMEDOUT);
    assert_int_equal(got.failure, HTTP_TIMED_OUT);
    request = ask("GET");
    request.deadline = deadline_in(60);
    call(&request, &got);
    assert_int_equal(got.start, 0);
    assert_int_equal(got.read, -ETIMEDOUT);
    request = ask("GET");
    assert_int_equal(http_call_start(arena, peer, &request, &one), 0);
    assert_int_equal(http_call_read(one, &piece, 40), 1);
    assert_int_equal(http_call_read(one, &piece, 40), -ETIMEDOUT);
    assert_int_equal(http_call_failure(one), HTTP_TIMED_OUT);
    http_call_finish(one);
    assert_int_equal(http_call_read(one, &piece, 40), -EPIPE);
    for (int i = 0; i < 4; i++) {
        call_simple("GET");
        assert_int_equal(got.failure, HTTP_BROKEN);
        assert_int_equal(got.start == 0, i != 2);
        assert_true(got.read < 0);
    }
    worker_end();
    arena_free(arena);
}

static void test_failures(void **state) {
    (void)state;
    on_loops(1, body_failures);
}

static void body_no_connection(void) {
    uint16_t port;
    close(raw_listen(1, &port)); /* nobody listens there */
    struct http_peer_options options = {.host = STR("127.0.0.1"), .port = port, .connect_ms = 2000};
    peer = http_peer_new(&options);
    call_simple("GET");
    assert_int_equal(got.start, -ECONNREFUSED);
    assert_int_equal(got.failure, HTTP_CONNECT_FAILED);
    http_peer_unref(peer);
    options.host = STR("no-such-host.invalid");
    peer = http_peer_new(&options);
    call_simple("GET");
    assert_int_equal(got.start, -EHOSTUNREACH);
    assert_int_equal(got.failure, HTTP_CONNECT_FAILED);
    http_peer_unref(peer);
    options.tls = true;
    peer = http_peer_new(&options);
    call_simple("GET");
    assert_int_equal(got.start, -EPROTONOSUPPORT);
    http_peer_unref(peer);
    int deaf = raw_listen(0, &port), queued[2];
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in address = local_address(port);
        queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(queued[i], (struct sockaddr *)&address, sizeof address);
    }
    options = (struct http_peer_options){.host = STR("127.0.0.1"), .port = port, .connect_ms = 50};
    peer = http_peer_new(&options);
    call_simple("GET");
    assert_int_equal(got.start, -ETIMEDOUT);
    assert_int_equal(got.failure, HTTP_CONNECT_FAILED);
    await(atomic_load(&limits.open) == 0);
    http_peer_unref(peer);
    close(queued[0]);
    close(queued[1]);
    close(deaf);
    assert_int_equal(descriptors_in_use(), 0);
}

static void test_no_connection(void **state) {
    (void)state;
    on_loops(1, body_no_connection);
}

/* "localhost" is ::1 first on many machines, and the worker listens on 127.0.0.1 only. Here the name stands for two
 * addresses, of which only the second answers. */
static void script_one(void) {
    worker_accept();
    assert_true(worker_request());
    worker_say(SIZED("1") "1");
}

static void name_stands_for(struct str name, const char *const *texts, size_t count) {
    struct entry *entry = entry_for(name);
    entry->looked_ms = loop_now_ms();
    entry->found.len = count;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(resolver_literal(str_from(texts[i]), 0, &entry->found.items[i]), 0);
}

static void body_addresses(void) {
    static const char *const texts[] = {"127.0.0.2", "127.0.0.1"};
    worker_start(script_one);
    http_peer_unref(peer);
    name_stands_for(STR("worker.test"), texts, 2);
    peer_options.host = STR("worker.test");
    peer = http_peer_new(&peer_options);
    assert_true(str_starts(http_peer_authority(peer), STR("worker.test:")));
    call_simple("GET");
    check_fine(200, "1", false);
    worker_end();
}

static void test_every_address_is_tried(void **state) {
    (void)state;
    on_loops(1, body_addresses);
}

static void script_heads(void) {
    char value[3000];
    memset(value, 'v', sizeof value);
    value[sizeof value - 1] = '\0';
    for (int i = 0; i < 2; i++) {
        worker_accept();
        assert_true(worker_request());
        worker_say(OK_HEAD "Content-Length: 0\r\nA: ");
        worker_say(value);
        worker_say("\r\n\r\n");
        int how = 1;
        while (wire_more(&worker, 20000, &how))
            continue;
        wire_close(&worker);
    }
}

static void body_heads(void) {
    worker_start(script_heads);
    struct http_call_request request = ask("GET");
    request.max_head = 2000;
    call(&request, &got);
    assert_int_equal(got.start, -EPROTO);
    request.max_head = 4000;
    call(&request, &got);
    assert_int_equal(got.status, 200);
    worker_end();
}

static void test_head_limit(void **state) {
    (void)state;
    on_loops(1, body_heads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_and_answers),
        cmocka_unit_test(test_every_split_position),
        cmocka_unit_test(test_interim_answers),
        cmocka_unit_test(test_reused_connections),
        cmocka_unit_test(test_early_answers),
        cmocka_unit_test(test_early_answer_of_any_length),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_no_connection),
        cmocka_unit_test(test_every_address_is_tried),
        cmocka_unit_test(test_head_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
