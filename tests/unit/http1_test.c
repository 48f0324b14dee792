#include "proto/http1.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "http_corpus.h"

/* --- a connection's worth of bytes, cut anywhere ----------------------------------------------- */

static const struct http1_limits limits = {
    .head_bytes = 65536, .header_count = 100, .line_bytes = 8192};

/* What came out; must not depend on the cuts. */
struct outcome {
    size_t requests; /* complete ones */
    size_t heads;
    enum problem_id fault;
    bool close; /* the last message ends the connection */
    uint64_t digest;
    uint64_t body_bytes;
};

struct session {
    struct outcome out;
    struct arena *arena;
    struct http1 parser;
    struct http1_head head;
    const struct http1_limits *limits;
    bool in_message, in_body;
};

static void digest_bytes(struct session *session, struct str bytes) {
    for (size_t i = 0; i < bytes.len; i++)
        session->out.digest = (session->out.digest ^ (unsigned char)bytes.ptr[i]) * 1099511628211u;
}

static void digest_head(struct session *session) {
    const struct http1_head *head = &session->head;
    session->out.heads++;
    digest_bytes(session, str_make(head->bytes + head->method_at, head->method_len));
    digest_bytes(session, str_make(head->bytes + head->url_at, head->url_len));
    for (size_t i = 0; i < head->count; i++) {
        digest_bytes(session, head->fields[i].name);
        digest_bytes(session, STR(":"));
        digest_bytes(session, head->fields[i].value);
        digest_bytes(session, STR("\n"));
    }
}

static void session_stop(struct session *session, enum problem_id fault) {
    session->out.fault = fault;
    session->out.close = true;
}

static void message_end(struct session *session) {
    session->out.requests++;
    session->in_message = session->in_body = false;
    if (!http1_keep_alive(&session->parser))
        session->out.close = true;
}

static size_t feed_once(struct session *session, char *ptr, size_t len) {
    size_t used;
    enum http1_progress progress = http1_feed(&session->parser, ptr, len, &used);
    assert_true(used <= len);
    if (progress == HTTP1_FAULT) {
        assert_int_not_equal(session->head.fault, PROBLEM_NONE);
        session_stop(session, session->head.fault);
    }
    if (session->in_body) {
        const struct http1 *parser = &session->parser;
        assert_true(parser->body_len == 0 ||
                    (parser->body >= ptr && parser->body + parser->body_len <= ptr + len));
        digest_bytes(session, str_make(parser->body, parser->body_len));
        session->out.body_bytes += parser->body_len;
    }
    if (progress == HTTP1_MORE)
        assert_int_equal(used, len);
    if (progress == HTTP1_COMPLETE)
        message_end(session);
    if (progress == HTTP1_HEAD) {
        session->in_body = true;
        digest_head(session);
        enum problem_id problem = http1_request_check(&session->parser);
        if (problem != PROBLEM_NONE)
            session_stop(session, problem);
    }
    return used;
}

static void message_begin(struct session *session) {
    http1_head_init(&session->head, session->arena, session->limits);
    http1_begin(&session->parser, &session->head);
    session->in_message = true;
}

/* Blank lines between messages are skipped. */
static size_t blank_lead(const struct session *session, const char *ptr, size_t len) {
    size_t count = 0;
    while (!session->in_message && count < len && (ptr[count] == '\r' || ptr[count] == '\n'))
        count++;
    return count;
}

/* As the server's connection does it. */
static void feed_piece(struct session *session, char *ptr, size_t len) {
    while (!session->out.close) {
        size_t blank = blank_lead(session, ptr, len);
        ptr += blank;
        len -= blank;
        if (len == 0 && !session->in_body)
            return;
        if (!session->in_message)
            message_begin(session);
        size_t used = feed_once(session, ptr, len);
        ptr += used;
        len -= used;
        if (len == 0 && (!session->in_body || used > 0 || session->out.close)) {
            if (session->in_body && !session->out.close)
                (void)feed_once(session, ptr, 0); /* the end of a body of no bytes */
            return;
        }
    }
}

/* A piece in a block of its own size: reads past it are seen. */
static void feed_copy(struct session *session, struct str piece) {
    char *copy = mem_alloc(piece.len + 1);
    if (piece.len > 0)
        memcpy(copy + 1, piece.ptr, piece.len);
    feed_piece(session, copy + 1, piece.len);
    mem_free(copy);
}

