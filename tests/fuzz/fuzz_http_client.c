/* Any bytes as a worker's answers, through the client's real connection code, over a socket pair, cut where the first
 * bytes say. What must hold: every call ends, with an answer or a failure; a body has the length that its head
 * told; there are never more answers than status lines; what broke is not used again; and the first answer
 * does not depend on the cuts. */
#include "fuzz_loop.h"

#include "base/hash.h"
#include "proto/http_client_core.h"

#define CALLS 4
#define LARGE_BODY 600000

struct outcome {
    bool fine;
    int status;
    uint64_t body, len;
};

static struct http_peer *peer;
static struct outcome outcomes[CALLS];
static size_t calls;
static bool calls_over;
static unsigned mode;

static void start(void) {
    static const struct http_peer_options options = {.host = STR_INIT("127.0.0.1"),
                                                     .port = 1,
                                                     .max_idle = 4,
                                                     .idle_ms = 600000,
                                                     .connect_ms = 5000};
    if (peer != NULL)
        return;
    fuzz_loop_start();
    peer = http_peer_new(&options);
}

/* A connection as if it had been used before. */
static void connection_give(int fd) {
    struct upstream *conn = upstream_new(peer);
    peer_opened(1);
    int rc = stream_open(&conn->stream, fd, &upstream_events);
    assert_always(rc == 0);
    stream_resume(&conn->stream);
    peer_put_idle(conn);
}

/* --- the calls ------------------------------------------------------------------------------------ */

static FIBER_FN bool read_body(struct http_call *call, struct outcome *outcome) {
    struct str piece;
    int rc;
    while ((rc = http_call_read(call, &piece, 0)) == 1) {
        assert_always(piece.len > 0);
        outcome->len += piece.len;
        for (size_t i = 0; i < piece.len; i++)
            outcome->body = (outcome->body ^ (unsigned char)piece.ptr[i]) * 1099511628211u;
        if (mode & 4)
            (void)fiber_yield(); /* a caller that is slow: bytes are held */
    }
    return rc == 0;
}

static FIBER_FN void one_call(struct outcome *outcome, bool with_body) {
    static char zeros[LARGE_BODY];
    struct arena *arena = arena_new();
    struct str body = str_make(zeros, sizeof zeros);
    bool head = mode & 2;
    struct http_call_request request = {.method = head ? STR("HEAD") : STR("POST"),
                                        .target = STR("/"),
                                        .body = &body,
                                        .body_parts = with_body ? 1 : 0,
                                        .deadline = DEADLINE_NEVER,
                                        .max_head = 4000};
    struct http_call *call;
    *outcome = (struct outcome){.body = 14695981039346656037u};
    if (http_call_start(arena, peer, &request, &call) == 0) {
        const struct http_response *response = http_call_response(call);
        assert_always(response->status >= 100 && response->status <= 999);
        outcome->status = response->status;
        outcome->fine = read_body(call, outcome);
        bool none = head || response->status == 204 || response->status == 304;
        if (outcome->fine && response->content_length != UINT64_MAX)
            assert_always(outcome->len == (none ? 0 : response->content_length));
    }
    assert_always(outcome->fine == (http_call_failure(call) == HTTP_FINE));
    http_call_finish(call);
    arena_free(arena);
}

static FIBER_FN void calls_main(void *arg) {
    (void)arg;
    for (calls = 0; calls < CALLS; calls++) {
        one_call(&outcomes[calls], calls == 0 && (mode & 1));
        if (!outcomes[calls].fine)
            break;
    }
    calls_over = true;
}

/* --- one input -------------------------------------------------------------------------------------- */

static size_t status_lines(struct str input) {
    size_t count = 0;
    ptrdiff_t at;
    while ((at = str_find(input, STR("HTTP/"))) >= 0) {
        count++;
        input = str_skip(input, (size_t)at + 1);
    }
    return count;
}

static void swallow(int fd) {
    static char sink[65536];
    while (read(fd, sink, sizeof sink) > 0)
        continue;
}

static void feed(int fd, struct str input, struct cuts *cuts) {
    while (input.len > 0 && !calls_over) {
        size_t step = cuts ? cut_next(cuts) : input.len;
        step = step < input.len ? step : input.len;
        ssize_t count = send(fd, input.ptr, step, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN)
            return;
        if (count > 0)
            input = str_skip(input, (size_t)count);
        if (mode & 8)
            swallow(fd);
        turn(QUIET_TURNS);
    }
}

static struct outcome run(struct str input, struct cuts *cuts) {
    int pair[2];
    calls_over = false;
    pair_open(pair);
    connection_give(pair[0]);
    fiber_spawn(calls_main, NULL);
    turn(1);
    feed(pair[1], input, cuts);
    turn(QUIET_TURNS);
    shutdown(pair[1], SHUT_WR);
    turn_until(calls_over);
    close(pair[1]);
    turn_until(loop_stats(loop_control())->upstream == 0);
    assert_always(fiber_stats_here().alive == 0);
    assert_always(calls <= status_lines(input));
    return outcomes[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > 1 << 17)
        return 0;
    start();
    mode = data[0];
    struct str input = str_make((const char *)data + 2, size - 2);
    struct cuts cuts = {data[0] * 7919u + data[1]};
    struct outcome cut = run(input, &cuts), whole = run(input, NULL);
    assert_always(cut.fine == whole.fine);
    if (cut.fine)
        assert_always(cut.status == whole.status && cut.body == whole.body && cut.len == whole.len);
    return 0;
}
