#include "proto/http_call.c"
#include "proto/http_client.c"
#include "proto/http_peer.c"

#include "io/resolver.c"

#include <setjmp.h>
#include <stdarg.h>
#include <netinet/tcp.h>

#include <cmocka.h>

#include "loop_fixture.h"

#include "http_fixture.h"

/* --- a worker made of plain sockets: one thread, one script a test -------------------------------- */

static struct wire worker;
static int worker_listening;
static uint16_t worker_port;
static _Atomic int worker_accepted;

static void worker_accept(void) {
    int fd = accept4(worker_listening, NULL, NULL, SOCK_CLOEXEC), on = 1;
    assert_true(fd >= 0);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    wire_open(&worker, fd);
    atomic_fetch_add(&worker_accepted, 1);
}

/* One request with its body; false when the connection ended. Of a body the first bytes are kept. */
static char request_head_text[8192], request_body[64];
static size_t request_body_len;

static bool worker_body(size_t length) {
    int how;
    for (size_t at = 0; at < length;) {
        size_t here = wire_unread(&worker) < length - at ? wire_unread(&worker) : length - at;
        if (at < sizeof request_body)
            memcpy(request_body + at, worker.bytes + worker.taken,
                   here < sizeof request_body - at ? here : sizeof request_body - at);
        worker.taken += here;
        at += here;
        if (at < length && !wire_more(&worker, WIRE_MS, &how))
            return false;
    }
    return true;
}

static bool worker_request(void) {
    size_t len;
    int how;
    char *head = wire_head(&worker, &len, &how);
    if (head == NULL)
        return false;
    assert_true(len < sizeof request_head_text);
    memcpy(request_head_text, head, len);
    request_head_text[len] = '\0';
    long length = head_number(request_head_text, "\r\ncontent-length: ");
    request_body_len = length > 0 ? (size_t)length : 0;
    return worker_body(request_body_len);
}

static void worker_say(const char *text) { wire_text(&worker, text); }

static struct http_peer *peer;
static struct http_peer_options peer_options;

static void (*worker_script)(void);
static void worker_thread(void *arg) {
    (void)arg;
    worker_script();
}

static struct script worker_running;

static void worker_start(void (*script)(void)) {
    worker_listening = raw_listen(50, &worker_port);
    worker_script = script;
    peer_options = (struct http_peer_options){.host = STR("127.0.0.1"),
                                              .port = worker_port,
                                              .max_idle = 4,
                                              .idle_ms = 20000,
                                              .connect_ms = 5000};
    peer = http_peer_new(&peer_options);
    script_start(&worker_running, worker_thread, NULL);
}

/* The peer goes, and with it every connection. */
static void worker_end(void) {
    struct peer_loop *here = peer_here(peer);
    while (!list_empty(&here->idle))
        upstream_close(container_of(here->idle.next, struct upstream, of_peer));
    await(atomic_load(&limits.open) == 0);
    assert_int_equal(atomic_load(&peer->refs), 1);
    http_peer_unref(peer);
    script_join(&worker_running);
    close(worker_listening);
    assert_int_equal(atomic_load(&loop_stats(loop_here())->upstream), 0);
    assert_int_equal(descriptors_in_use(), 0);
    assert_int_equal(idle_here()->count, 0);
    assert_true(list_empty(&idle_here()->conns));
}

/* --- a call in short ------------------------------------------------------------------------------- */

static struct http_call_request ask(const char *method) {
    return (struct http_call_request){.method = str_from(method),
                                      .target = STR("/x"),
                                      .head = STR("x-more: 1\r\n"),
                                      .deadline = deadline_in(20000)};
}

struct result {
    int start, read; /* what the two said */
    int status;
    enum http_failure failure;
    bool reused;
    uint64_t length;
    char body[65536];
    size_t body_len;
};

static FIBER_FN void call(const struct http_call_request *request, struct result *result) {
    struct arena *arena = arena_new();
    struct http_call *call;
    struct str piece;
    memset(result, 0, sizeof *result);
    result->start = http_call_start(arena, peer, request, &call);
    result->read = -1;
    turns(3); /* a connection that has closed meanwhile is still the call's */
    while (result->start == 0 && (result->read = http_call_read(call, &piece, 0)) == 1) {
        assert_true(result->body_len + piece.len <= sizeof result->body);
        memcpy(result->body + result->body_len, piece.ptr, piece.len);
        result->body_len += piece.len;
    }
    const struct http_response *response = http_call_response(call);
    result->status = response->status;
    result->reused = response->reused_connection;
    result->length = response->content_length;
    result->failure = http_call_failure(call);
    if (result->failure != HTTP_FINE)
        assert_true(http_call_error(call).len > 0);
    turns(3);
    http_call_finish(call);
    http_call_finish(call);
    arena_free(arena);
}

