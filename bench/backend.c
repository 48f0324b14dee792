/* The fast backend behind every proxy of the benchmark: canned answers over HTTP/1.1 keep-alive.
 *
 * POST /v1/chat/completions gets one fixed completion, or with "stream":true a chunked event
 * stream: one event at once with the head, the others one every interval, then [DONE]. All streams
 * share the interval, so those that wait for their turn form a queue sorted by time. The events of
 * a stream carry the time they were sent at (16 hex digits in the id), from which the load
 * generator tells how long each was under way.
 *
 * One thread, level-triggered epoll. Requests with a chunked body are refused: no proxy here makes
 * one of a request with Content-Length. */
#define _GNU_SOURCE
#include "http.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_MAX = 262144, QUEUE_MAX = 65536 };

struct conn {
    bool open;
    uint32_t in_len;
    uint32_t generation;
    uint32_t events_left; /* of the stream in progress, [DONE] not counted */
    bool streaming;
    uint32_t out_off, out_len;
    char out[1024]; /* what the peer has not taken yet */
};

struct turn {
    uint64_t due;
    int fd;
    uint32_t generation;
};

#define JSON_HEAD(status)                                                                          \
    "HTTP/1.1 " status "\r\nServer: bench\r\nContent-Type: application/json\r\n"                   \
    "Content-Length: %zu\r\n\r\n%s"

static const char stream_head[] = "HTTP/1.1 200 OK\r\nServer: bench\r\n"
                                  "Content-Type: text/event-stream; charset=utf-8\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char event_form[] =
    "data: {\"id\":\"chatcmpl-0000000000000000\",\"object\":\"chat.completion.chunk\","
    "\"created\":1754000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":"
    "{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
static const char stream_end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
enum { STAMP_AT = sizeof "data: {\"id\":\"chatcmpl-" - 1, STAMP_LEN = 16 };

static const struct {
    const char *path, *body;
} canned[] = {
    {"/v1/chat/completions",
     "{\"id\":\"chatcmpl-7f3a9c52e1d84b06\",\"object\":\"chat.completion\",\"created\":1754000000,"
     "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
     "\"content\":"
     "\"A reverse proxy stands between clients and servers: it takes each request, chooses a "
     "server for it, passes the request on and hands the answer back. What it costs is mostly "
     "system calls, copies and cache misses, so a fair measure of a proxy is the processor time "
     "that it spends on one request over what a program needs that only copies bytes.\","
     "\"reasoning_content\":null,\"tool_calls\":null},\"logprobs\":null,\"finish_reason\":\"stop\","
     "\"matched_stop\":151645}],\"usage\":{\"prompt_tokens\":912,\"total_tokens\":984,"
     "\"completion_tokens\":72,\"prompt_tokens_details\":null}}"},
    {"/health", "{}"},
    {"/health_generate", "{}"},
    {"/v1/models", "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\","
                   "\"created\":1754000000,\"owned_by\":\"sglang\",\"root\":\"bench\","
                   "\"max_model_len\":32768}]}"},
    {"/server_info", "{\"model_path\":\"bench\",\"served_model_name\":\"bench\",\"tp_size\":1,"
                     "\"dp_size\":1,\"version\":\"0.5.0\",\"max_total_num_tokens\":1000000}"},
    {"/get_server_info", "{\"model_path\":\"bench\",\"served_model_name\":\"bench\",\"tp_size\":1,"
                         "\"dp_size\":1,\"version\":\"0.5.0\",\"max_total_num_tokens\":1000000}"},
    {"/model_info",
     "{\"model_path\":\"bench\",\"tokenizer_path\":\"bench\",\"is_generation\":true}"},
    {"/get_model_info",
     "{\"model_path\":\"bench\",\"tokenizer_path\":\"bench\",\"is_generation\":true}"},
    {"/get_load",
     "[{\"dp_rank\":0,\"num_reqs\":0,\"num_waiting_reqs\":0,\"num_tokens\":0,\"ts_tic\":0}]"},
    {"/v1/loads", "{\"timestamp\":\"2025-08-01T00:00:00Z\",\"dp_rank_count\":1,\"loads\":[{"
                  "\"dp_rank\":0,\"num_running_reqs\":0,\"num_waiting_reqs\":0,"
                  "\"num_total_reqs\":0,\"num_used_tokens\":0,\"max_total_num_tokens\":1000000,"
                  "\"token_usage\":0.0}],\"aggregate\":{\"total_running_reqs\":0,"
                  "\"total_waiting_reqs\":0,\"total_reqs\":0,\"total_tokens\":0}}"},
};
enum { CANNED = sizeof canned / sizeof canned[0] };

