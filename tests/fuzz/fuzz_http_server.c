/* Any bytes through the server's real connection code, over a socket pair, cut where the first two bytes say. What
 * must hold: every byte that comes back belongs to a well-formed answer; there are never more answers than
 * heads; after a refusal nothing is served; the connection ends when the client does; and the answers do not
 * depend on the cuts. */
#include "fuzz_loop.h"

#include "base/hash.h"
#include "base/str.h"
#include "proto/http_server.h"

#define ANSWERS_MAX 8192
#define OUTPUT_MAX (4 << 20)

struct answers {
    size_t len;
    struct {
        int status;
        uint64_t body;
    } items[ANSWERS_MAX];
};

static struct http_server *server;
static size_t handled, refusals;
static bool hasty; /* handlers do not read bodies */
static bool to_head
    [ANSWERS_MAX]; /* by the order in which they were handled, which is that of the answers */

/* --- the handler ------------------------------------------------------------------------------- */

static FIBER_FN void answer_stream(struct exchange *x, struct str body) {
    exchange_begin(x, 200, NULL, UINT64_MAX);
    for (size_t at = 0; at < body.len; at += 100) {
        if (exchange_write(x, str_head(str_skip(body, at), 100)) < 0)
            return;
        (void)fiber_yield();
    }
    (void)exchange_end(x);
}

static FIBER_FN void handler(void *arg, struct exchange *x) {
    (void)arg;
    assert_always(refusals == 0 && handled < ANSWERS_MAX);
    to_head[handled++] = exchange_request(x)->method == HTTP_HEAD_METHOD;
    struct str body = STR("not read");
    struct problem problem = {0};
    if (!hasty)
        problem = exchange_body(x, DEADLINE_NEVER, &body);
    if (problem.id != PROBLEM_NONE)
        (void)exchange_problem(x, problem, NULL);
    else if (str_starts(exchange_request(x)->path, STR("/s")))
        answer_stream(x, body);
    else
        (void)exchange_respond(x, 200, NULL, body);
}

static void on_refused(void *arg, struct exchange *x, struct problem problem) {
    (void)arg;
    (void)x;
    assert_always(problem.id != PROBLEM_NONE);
    refusals++;
}

static void start(void) {
    static const struct http_server_options options = {.max_header_bytes = 8192,
                                                       .max_headers = 30,
                                                       .max_request_line = 1000,
                                                       .max_body = 100000,
                                                       .header_timeout_ms = 600000,
                                                       .idle_timeout_ms = 600000,
                                                       .body_idle_timeout_ms = 600000,
                                                       .write_timeout_ms = 600000,
                                                       .handler = handler,
                                                       .refused = on_refused};
    if (server != NULL)
        return;
    fuzz_loop_start();
    server = http_server_new(&options);
}

/* --- what came back ------------------------------------------------------------------------------ */

static char output[OUTPUT_MAX];
static size_t output_len;

static void collect(int fd) {
    ssize_t count;
    while ((count = read(fd, output + output_len, OUTPUT_MAX - output_len)) > 0)
        output_len += (size_t)count;
    assert_always(output_len < OUTPUT_MAX);
}

static struct str line_take(struct str *rest) {
    ptrdiff_t end = str_find(*rest, STR("\r\n"));
    assert_always(end >= 0);
    struct str line = str_head(*rest, (size_t)end);
    *rest = str_skip(*rest, (size_t)end + 2);
    return line;
}

static struct str chunks_take(struct str *rest) {
    static char body[OUTPUT_MAX];
    size_t len = 0, size;
    do {
        struct str line = line_take(rest);
        assert_always(line.len > 0 && line.len <= 8);
        size = 0;
        for (size_t i = 0; i < line.len; i++) {
            const char *digits = "0123456789abcdef", *digit = strchr(digits, line.ptr[i]);
            assert_always(digit != NULL);
            size = size * 16 + (size_t)(digit - digits);
        }
        assert_always(rest->len >= size + 2 && memcmp(rest->ptr + size, "\r\n", 2) == 0);
        memcpy(body + len, rest->ptr, size);
        len += size;
        *rest = str_skip(*rest, size + 2);
    } while (size > 0);
    return str_make(body, len);
}

struct framing {
    uint64_t length;
    bool chunked, sized;
};

static struct framing head_take(struct str *rest) {
    struct framing framing = {0};
    struct str line;
    while ((line = line_take(rest)).len > 0) {
        if (str_starts(line, STR("content-length: "))) {
            int rc = str_to_u64(str_skip(line, 16), &framing.length);
            assert_always(rc == 0 && !framing.sized);
            framing.sized = true;
        }
        framing.chunked = framing.chunked || str_eq(line, STR("transfer-encoding: chunked"));
    }
    assert_always(!(framing.chunked && framing.sized));
    return framing;
}