static struct result got;

static FIBER_FN void call_simple(const char *method) {
    struct http_call_request request = ask(method);
    call(&request, &got);
}

static void check_fine(int status, const char *body, bool reused) {
    if (got.start != 0 || got.read != 0 || got.status != status)
        fail_msg("start %d, read %d, status %d instead of %d", got.start, got.read, got.status, status);
    assert_int_equal(got.failure, HTTP_FINE);
    assert_int_equal(got.reused, reused);
    assert_int_equal(got.body_len, strlen(body));
    assert_memory_equal(got.body, body, got.body_len);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define SIZED(length) OK_HEAD "Content-Length: " length "\r\n\r\n"
#define CHUNKS OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* --- requests and answers ---------------------------------------------------------------------------- */

static void script_simple(void) {
    worker_accept();
    assert_true(worker_request());
    assert_true(str_starts(str_from(request_head_text), STR("POST /x HTTP/1.1\r\nhost: 127.0.0.1:")));
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
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" SIZED("11") "hello world",
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

#define HUGE_BODY (24 << 20)
static char *huge;
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
    static const char *const broken[] = {SIZED("10") "abc", CHUNKS "3\r\nabc\r\n", OK_HEAD "X: ",
                                         SIZED("10") "abc"};
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

/* --- a caller that is slow: at most so much is held --------------------------------------------------------- */

#define STREAM (6 << 20)

static char stream_byte(size_t at) { return (char)(at * 7 + (at >> 10)); }

static void script_fast(void) {
    static char block[50000];
    char head[16];
    worker_accept();
    assert_true(worker_request());
    worker_say(CHUNKS);
    for (size_t at = 0; at < STREAM;) {
        size_t size = 1 + (at * 31) % (sizeof block - 1);
        size = size < STREAM - at ? size : STREAM - at;
        for (size_t i = 0; i < size; i++)
            block[i] = stream_byte(at + i);
        snprintf(head, sizeof head, "%zx\r\n", size);
        worker_say(head);
        wire_send(&worker, block, size);
        worker_say("\r\n");
        at += size;
    }
    worker_say("0\r\n\r\n");
}

static void check_piece(struct str piece, size_t at) {
    for (size_t i = 0; i < piece.len; i++)
        if (piece.ptr[i] != stream_byte(at + i))
            fail_msg("wrong byte at %zu", at + i);
}

static void body_slow_caller(void) {
    struct arena *arena = arena_new();
    struct http_call_request request = ask("GET");
    struct http_call *one;
    struct str piece;
    size_t at = 0;
    int rc;
    worker_start(script_fast);
    assert_int_equal(http_call_start(arena, peer, &request, &one), 0);
    for (int i = 0; (rc = http_call_read(one, &piece, 0)) == 1; i++) {
        if (i % 7 == 3) { /* parks elsewhere: what is lent stays while more comes in */
            struct str kept = arena_dup(arena, piece); /* the contract: a fresh piece may go now */
            (void)fiber_sleep(2);
            check_piece(kept, at);
        } else {
            check_piece(piece, at);
        }
        at += piece.len;
        assert_true(one->conn->held[0].len + one->conn->held[1].len <= 4 * HOLD_MAX);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(at, STREAM);
    assert_true(http_call_ready(one));
    http_call_finish(one);
    arena_free(arena);
    assert_int_equal(peer_here(peer)->count, 1);
    worker_end();
}

static void test_slow_caller(void **state) {
    (void)state;
    on_loops(1, body_slow_caller);
}

/* Relayed piece by piece to a client that is slower than the worker: nothing is torn, although pieces lie in the
 * read buffer that all connections share. */
struct client_end {
    struct stream stream;
    bool closed;
};

static void client_data(struct stream *stream, const char *ptr, size_t len) {
    (void)stream;
    (void)ptr;
    (void)len;
}
static void client_end_event(struct stream *stream, int error) {
    (void)stream;
    (void)error;
}
static void client_closed(struct stream *stream) {
    container_of(stream, struct client_end, stream)->closed = true;
}
static const struct stream_events client_events = {
    .data = client_data, .end = client_end_event, .closed = client_closed};

static int slow_fd;
static _Atomic size_t slow_right;

static void slow_client(void *arg) {
    (void)arg;
    static char block[30000];
    size_t at = 0;
    ssize_t count;
    while ((count = raw_read(slow_fd, block, sizeof block, 20000)) > 0) {
        check_piece(str_make(block, (size_t)count), at);
        at += (size_t)count;
        usleep(1000);
    }
    atomic_store(&slow_right, at);
}

static void body_relay(void) {
    static struct client_end client;
    struct script reader;
    struct arena *arena = arena_new();
    struct http_call_request request = ask("GET");
    struct http_call *one;
    struct str piece;
    int pair[2], rc, small = 8192;
    worker_start(script_fast);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    assert_int_equal(stream_open(&client.stream, pair[0], &client_events), 0);
    slow_fd = pair[1];
    script_start(&reader, slow_client, NULL);
    assert_int_equal(http_call_start(arena, peer, &request, &one), 0);
    while ((rc = http_call_read(one, &piece, 0)) == 1) {
        struct iovec parts[1] = {{(void *)piece.ptr, piece.len}};
        assert_int_equal(stream_write(&client.stream, parts, 1, deadline_in(20000)), 0);
    }
    assert_int_equal(rc, 0);
    http_call_finish(one);
    stream_close(&client.stream);
    await(client.closed);
    script_join(&reader);
    assert_int_equal(atomic_load(&slow_right), STREAM);
    close(slow_fd);
    arena_free(arena);
    worker_end();
}

static void test_relay_to_a_slow_client(void **state) {
    (void)state;
    on_loops(1, body_relay);
}

/* --- the pool of idle connections ----------------------------------------------------------------------------- */

static _Atomic int served;
static unsigned crowd_delay_us;
static void worker_serve_one(void *arg) {
    static const char answer[] = SIZED("1") "1";
    int fd = *(int *)arg;
    char bytes[4096];
    ssize_t count;
    while ((count = raw_read(fd, bytes, sizeof bytes, 20000)) > 0) {
        assert_memory_equal(bytes + count - 4, "\r\n\r\n", 4);
        usleep(crowd_delay_us); /* so that several calls are open at once */
        (void)send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
        atomic_fetch_add(&served, 1);
    }
    close(fd);
}

/* A thread for each connection; as many as the test says. */
static int crowd_size;
static void script_crowd(void) {
    static struct script threads[32];
    static int fds[32];
    for (int i = 0; i < crowd_size; i++) {
        fds[i] = accept4(worker_listening, NULL, NULL, SOCK_CLOEXEC);
        atomic_fetch_add(&worker_accepted, 1);
        threads[i] = (struct script){.main = worker_serve_one, .arg = &fds[i]};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, script_thread, &threads[i]), 0);
    }
    for (int i = 0; i < crowd_size; i++)
        pthread_join(threads[i].thread, NULL);
}

static int fine_calls;
static void caller_main(void *arg) {
    (void)arg;
    struct result *result = mem_alloc(sizeof *result);
    struct http_call_request request = ask("GET");
    call(&request, result);
    fine_calls += result->start == 0 && result->read == 0;
    mem_free(result);
}

static FIBER_FN void calls_together(int count) {
    struct fiber_group group;
    fiber_group_init(&group);
    fine_calls = 0;
    for (int i = 0; i < count; i++)
        fiber_group_spawn(&group, caller_main, NULL);
    assert_int_equal(fiber_group_join(&group), 0);
}

static void body_pool(void) {
    crowd_size = 10;
    crowd_delay_us = 100000;
    worker_start(script_crowd);
    calls_together(10);
    assert_int_equal(fine_calls, 10);
    assert_int_equal(atomic_load(&worker_accepted), 10);
    assert_int_equal(peer_here(peer)->count, 4); /* max_idle; the others are closed */
    await(atomic_load(&limits.open) == 4);
    struct upstream *newest = container_of(peer_here(peer)->idle.next, struct upstream, of_peer);
    struct upstream *oldest = container_of(peer_here(peer)->idle.prev, struct upstream, of_peer);
    assert_ptr_not_equal(newest, oldest);
    call_simple("GET");
    check_fine(200, "1", true);
    assert_ptr_equal(container_of(peer_here(peer)->idle.next, struct upstream, of_peer), newest);
    http_client_limits(6, 0); /* over two loops: four here */
    call_simple("GET");
    assert_int_equal(idle_here()->count, 4);
    http_client_limits(2, 0); /* two here: the oldest go, one with each that comes back */
    call_simple("GET");
    call_simple("GET");
    assert_true(idle_here()->count < 4);
    http_client_limits(4096, 0);
    worker_end();
}

static void test_idle_pool(void **state) {
    (void)state;
    on_loops(1, body_pool);
}

static void body_idle_time(void) {
    crowd_size = 2;
    worker_start(script_crowd);
    http_peer_unref(peer);
    peer_options.idle_ms = 50;
    peer = http_peer_new(&peer_options);
    call_simple("GET");
    check_fine(200, "1", false);
    call_simple("GET");
    check_fine(200, "1", true);
    await(peer_here(peer)->count == 0); /* closed after its time */
    await(atomic_load(&limits.open) == 0);
    call_simple("GET");
    check_fine(200, "1", false);
    worker_end();
}

static void test_idle_time(void **state) {
    (void)state;
    on_loops(1, body_idle_time);
}

static void body_max_open(void) {
    crowd_size = 3;
    http_client_limits(4096, 3);
    worker_start(script_crowd);
    calls_together(12); /* the others wait for a place */
    assert_int_equal(fine_calls, 12);
    assert_int_equal(atomic_load(&worker_accepted), 3);
    crowd_delay_us = 500000;
    struct fiber_group group;
    fiber_group_init(&group);
    for (int i = 0; i < 3; i++) /* all places taken for half a second */
        fiber_group_spawn(&group, caller_main, NULL);
    turns(1);
    struct http_peer *patient = peer;
    peer_options.connect_ms = 5;
    peer = http_peer_new(&peer_options);
    struct http_peer *impatient = peer;
    for (int i = 0; i < 4; i++) {
        call_simple("GET"); /* refused as what it is: no fault of the worker */
        assert_int_equal(got.failure, HTTP_NO_CONNECTION);
    }
    peer = patient;
    assert_int_equal(fiber_group_join(&group), 0);
    http_peer_unref(impatient);
    http_client_limits(4096, 0);
    worker_end();
}

static void test_max_open(void **state) {
    (void)state;
    on_loops(1, body_max_open);
}

/* --- cancelled anywhere: the memory is the caller's at once, and nothing stays behind --------------------------- */

static struct fiber *victim;
static int victim_rc, countdown;
static bool victim_over;
static struct message tick;

static void on_tick(struct message *message) {
    if (victim == NULL)
        return;
    if (countdown-- == 0)
        fiber_cancel(victim);
    else
        loop_post(loop_here(), message);
}

static void victim_main(void *arg) {
    struct arena *arena = arena_new();
    struct http_call_request *request = mem_alloc(sizeof *request);
    struct http_call *one;
    struct str piece, part = str_make(huge, 3 << 20);
    victim = fiber_self();
    *request = ask("POST");
    request->body = &part;
    request->body_parts = 1;
    victim_rc = http_call_start(arena, peer, request, &one);
    memset(request, 0xee, sizeof *request); /* not looked at any more */
    mem_free(request);
    while (victim_rc >= 0 && (victim_rc = http_call_read(one, &piece, 0)) == 1)
        if (fiber_yield() < 0)
            victim_rc = -ECANCELED;
    if (arg == NULL)
        http_call_finish(one); /* else the arena does */
    arena_free(arena);
    victim = NULL;
    victim_over = true;
}

static _Atomic bool crowd_over;
static void script_victims(void) {
    static const char answer[] = CHUNKS "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    for (;;) {
        worker_accept();
        while (worker_request()) {
            if (atomic_load(&crowd_over)) {
                wire_close(&worker);
                return;
            }
            for (size_t i = 0; i < sizeof answer - 1; i += 9) {
                size_t left = sizeof answer - 1 - i;
                if (send(worker.fd, answer + i, left < 9 ? left : 9, MSG_NOSIGNAL) < 0)
                    break;
                usleep(500);
            }
        }
        wire_close(&worker);
    }
}