static struct session session_new(const struct http1_limits *with) {
    struct session session = {.arena = arena_new(), .limits = with};
    session.out.digest = 14695981039346656037u;
    return session;
}

static struct outcome run(struct str raw, size_t cut, size_t step) {
    struct session session = session_new(&limits);
    http1_init(&session.parser, HTTP_REQUEST);
    feed_copy(&session, str_head(raw, cut));
    for (size_t at = cut; at < raw.len; at += step)
        feed_copy(&session, str_head(str_skip(raw, at), step));
    arena_free(session.arena);
    return session.out;
}

static void same(struct str name, size_t cut, struct outcome a, struct outcome b) {
    if (a.requests != b.requests || a.heads != b.heads || a.fault != b.fault ||
        a.close != b.close || a.digest != b.digest)
        fail_msg("%.*s: cut at %zu gives %zu requests, fault %d, close %d instead of %zu, %d, %d",
                 STR_ARG(name), cut, b.requests, b.fault, b.close, a.requests, a.fault, a.close);
}

/* Whole, cut in two at every place (of long ones at some), and byte by byte. */
static struct outcome every_split(struct str name, struct str raw) {
    struct outcome whole = run(raw, raw.len, 1);
    size_t step = raw.len / 700 + 1;
    for (size_t cut = 0; cut <= raw.len; cut += step)
        same(name, cut, whole, run(raw, cut, raw.len + 1));
    same(name, 1, whole, run(raw, 0, 1));
    same(name, 3, whole, run(raw, 0, 3));
    return whole;
}

/* --- our own set ------------------------------------------------------------------------------- */

struct sample {
    const char *name, *raw;
    size_t requests; /* complete, before the fault if there is one */
    enum problem_id fault;
    bool close;
};

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST /x HTTP/1.1\r\nHost: a\r\n"