static char answers[CANNED + 1][1536];
static size_t answer_len[CANNED + 1];
static char event_chunk[512];
static size_t event_chunk_len, stamp_at;

static struct conn *conns;
static char *inputs;
static struct turn turns[QUEUE_MAX];
static uint32_t turn_head, turn_tail;
static uint64_t chunks = 200, interval_us = 5000;
static int ep;

static void answers_build(void) {
    const char *missing = "{\"error\":\"not found\"}";

    for (int i = 0; i < CANNED; i++)
        answer_len[i] = (size_t)snprintf(answers[i], sizeof answers[i], JSON_HEAD("200 OK"),
                                         strlen(canned[i].body), canned[i].body);
    answer_len[CANNED] = (size_t)snprintf(answers[CANNED], sizeof answers[CANNED],
                                          JSON_HEAD("404 Not Found"), strlen(missing), missing);
    event_chunk_len = (size_t)snprintf(event_chunk, sizeof event_chunk, "%zx\r\n%s\r\n",
                                       sizeof event_form - 1, event_form);
    stamp_at = event_chunk_len - 2 - (sizeof event_form - 1) + STAMP_AT;
}

static void stamp_event(void) {
    uint64_t now = clock_ns();

    for (int i = STAMP_LEN - 1; i >= 0; i--, now >>= 4)
        event_chunk[stamp_at + (size_t)i] = "0123456789abcdef"[now & 15];
}

static void conn_close(int fd) {
    struct conn *c = &conns[fd];

    close(fd);
    c->open = c->streaming = false;
    c->in_len = c->out_len = 0;
    c->generation++;
}

/* Sends, and keeps what the peer does not take; a peer that is further behind than `out` holds
 * has broken the closed loop and is dropped. Returns whether the connection lives. */
static bool conn_send(int fd, const char *p, size_t n) {
    struct conn *c = &conns[fd];
    ssize_t sent = c->out_len ? 0 : send(fd, p, n, MSG_NOSIGNAL);

    if (sent == (ssize_t)n)
        return true;
    if (sent < 0 && errno == EAGAIN)
        sent = 0;
    n -= sent < 0 ? 0 : (size_t)sent;
    if (sent < 0 || c->out_len + n > sizeof c->out) {
        conn_close(fd);
        return false;
    }
    if (!c->out_len)
        poll_ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT, (uint32_t)fd);
    memcpy(c->out + c->out_len, p + sent, n);
    c->out_len += (uint32_t)n;
    return true;
}

static void conn_flush(int fd) {
    struct conn *c = &conns[fd];
    ssize_t sent = send(fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN) {
        conn_close(fd);
        return;
    }
    c->out_off += sent < 0 ? 0 : (uint32_t)sent;
    if (c->out_off < c->out_len)
        return;
    c->out_off = c->out_len = 0;
    poll_ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, (uint32_t)fd);
}

/* The next turn follows from when this one was due, not from when it came: so a late batch does
 * not tie its streams together for good. */
static void turn_queue(int fd, uint64_t from) {
    if (turn_tail - turn_head == QUEUE_MAX)
        die("more than %d streams wait", QUEUE_MAX);
    turns[turn_tail++ % QUEUE_MAX] =
        (struct turn){from + interval_us * 1000, fd, conns[fd].generation};
}

static bool stream_start(int fd) {
    char first[1024];
    size_t head = sizeof stream_head - 1;

    stamp_event();
    memcpy(first, stream_head, head);
    memcpy(first + head, event_chunk, event_chunk_len);
    if (!conn_send(fd, first, head + event_chunk_len))
        return false;
    conns[fd].streaming = true;
    conns[fd].events_left = (uint32_t)chunks - 1;
    turn_queue(fd, clock_ns());
    return true;
}

static void requests_serve(int fd);

static void stream_turn(int fd, uint64_t due) {
    struct conn *c = &conns[fd];

    if (c->out_len) { /* the peer is behind: it misses a turn, no event */
        turn_queue(fd, due);
    } else if (c->events_left) {
        c->events_left--;
        stamp_event();
        if (conn_send(fd, event_chunk, event_chunk_len))
            turn_queue(fd, due);
    } else if (conn_send(fd, stream_end, sizeof stream_end - 1)) {
        c->streaming = false;
        requests_serve(fd);
    }
}