static bool victim_run(int turn, void *arg) {
    countdown = turn;
    tick.run = on_tick;
    victim_over = false;
    fiber_spawn(victim_main, arg);
    (void)fiber_yield();
    loop_post(loop_here(), &tick);
    await(victim_over);
    turns(2);
    if (victim_rc != 0 && victim_rc != -ECANCELED)
        fail_msg("cancelled at turn %d: %d", turn, victim_rc);
    return victim_rc == 0;
}

static void body_cancelled(void) {
    huge = mem_zalloc(3 << 20);
    worker_start(script_victims);
    for (int turn = 0, whole = 0; whole < 6 && turn < 300; turn++)
        whole += victim_run(turn, turn % 2 ? &victim : NULL);
    atomic_store(&crowd_over, true);
    call_simple("GET");
    worker_end();
    mem_free(huge);
}

static void test_cancelled_at_every_turn(void **state) {
    (void)state;
    on_loops(1, body_cancelled);
}

static void script_gone(void) {
    worker_accept();
    assert_false(worker_request());
}

static void cancelled_main(void *arg) {
    (void)arg;
    fiber_cancel(fiber_self());
    call_simple("GET");
}

static void body_cancelled_before(void) {
    struct fiber_group group;
    worker_start(script_gone);
    fiber_group_init(&group);
    fiber_group_spawn(&group, cancelled_main, NULL);
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(got.start, -ECANCELED);
    assert_int_equal(got.failure, HTTP_CANCELLED);
    worker_end();
}