static const struct sample samples[] = {
    {"plain", GET "\r\n", 1, 0, 0},
    {"three in a row", GET "\r\n" POST "Content-Length: 3\r\n\r\nabc" GET "\r\n", 3, 0, 0},
    {"blank lines between", "\r\n\r\n" GET "\r\n\r\n\n" GET "\r\n", 2, 0, 0},
    {"close", GET "Connection: close\r\n\r\n" GET "\r\n", 1, 0, 1},
    {"close in a list", GET "Connection: te, Close\r\n\r\n" GET "\r\n", 1, 0, 1},
    {"1.0", "GET / HTTP/1.0\r\n\r\n", 1, 0, 1},
    {"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" GET "\r\n", 2, 0, 0},
    {"chunked", POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" GET "\r\n", 2, 0, 0},
    {"chunks",
     POST
     "Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n002;x=y\r\nbc\r\nA\r\n0123456789\r\n0\r\n\r\n",
     1, 0, 0},
    {"trailers",
     POST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: v\r\nY: \r\n\r\n" GET "\r\n", 2, 0,
     0},
    {"empty body", POST "Content-Length: 0\r\n\r\n" GET "\r\n", 2, 0, 0},
    {"empty values", GET "A:\r\nB: \r\nC:\t \r\n\r\n", 1, 0, 0},
    {"blanks around values", GET "A: \t x y \t\r\n\r\n", 1, 0, 0},
    {"absolute target", "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", 1, 0, 0},
    {"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1, 0, 0},
    {"upgrade ignored", GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" GET "\r\n", 2, 0,
     0},
    {"upgrade with a body",
     POST "Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab" GET "\r\n", 2, 0, 0},
    {"incomplete head", GET "X: y", 0, 0, 0},
    {"incomplete body", POST "Content-Length: 10\r\n\r\nabc", 0, 0, 0},

    {"no host", "GET / HTTP/1.1\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"two hosts", GET "Host: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"both lengths", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"both lengths turned", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
     0, PROBLEM_BAD_REQUEST, 1},
    {"lengths twice", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"length list", POST "Content-Length: 3, 3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"signed length", POST "Content-Length: +3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"negative length", POST "Content-Length: -3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"hex length", POST "Content-Length: 0x3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"no length", POST "Content-Length:\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"length overflow", POST "Content-Length: 18446744073709551616\r\n\r\n", 0, PROBLEM_BAD_REQUEST,
     1},
    {"blank before colon", POST "Content-Length : 3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"te twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     0, PROBLEM_BAD_REQUEST, 1},
    {"te list", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, PROBLEM_BAD_REQUEST,
     1},
    {"te other", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"te tab",
     POST "Transfer-Encoding:\x0b"
          "chunked\r\n\r\n0\r\n\r\n",
     0, PROBLEM_BAD_REQUEST, 1},
    {"te in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk size sign", POST "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk size hex", POST "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk size blank", POST "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk size none", POST "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk too short", POST "Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk too long", POST "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk overflow", POST "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"chunk bare lf", POST "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 0,
     PROBLEM_BAD_REQUEST, 1},
    {"bare lf in the head", "GET / HTTP/1.1\nHost: a\n\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"bare cr in a value", GET "X: a\rb\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"folded", GET "X: a\r\n b\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"folded length", POST "Content-Length:\r\n 3\r\n\r\nabc", 0, PROBLEM_BAD_REQUEST, 1},
    {"no name", GET ": x\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"no colon", GET "x\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"first line blank", GET " X: y\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"two spaces behind", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"asterisk of get", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"relative target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"connect", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"0.9", "GET /\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"version 0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"tls", "\x16\x03\x01\x02", 0, PROBLEM_BAD_REQUEST, 1},
    {"answer", "HTTP/1.1 200 OK\r\n\r\n", 0, PROBLEM_BAD_REQUEST, 1},
    {"fault in the second", GET "\r\n" GET "X y\r\n\r\n" GET "\r\n", 1, PROBLEM_BAD_REQUEST, 1},
};

static void test_own_samples(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *sample = &samples[i];
        struct outcome got = every_split(str_from(sample->name), str_from(sample->raw));
        if (got.requests != sample->requests || got.fault != sample->fault ||
            got.close != sample->close)
            fail_msg("%s: %zu requests, fault %d, close %d", sample->name, got.requests, got.fault,
                     got.close);
    }
}

/* Bytes that no head may hold, one after the other at four places. */
static void test_control_bytes(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        char raw[] = "GET /a HTTP/1.1\r\nHost: a\r\nName: value\r\n\r\n";
        char *places[] = {strstr(raw, "a HTTP"), strstr(raw, "ame:"), strstr(raw, "alue")};
        for (int i = 0; i < 3; i++) {
            char kept = *places[i];
            *places[i] = (char)c;
            struct outcome got = run(str_make(raw, sizeof raw - 1), sizeof raw - 1, 1);
            bool control = c < 0x20 || c == 0x7f;
            if (control && !(i == 2 && c == '\t'))
                assert_int_not_equal(got.fault, PROBLEM_NONE);
            if (i == 0 && (c >= 0x80 || c == '#' || c == ' '))
                assert_int_not_equal(got.fault, PROBLEM_NONE);
            if (i == 2 && (c >= 0x80 || c == '\t'))
                assert_int_equal(got.requests, 1);
            *places[i] = kept;
        }
    }
}

/* --- the shared corpus ------------------------------------------------------------------------- */

static void check_case(const struct corpus_case *one, struct outcome got) {
    bool refused = got.fault != PROBLEM_NONE;
    switch (one->expect) {
    case CORPUS_ACCEPT:
        if (one->may_be_refused && refused)
            return;
        if (refused || got.requests != one->requests)
            fail_msg("%.*s: %zu requests, fault %d", STR_ARG(one->name), got.requests, got.fault);
        break;
    case CORPUS_REFUSE:
        if (!refused && !one->may_be_accepted)
            fail_msg("%.*s: accepted", STR_ARG(one->name));
        break;
    case CORPUS_CLOSE:
        if (one->truncated ? got.requests > 0 : !got.close)
            fail_msg("%.*s: %zu requests, not closed", STR_ARG(one->name), got.requests);
        break;
    }
}

static void test_shared_corpus(void **state) {
    (void)state;
    struct corpus corpus = {0};
    if (!corpus_load(&corpus)) {
        print_message("the shared corpus is not here\n");
        skip();
    }
    assert_true(corpus.len >= 160);
    for (size_t i = 0; i < corpus.len; i++)
        check_case(&corpus.cases[i], every_split(corpus.cases[i].name, corpus.cases[i].raw));
    arena_free(corpus.arena);
}

/* --- limits ------------------------------------------------------------------------------------ */

static struct outcome run_limited(struct str raw, struct http1_limits with, size_t step) {
    struct session session = session_new(&with);
    http1_init(&session.parser, HTTP_REQUEST);
    for (size_t at = 0; at < raw.len; at += step)
        feed_copy(&session, str_head(str_skip(raw, at), step));
    arena_free(session.arena);
    return session.out;
}

static void test_limits_to_the_byte(void **state) {
    (void)state;
    static const size_t steps[] = {1, 7, 100000};
    struct str raw = STR(POST "A: 1\r\nB: 2\r\nContent-Length: 5\r\n\r\nabcde");
    size_t head = raw.len - 5;
    for (size_t i = 0; i < 3; i++) {
        struct http1_limits with = {.head_bytes = head, .header_count = 4, .line_bytes = 2};
        assert_int_equal(run_limited(raw, with, steps[i]).requests, 1);
        with.head_bytes--;
        assert_int_equal(run_limited(raw, with, steps[i]).fault, PROBLEM_HEADERS_TOO_LARGE);
        with.head_bytes++;
        with.header_count--;
        assert_int_equal(run_limited(raw, with, steps[i]).fault, PROBLEM_HEADERS_TOO_LARGE);
        with.header_count++;
        with.line_bytes--;
        assert_int_equal(run_limited(raw, with, steps[i]).fault, PROBLEM_URI_TOO_LONG);
    }
}

/* A head without end takes no more memory than the limit allows, nor do trailers. */
static void endless(struct str start, struct str more, enum problem_id fault) {
    struct session session = session_new(&limits);
    http1_init(&session.parser, HTTP_REQUEST);
    feed_copy(&session, start);
    size_t fed = 0;
    while (!session.out.close && fed < 10 << 20) {
        feed_copy(&session, more);
        fed += more.len;
    }
    assert_int_equal(session.out.fault, fault);
    assert_true(arena_footprint(session.arena) < 6 * limits.head_bytes);
    arena_free(session.arena);
}

static void test_endless_heads(void **state) {
    (void)state;
    char name[1000], value[1003], field[1004];
    memset(name, 'n', sizeof name);
    memset(value, 'v', sizeof value);
    memset(field, 'f', sizeof field);
    memcpy(field + 500, ": ", 2);
    memcpy(field + sizeof field - 2, "\r\n", 2);
    endless(STR("GET /"), str_make(name, sizeof name), PROBLEM_URI_TOO_LONG);
    endless(STR(GET), str_make(name, sizeof name), PROBLEM_HEADERS_TOO_LARGE);
    endless(STR(GET "a: "), str_make(value, sizeof value), PROBLEM_HEADERS_TOO_LARGE);
    endless(STR(GET), str_make(field, sizeof field), PROBLEM_HEADERS_TOO_LARGE);
    endless(STR(POST "Transfer-Encoding: chunked\r\n\r\n0\r\n"), str_make(field, sizeof field),
            PROBLEM_HEADERS_TOO_LARGE);
    endless(STR(POST "Transfer-Encoding: chunked\r\n\r\n0\r\na: "), str_make(value, sizeof value),
            PROBLEM_HEADERS_TOO_LARGE);
}

static void test_what_the_head_says(void **state) {
    (void)state;
    struct session session = session_new(&limits);
    http1_init(&session.parser, HTTP_REQUEST);
    feed_copy(&session,
              STR("PATCH /p?q=%20 HTTP/1.1\r\nHOST: h:1\r\nX-Mixed-Case:  a b\t \r\nEmpty:\r\n"
                  "Content-LENGTH: 3\r\n\r\nab"));
    const struct http1_head *head = &session.head;
    assert_true(session.in_body);
    assert_int_equal(head->count, 4);
    assert_true(str_eq(head->fields[0].name, STR("host")));
    assert_true(str_eq(head->fields[1].name, STR("x-mixed-case")));
    assert_true(str_eq(head->fields[1].value, STR("a b")));
    assert_true(str_eq(head->fields[2].value, STR("")));
    assert_true(str_eq(head->fields[3].name, STR("content-length")));
    assert_true(str_eq(str_make(head->bytes + head->url_at, head->url_len), STR("/p?q=%20")));
    assert_int_equal(session.parser.ll.content_length, 1); /* of which two have come */
    assert_int_equal(session.out.body_bytes, 2);
    assert_int_equal(http1_end(&session.parser), HTTP1_FAULT);
    arena_free(session.arena);
}

/* --- answers ----------------------------------------------------------------------------------- */

enum answer_end { OPEN, ENDED, BROKEN };

struct answer_sample {
    const char *raw;
    bool no_body;        /* to a HEAD request */
    enum answer_end end; /* OPEN: needs the connection's end */
    enum http1_progress at_end;
    const char *body;
    bool keep_alive;
};

static const struct answer_sample answers[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 0, ENDED, 0, "ab", 1},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, ENDED, 0, "", 1},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 0, ENDED, 0, "", 1},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 0, ENDED, 0, "ab", 0},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", 0, ENDED, 0, "ab", 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nT: x\r\n\r\n",
     0, ENDED, 0, "abc", 1},
    {"HTTP/1.1 200 OK\r\n\r\nabc", 0, OPEN, HTTP1_COMPLETE, "abc", 0},
    {"HTTP/1.1 200 OK\r\n\r\n", 0, OPEN, HTTP1_COMPLETE, "", 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 0, OPEN, HTTP1_FAULT, "abc", 1},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0, OPEN, HTTP1_FAULT,
     "abc", 1},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", 0, OPEN, HTTP1_FAULT,
     "abc", 1},
    {"HTTP/1.1 204 No Content\r\n\r\n", 1, ENDED, 0, "", 1},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 1, ENDED, 0, "", 1},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 1, ENDED, 0, "", 1},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 1, ENDED, 0, "", 1},
    {"HTTP/1.1 200 OK\r\n\r\n", 1, ENDED, 0, "", 1},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0,
     BROKEN, 0, "", 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 20 OK\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 2000 OK\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 200 OK\r\nX y\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 200 OK\r\nX: a\x01\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 0, BROKEN, 0, "", 0},
    {"GET / HTTP/1.1\r\n\r\n", 0, BROKEN, 0, "", 0},
    {"hello", 0, BROKEN, 0, "", 0},
};