static uint64_t turns_run(void) {
    while (turn_head != turn_tail) {
        struct turn t = turns[turn_head % QUEUE_MAX];

        if (t.due > clock_ns())
            return t.due;
        turn_head++;
        if (conns[t.fd].streaming && conns[t.fd].generation == t.generation)
            stream_turn(t.fd, t.due);
    }
    return UINT64_MAX;
}

/* Clients put "stream" last, so the end of the body is looked at first. */
static bool wants_stream(const char *body, size_t n) {
    const char *tail = n > 128 ? body + n - 128 : body;
    const char *at = memmem(tail, (size_t)(body + n - tail), "\"stream\":", 9);

    if (!at)
        at = memmem(body, n, "\"stream\":", 9);
    if (!at)
        return false;
    for (at += 9; at < body + n && *at == ' ';)
        at++;
    return body + n - at >= 4 && memcmp(at, "true", 4) == 0;
}

static int canned_find(const struct http_head *head) {
    const char *path = memchr(head->start, ' ', head->start_len);
    size_t left = path ? head->start_len - (size_t)(path - head->start) - 1 : 0;

    for (int i = 0; left && i < CANNED; i++) {
        size_t n = strlen(canned[i].path);

        if (n < left && memcmp(path + 1, canned[i].path, n) == 0 && strchr(" ?", path[1 + n]))
            return i;
    }
    return CANNED;
}

/* Answers the first request of the input. Returns its length, 0 when it is incomplete, -1 when the
 * connection is gone. */
static int64_t request_serve(int fd) {
    const char *in = inputs + (size_t)fd * IN_MAX;
    size_t have = conns[fd].in_len;
    struct http_head head;
    size_t total;
    int which;

    if (!http_head_parse(in, have, &head))
        return 0;
    total = head.len + (head.length > 0 ? (size_t)head.length : 0);
    if (head.chunked || total > IN_MAX) {
        conn_close(fd);
        return -1;
    }
    if (have < total)
        return 0;
    which = canned_find(&head);
    if (which == 0 && wants_stream(in + head.len, total - head.len))
        return stream_start(fd) ? (int64_t)total : -1;
    return conn_send(fd, answers[which], answer_len[which]) ? (int64_t)total : -1;
}

static void requests_serve(int fd) {
    struct conn *c = &conns[fd];
    char *in = inputs + (size_t)fd * IN_MAX;

    while (c->in_len && !c->streaming) {
        int64_t used = request_serve(fd);

        if (used <= 0)
            return;
        c->in_len -= (uint32_t)used;
        if (c->in_len)
            memmove(in, in + used, c->in_len);
    }
}

static void conn_read(int fd) {
    struct conn *c = &conns[fd];
    ssize_t got = recv(fd, inputs + (size_t)fd * IN_MAX + c->in_len, IN_MAX - c->in_len, 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        conn_close(fd);
        return;
    }
    c->in_len += (uint32_t)got;
    requests_serve(fd);
}

static void conns_accept(int listener) {
    int fd = accept_one(listener);

    if (fd < 0)
        return;
    conns[fd].open = true;
    poll_ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd);
}

static void serve_event(const struct epoll_event *event) {
    int fd = (int)event->data.u32;

    if (conns[fd].open && conns[fd].out_len && (event->events & EPOLLOUT))
        conn_flush(fd);
    if (conns[fd].open && (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        conn_read(fd);
}

int main(int argc, char **argv) {
    static struct epoll_event events[NET_EVENTS];
    uint64_t port = 0;
    const struct option table[] = {
        {"port", &port, NULL}, {"chunks", &chunks, NULL}, {"interval-us", &interval_us, NULL}, {0}};
    int listener;

    options_parse(argc, argv, table);
    if (!chunks)
        die("--chunks must be at least 1");
    fd_limit_raise();
    answers_build();
    conns = zero_pages(NET_MAX_FDS * sizeof *conns);
    inputs = zero_pages((size_t)NET_MAX_FDS * IN_MAX);
    ep = poll_new();
    listener = listen_on((uint16_t)port);
    poll_ctl(ep, EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t)listener);
    for (;;) {
        int n = poll_wait(ep, events, NET_EVENTS, turns_run());

        for (int i = 0; i < n; i++) {
            if ((int)events[i].data.u32 == listener)
                conns_accept(listener);
            else
                serve_event(&events[i]);
        }
    }
}