static void test_cancelled_before(void **state) {
    (void)state;
    on_loops(1, body_cancelled_before);
}

/* --- in one piece --------------------------------------------------------------------------------------------------- */

static void script_fetch(void) {
    worker_accept();
    assert_true(worker_request());
    assert_int_equal(request_body_len, 4);
    worker_say("HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing");
    assert_true(worker_request());
    worker_say(SIZED("7") "toolong");
    int how = 1;
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
}

static void body_fetch(void) {
    struct arena *arena = arena_new();
    struct http_fetch fetch = {.method = STR("POST"),
                               .target = STR("/f"),
                               .body = STR("body"),
                               .has_body = true,
                               .max_body = 7,
                               .deadline = deadline_in(20000)};
    struct str body, why = STR_NONE;
    worker_start(script_fetch);
    assert_int_equal(http_fetch(arena, peer, &fetch, &body, &why), 404);
    assert_true(str_eq(body, STR("nothing")));
    fetch.max_body = 6;
    fetch.body = STR_NONE;
    assert_int_equal(http_fetch(arena, peer, &fetch, &body, &why), -EMSGSIZE);
    assert_true(str_eq(why, STR("answer too large")));
    worker_end();
    arena_free(arena);
}

static void test_fetch(void **state) {
    (void)state;
    on_loops(1, body_fetch);
}

