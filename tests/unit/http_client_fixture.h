/* A worker made of plain sockets that follows a script, and calls to it in short. Include it after the .c files under
 * test. */
#pragma once

#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "loop_fixture.h"

#include "http_fixture.h"

/* --- a worker made of plain sockets: one thread, one script a test -------------------------------- */

static struct wire worker;
static int worker_listening;
static uint16_t worker_port;
static _Atomic int worker_accepted;

static inline void worker_accept(void) {
    int fd = accept4(worker_listening, NULL, NULL, SOCK_CLOEXEC), on = 1;
    assert_true(fd >= 0);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    wire_open(&worker, fd);
    atomic_fetch_add(&worker_accepted, 1);
}

/* One request with its body; false when the connection ended. Of a body the first bytes are kept. */
static char request_head_text[8192], request_body[64];
static size_t request_body_len;

static inline bool worker_body(size_t length) {
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

static inline bool worker_request(void) {
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

static inline void worker_say(const char *text) { wire_text(&worker, text); }

static struct http_peer *peer;
static struct http_peer_options peer_options;

static void (*worker_script)(void);
static inline void worker_thread(void *arg) {
    (void)arg;
    worker_script();
}

static struct script worker_running;

static inline void worker_start(void (*script)(void)) {
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
static inline void worker_end(void) {
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

static inline struct http_call_request ask(const char *method) {
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

static inline FIBER_FN void call(const struct http_call_request *request, struct result *result) {
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

static inline FIBER_FN void call_simple(const char *method) {
    struct http_call_request request = ask(method);
    call(&request, &got);
}

static inline void check_fine(int status, const char *body, bool reused) {
    if (got.start != 0 || got.read != 0 || got.status != status)
        fail_msg("start %d, read %d, status %d instead of %d", got.start, got.read, got.status,
                 status);
    assert_int_equal(got.failure, HTTP_FINE);
    assert_int_equal(got.reused, reused);
    assert_int_equal(got.body_len, strlen(body));
    assert_memory_equal(got.body, body, got.body_len);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define SIZED(length) OK_HEAD "Content-Length: " length "\r\n\r\n"
#define CHUNKS OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* A body that no socket buffer takes at once. */
#define HUGE_BODY (24 << 20)
static char *huge;