static struct str body_take(struct str *rest, const struct framing *framing) {
    if (framing->chunked)
        return chunks_take(rest);
    if (!framing->sized)
        framing = &(struct framing){.length = rest->len}; /* until the end: an answer to HTTP/1.0 */
    assert_always(rest->len >= framing->length);
    struct str body = str_head(*rest, framing->length);
    *rest = str_skip(*rest, framing->length);
    return body;
}

/* One answer off the front; all are complete, since the handlers abort nothing and the client waits. */
static void answer_take(struct str *rest, struct answers *answers) {
    struct str line = line_take(rest), body = STR("");
    assert_always(line.len >= 13 && str_starts(line, STR("HTTP/1.1 ")) && line.ptr[12] == ' ');
    int status = (line.ptr[9] - '0') * 100 + (line.ptr[10] - '0') * 10 + line.ptr[11] - '0';
    struct framing framing = head_take(rest);
    if (status == 100)
        return;
    bool bodiless = answers->len < handled && to_head[answers->len];
    if (!bodiless)
        body = body_take(rest, &framing);
    assert_always(answers->len < ANSWERS_MAX);
    answers->items[answers->len].status = status;
    answers->items[answers->len++].body = status == 200 ? hash_seeded(body.ptr, body.len, 7) : 0;
}

/* --- one input ------------------------------------------------------------------------------------- */

/* Requests take at least a blank line each. */
static size_t heads_at_most(struct str input) {
    size_t count = 0;
    ptrdiff_t at;
    while ((at = str_find(input, STR("\r\n\r\n"))) >= 0) {
        count++;
        input = str_skip(input, (size_t)at + 2);
    }
    return count;
}

static void feed(int fd, struct str input, struct cuts *cuts) {
    for (int stuck = 0; input.len > 0; stuck++) {
        assert_always(stuck < PATIENCE_TURNS);
        size_t step = cuts ? cut_next(cuts) : input.len;
        step = step < input.len ? step : input.len;
        ssize_t count = send(fd, input.ptr, step, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN)
            return; /* the server has closed */
        if (count > 0)
            stuck = 0;
        input = str_skip(input, count > 0 ? (size_t)count : 0);
        turn(QUIET_TURNS);
        collect(fd);
    }
}

static void settle(int fd) {
    size_t before;
    do {
        before = output_len;
        turn(QUIET_TURNS * 4);
        collect(fd);
    } while (output_len != before || http_server_exchanges(server) > 1);
}

static void run(struct str input, struct cuts *cuts, struct answers *answers) {
    int pair[2];
    output_len = handled = refusals = 0;
    pair_open(pair);
    http_server_accept(server, pair[0]);
    turn(1);
    feed(pair[1], input, cuts);
    settle(pair[1]);
    shutdown(pair[1], SHUT_WR);
    for (int i = 0; http_server_connections(server) > 0; i++) {
        assert_always(i < PATIENCE_TURNS); /* the client's end is the connection's end */
        turn(1);
        collect(pair[1]);
    }
    collect(pair[1]);
    close(pair[1]);
    assert_always(http_server_exchanges(server) == 0 && fiber_stats_here().alive == 0);
    assert_always(handled <= heads_at_most(input) && refusals <= 1);
    answers->len = 0;
    for (struct str rest = str_make(output, output_len); rest.len > 0;)
        answer_take(&rest, answers);
    assert_always(answers->len <= handled + refusals);
}

/* Too long and malformed as well: which is seen first may depend on the cuts, that it is refused must not. */
static int verdict(int status) { return status == 414 || status == 431 ? 400 : status; }

static void same(const struct answers *a, const struct answers *b) {
    assert_always(a->len == b->len);
    for (size_t i = 0; i < a->len; i++)
        assert_always(verdict(a->items[i].status) == verdict(b->items[i].status) &&
                      a->items[i].body == b->items[i].body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct answers whole, cut;
    if (size < 2 || size > 1 << 17)
        return 0;
    start();
    struct str input = str_make((const char *)data + 2, size - 2);
    struct cuts cuts = {data[0] * 7919u + data[1]};
    hasty = data[1] & 1;
    run(input, &cuts, &cut);
    run(input, NULL, &whole);
    if (!hasty) /* a connection goes on after an unread body only when that had all come */
        same(&whole, &cut);
    return 0;
}