/* One fiber starts a call, another one reads it. */
static struct http_call *shared_call;
static struct str shared_piece;

static void other_reader(void *arg) {
    *(int *)arg = http_call_read(shared_call, &shared_piece, 0);
    if (*(int *)arg == 1)
        shared_piece = arena_dup(shared_call->arena, shared_piece);
}

static void script_other(void) {
    worker_accept();
    assert_true(worker_request());
    worker_say(SIZED("3"));
    usleep(30000);
    worker_say("abc");
}

static void starter_main(void *arg) {
    struct http_call_request request = ask("GET");
    *(int *)arg = http_call_start(arena_new(), peer, &request, &shared_call);
}

static void body_other(void) {
    struct fiber_group group;
    int rc = 1;
    worker_start(script_other);
    fiber_group_init(&group);
    fiber_group_spawn(&group, starter_main, &rc);
    assert_int_equal(fiber_group_join(&group), 0); /* the fiber that started it is gone */
    assert_int_equal(rc, 0);
    fiber_group_spawn(&group, other_reader, &rc);
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(rc, 1);
    assert_true(str_eq(shared_piece, STR("abc")));
    struct arena *arena = shared_call->arena;
    http_call_finish(shared_call);
    arena_free(arena);
    worker_end();
}

static void test_read_by_another_fiber(void **state) {
    (void)state;
    on_loops(1, body_other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_and_answers),
        cmocka_unit_test(test_every_split_position),
        cmocka_unit_test(test_interim_answers),
        cmocka_unit_test(test_reused_connections),
        cmocka_unit_test(test_early_answers),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_no_connection),
        cmocka_unit_test(test_every_address_is_tried),
        cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_slow_caller),
        cmocka_unit_test(test_relay_to_a_slow_client),
        cmocka_unit_test(test_idle_pool),
        cmocka_unit_test(test_idle_time),
        cmocka_unit_test(test_max_open),
        cmocka_unit_test(test_cancelled_at_every_turn),
        cmocka_unit_test(test_cancelled_before),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_read_by_another_fiber),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