struct answer_run {
    struct http1 parser;
    struct http1_head head;
    char body[64];
    size_t body_len;
    bool in_body;
    enum answer_end end;
};

static void answer_feed(struct answer_run *run, char *ptr, size_t len, bool no_body) {
    size_t used;
    enum http1_progress progress = HTTP1_MORE;
    if (!run->in_body && len > 0) {
        progress = http1_feed(&run->parser, ptr, len, &used);
        ptr += used;
        len -= used;
        run->in_body = progress == HTTP1_HEAD;
        if (run->in_body && no_body)
            http1_no_body(&run->parser);
    }
    if (run->in_body && progress != HTTP1_FAULT) {
        progress = http1_feed(&run->parser, ptr, len, &used);
        assert_true(run->body_len + run->parser.body_len < sizeof run->body);
        if (run->parser.body_len > 0)
            memcpy(run->body + run->body_len, run->parser.body, run->parser.body_len);
        run->body_len += run->parser.body_len;
    }
    if (progress == HTTP1_COMPLETE)
        run->end = ENDED;
    else if (progress == HTTP1_FAULT)
        run->end = BROKEN;
}

static void check_answer(const struct answer_sample *sample, size_t cut) {
    struct arena *arena = arena_new();
    struct answer_run run = {.end = OPEN};
    size_t len = strlen(sample->raw);
    char *copy = mem_strdup(sample->raw);
    http1_init(&run.parser, HTTP_RESPONSE);
    http1_head_init(&run.head, arena, &limits);
    http1_begin(&run.parser, &run.head);
    answer_feed(&run, copy, cut, sample->no_body);
    if (run.end == OPEN && cut < len)
        answer_feed(&run, copy + cut, len - cut, sample->no_body);
    if (run.end != sample->end ||
        (run.end != BROKEN && (run.body_len != strlen(sample->body) ||
                               memcmp(run.body, sample->body, run.body_len) != 0)))
        fail_msg("%s, cut at %zu: end %d, %zu bytes", sample->raw, cut, run.end, run.body_len);
    if (run.end == ENDED)
        assert_int_equal(http1_keep_alive(&run.parser), sample->keep_alive);
    if (run.end == OPEN)
        assert_int_equal(http1_end(&run.parser), sample->at_end);
    mem_free(copy);
    arena_free(arena);
}

static void test_answers_at_every_split(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        for (size_t cut = 0; cut <= strlen(answers[i].raw); cut++)
            check_answer(&answers[i], cut);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_samples),
        cmocka_unit_test(test_control_bytes),
        cmocka_unit_test(test_shared_corpus),
        cmocka_unit_test(test_limits_to_the_byte),
        cmocka_unit_test(test_endless_heads),
        cmocka_unit_test(test_what_the_head_says),
        cmocka_unit_test(test_answers_at_every_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
