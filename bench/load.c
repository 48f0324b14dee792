/* The load generator: one thread, level-triggered epoll, N keep-alive connections.
 *
 *   --mode closed   each connection sends its next request when the last answer is complete
 *   --mode rate     --rate requests a second on whichever connections are free; latency counts
 *                   from the moment a request was due, so waiting is not left out
 *   --mode idle     one request on each connection, hold all open, one more on each, close
 *   --mode streams  one stream on each connection, all at the same time, to the end
 *
 * --stream 1 makes every request a streamed one. The first two modes measure a window of
 * --window-ms that begins --warmup-ms after the last connection was opened; then requests in
 * flight are finished, so that every stream is checked to its end. With --pids the processor time
 * of those processes (all threads, past ones included) is read at both ends of the window.
 *
 * The last two modes print a line {"phase":...} and, in idle mode, wait for a line on stdin, so
 * that the caller can look at the proxy's memory at that moment. The result is one JSON line. */
#define _GNU_SOURCE
#include "hist.h"
#include "http.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BODIES = 64,        /* different prompts */
    IN_FLIGHT_MAX = 32, /* while idle mode works through its connections */
    PER_SOURCE = 8000,  /* connections from one loopback address */
    PIDS_MAX = 32,
    BODY_MAX = 200000,
};

struct conn {
    int fd; /* 0 = not open */
    bool busy, has_event;
    uint32_t out_left;
    const char *out;
    uint64_t started;
    struct response response;
};

struct totals {
    uint64_t responses, events, body_bytes, cpu_ns, at;
};

static struct conn *conns;
static struct {
    char *bytes;
    size_t len;
} requests[BODIES];

static const char *mode = "closed", *pids_text = "";
static uint64_t port, connections = 1, window_ms = 3000, warmup_ms = 500, rate, stream,
                      body_bytes = 4096;
static uint64_t ramp_ms, timeout_s = 60, expect_events = 201, requests_max = UINT64_MAX;

static int ep;
static clockid_t cpu_clocks[PIDS_MAX];
static int cpu_clock_count;
static struct totals now_total, begin, end;
static struct hist latency, first_event, transit;
static uint64_t errors, bad_status, bad_length, bad_stream, reconnects, started_count;
static uint64_t reference_length;
static bool measuring, sending;
static uint64_t give_up_at;
static uint32_t busy_count, event_conns, *free_conns, free_count;
static uint64_t rate_begin, rate_issued;
static struct conn *reading;

/* ---- requests ---- */

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* Appends words until `to` bytes are reached. */
static size_t prose(char *p, size_t at, size_t to, uint32_t *state) {
    static const char *const words[] = {
        "proxy",   "request", "latency", "tokens", "the",    "of",     "prefill", "decode",
        "between", "worker",  "answers", "which",  "queue",  "memory", "breaker", "streams",
        "a",       "measure", "server",  "under",  "while",  "and",    "batch",   "schedule",
        "client",  "cache",   "prefix",  "to",     "router", "is",     "context", "bandwidth"};

    while (at < to) {
        const char *w = words[next_random(state) % 32];
        size_t n = strlen(w);

        memcpy(p + at, w, n);
        p[at + n] = ' ';
        at += n + 1;
    }
    return to;
}

/* A conversation of body_bytes: a system message that all share, then turns of their own. */
static size_t body_build(char *p, uint32_t which) {
    static const char head[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"";
    static const char *const turn[] = {"\"},{\"role\":\"user\",\"content\":\"",
                                       "\"},{\"role\":\"assistant\",\"content\":\""};
    char last[160];
    size_t tail = (size_t)snprintf(last, sizeof last,
                                   "\"}],\"model\":\"bench\",\"max_tokens\":256,"
                                   "\"temperature\":0.7,\"stream\":%s}",
                                   stream ? "true" : "false");
    size_t at = sizeof head - 1;
    uint32_t shared = 7, own = which * 2654435761u + 1;

    memcpy(p, head, at);
    at = prose(p, at, body_bytes / 4, &shared);
    for (int i = 0; at + 700 < body_bytes - tail; i++) {
        size_t n = strlen(turn[i % 2]);

        memcpy(p + at, turn[i % 2], n);
        at = prose(p, at + n, at + n + 500, &own);
    }
    at = prose(p, at, body_bytes - tail, &own);
    memcpy(p + at, last, tail);
    return at + tail;
}

static void requests_build(void) {
    static char body[BODY_MAX + 512];

    if (body_bytes < 512 || body_bytes > BODY_MAX)
        die("--body-bytes must be 512 to %d", BODY_MAX);
    for (uint32_t i = 0; i < BODIES; i++) {
        size_t n = body_build(body, i);
        char *p = zero_pages(n + 1024);
        int head = snprintf(p, 1024,
                            "POST /v1/chat/completions HTTP/1.1\r\n"
                            "Host: 127.0.0.1:%u\r\n"
                            "Accept: application/json\r\n"
                            "Accept-Encoding: identity\r\n"
                            "Connection: keep-alive\r\n"
                            "Content-Type: application/json\r\n"
                            "User-Agent: OpenAI/Python 1.99.0\r\n"
                            "Authorization: Bearer sk-bench-0123456789abcdef\r\n"
                            "X-Stainless-Lang: python\r\n"
                            "X-Stainless-Retry-Count: 0\r\n"
                            "Content-Length: %zu\r\n\r\n",
                            (unsigned)port, n);

        memcpy(p + head, body, n);
        requests[i].bytes = p;
        requests[i].len = (size_t)head + n;
    }
}

/* ---- processor time of the proxy ---- */

static void cpu_clock_open(pid_t pid) {
    if (cpu_clock_count == PIDS_MAX || clock_getcpuclockid(pid, &cpu_clocks[cpu_clock_count]))
        die("no processor clock for process %d", (int)pid);
    cpu_clock_count++;
}

/* Takes the numbers of a list such as "12,34". */
static void cpu_clocks_open(void) {
    pid_t pid = 0;

    for (const char *p = pids_text; *p; p++) {
        if (*p >= '0' && *p <= '9') {
            pid = pid * 10 + (*p - '0');
        } else {
            cpu_clock_open(pid);
            pid = 0;
        }
    }
    if (pid)
        cpu_clock_open(pid);
}

static uint64_t cpu_read(void) {
    uint64_t sum = 0;
    struct timespec ts;

    for (int i = 0; i < cpu_clock_count; i++) {
        if (clock_gettime(cpu_clocks[i], &ts))
            die("a process under test is gone");
        sum += (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    }
    return sum;
}

static void mark(struct totals *at) {
    *at = now_total;
    at->cpu_ns = cpu_read();
    at->at = clock_ns();
}

/* ---- one connection ---- */

static void conn_close(struct conn *c) {
    close(c->fd);
    c->fd = 0;
    if (c->busy)
        busy_count--;
    c->busy = false;
}

static void conn_open(struct conn *c) {
    uint32_t i = (uint32_t)(c - conns);

    c->fd = connect_from((uint16_t)port, 2 + i / PER_SOURCE);
    if (c->fd < 0)
        die_errno("connection %u to port %u", i, (unsigned)port);
    poll_ctl(ep, EPOLL_CTL_ADD, c->fd, EPOLLIN, i);
}

/* Sends what is left of the request; waits for room only when it does not fit at once. */
static bool conn_push(struct conn *c, bool waiting) {
    ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN)
        return false;
    if (sent > 0) {
        c->out += sent;
        c->out_left -= (uint32_t)sent;
    }
    if (waiting != (c->out_left > 0))
        poll_ctl(ep, EPOLL_CTL_MOD, c->fd, EPOLLIN | (c->out_left ? EPOLLOUT : 0u),
                 (uint32_t)(c - conns));
    return true;
}

static void conn_lost(struct conn *c);

static void conn_request(struct conn *c, uint64_t due) {
    uint32_t which = (uint32_t)(started_count++ % BODIES);

    if (!c->fd)
        conn_open(c);
    memset(&c->response, 0, offsetof(struct response, head));
    c->out = requests[which].bytes;
    c->out_left = (uint32_t)requests[which].len;
    c->started = due ? due : clock_ns();
    c->busy = true;
    c->has_event = false;
    busy_count++;
    if (!conn_push(c, false))
        conn_lost(c);
}

/* What a connection does when its answer is complete, by mode. */
static void conn_next(struct conn *c) {
    bool more = sending && started_count < requests_max;

    if (rate)
        free_conns[free_count++] = (uint32_t)(c - conns);
    else if (more)
        conn_request(c, 0);
}

static void conn_lost(struct conn *c) {
    bool was_busy = c->busy;

    conn_close(c);
    if (!was_busy) {
        reconnects++;
        return;
    }
    errors++;
    if (errors > 1000)
        die("more than 1000 connections broke");
    conn_next(c);
}

static void response_check(const struct response *r) {
    if (r->status != 200)
        bad_status++;
    if (!reference_length)
        reference_length = r->body;
    if (r->body != reference_length)
        bad_length++;
    if (stream && (r->events != expect_events || !response_saw_done(r)))
        bad_stream++;
}

static void response_done(struct conn *c) {
    response_check(&c->response);
    now_total.responses++;
    if (measuring)
        hist_add(&latency, clock_ns() - c->started);
    c->busy = false;
    busy_count--;
    if (c->response.close) {
        conn_close(c);
        reconnects++;
    }
    conn_next(c);
}

/* Reads the time out of an event's id; an event whose beginning came in two reads is left out. */
static void event_seen(const char *p, size_t n) {
    static const char prefix[] = "data: {\"id\":\"chatcmpl-";
    uint64_t sent = 0, now;

    if (n < sizeof prefix - 1 + 16 || memcmp(p, prefix, sizeof prefix - 1) != 0)
        return;
    for (p += sizeof prefix - 1, n = 0; n < 16; n++)
        sent = sent << 4 | (uint64_t)(p[n] <= '9' ? p[n] - '0' : p[n] - 'a' + 10);
    now = clock_ns();
    if (!reading->has_event) {
        reading->has_event = true;
        event_conns++;
        if (measuring)
            hist_add(&first_event, now - reading->started);
    }
    if (measuring)
        hist_add(&transit, now - sent);
}

static void conn_read(struct conn *c) {
    static char scratch[65536];
    ssize_t got = recv(c->fd, scratch, sizeof scratch, 0);
    uint32_t events_before = c->response.events;
    int64_t used;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        conn_lost(c);
        return;
    }
    reading = c;
    used = c->busy ? response_feed(&c->response, scratch, (size_t)got, stream ? event_seen : NULL)
                   : -1;
    now_total.events += c->response.events - events_before;
    now_total.body_bytes += (uint64_t)got;
    if (used != got)
        conn_lost(c);
    else if (c->response.state == RESPONSE_DONE)
        response_done(c);
}

static void serve(uint64_t until) {
    static struct epoll_event events[NET_EVENTS];
    int n = poll_wait(ep, events, NET_EVENTS, until);

    for (int i = 0; i < n; i++) {
        struct conn *c = &conns[events[i].data.u32];

        if (c->fd && c->out_left && (events[i].events & EPOLLOUT) && !conn_push(c, true))
            conn_lost(c);
        if (c->fd && (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
            conn_read(c);
    }
    if (clock_ns() > give_up_at)
        die("gave up after %lu s: %u requests in flight, %lu answers", (unsigned long)timeout_s,
            busy_count, (unsigned long)now_total.responses);
}

/* ---- the modes ---- */

static void rate_send(void) {
    uint64_t period = 1000000000u / rate;

    while (free_count && sending) {
        uint64_t due = rate_begin + rate_issued * period;

        if (due > clock_ns())
            return;
        rate_issued++;
        conn_request(&conns[free_conns[--free_count]], due);
    }
}

static void serve_until(uint64_t until) {
    while (clock_ns() < until && started_count < requests_max) {
        uint64_t wake = until;

        if (rate) {
            uint64_t due;

            rate_send();
            due = rate_begin + rate_issued * (1000000000u / rate);
            if (free_count && due < wake)
                wake = due;
        }
        serve(wake);
    }
}

/* Opens all connections, spread over the ramp; each starts its first request at once. */
static void ramp_up(void) {
    uint64_t begin_at = clock_ns();

    for (uint32_t i = 0; i < connections; i++) {
        uint64_t at = begin_at + ramp_ms * 1000000u * i / connections;

        while (clock_ns() < at)
            serve(at);
        conn_open(&conns[i]);
        if (rate)
            free_conns[free_count++] = i;
        else
            conn_request(&conns[i], 0);
        if (i % 16 == 15)
            serve(0);
    }
}

static void drain(void) {
    sending = false;
    while (busy_count)
        serve(give_up_at);
}

static void run_window(void) {
    sending = true;
    ramp_up();
    rate_begin = clock_ns();
    if (requests_max == UINT64_MAX)
        serve_until(clock_ns() + warmup_ms * 1000000u);
    measuring = true;
    mark(&begin);
    serve_until(clock_ns() + window_ms * 1000000u);
    if (requests_max != UINT64_MAX)
        drain();
    mark(&end);
    measuring = false;
    drain();
}

static void phase(const char *name, bool wait) {
    char line[16];

    printf("{\"phase\":\"%s\"}\n", name);
    fflush(stdout);
    if (wait && !fgets(line, sizeof line, stdin))
        die("the caller is gone");
}

/* One request on every connection, few at a time. */
static void round_of_requests(void) {
    for (uint32_t i = 0; i < connections; i++) {
        while (busy_count >= IN_FLIGHT_MAX)
            serve(give_up_at);
        conn_request(&conns[i], 0);
    }
    while (busy_count)
        serve(give_up_at);
}

static void run_idle(void) {
    mark(&begin);
    measuring = true;
    round_of_requests();
    phase("idle", true);
    serve(0); /* connections that were closed meanwhile are seen here, and not reused in silence */
    for (uint32_t i = 0; i < connections; i += NET_EVENTS)
        serve(0);
    give_up_at = clock_ns() + timeout_s * 1000000000u;
    round_of_requests();
    mark(&end);
    phase("reused", true);
    for (uint32_t i = 0; i < connections; i++)
        if (conns[i].fd)
            conn_close(&conns[i]);
    phase("closed", true);
}

static void run_streams(void) {
    mark(&begin);
    measuring = true;
    ramp_up();
    while (event_conns < connections && busy_count == connections)
        serve(give_up_at);
    phase(busy_count == connections ? "streaming" : "some ended early", false);
    while (busy_count)
        serve(give_up_at);
    mark(&end);
}

static void hist_print(const char *name, const struct hist *h) {
    printf(",\"%s\":{\"count\":%lu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,"
           "\"max_us\":%.1f}",
           name, (unsigned long)h->count, hist_us(h, 0.5), hist_us(h, 0.9), hist_us(h, 0.99),
           (double)h->max / 1000.0);
}

static void report(void) {
    double wall = (double)(end.at - begin.at) / 1e9;

    printf("{\"mode\":\"%s\",\"connections\":%lu,\"seconds\":%.4f,\"responses\":%lu,"
           "\"events\":%lu,\"wire_bytes\":%lu,\"cpu_ns\":%lu,\"responses_in_all\":%lu,"
           "\"body_bytes\":%lu,\"errors\":%lu,\"bad_status\":%lu,\"bad_length\":%lu,"
           "\"bad_stream\":%lu,\"reconnects\":%lu",
           mode, (unsigned long)connections, wall, (unsigned long)(end.responses - begin.responses),
           (unsigned long)(end.events - begin.events),
           (unsigned long)(end.body_bytes - begin.body_bytes),
           (unsigned long)(end.cpu_ns - begin.cpu_ns), (unsigned long)now_total.responses,
           (unsigned long)reference_length, (unsigned long)errors, (unsigned long)bad_status,
           (unsigned long)bad_length, (unsigned long)bad_stream, (unsigned long)reconnects);
    hist_print("latency", &latency);
    hist_print("first_event", &first_event);
    hist_print("event_transit", &transit);
    printf("}\n");
}

static void settings_read(int argc, char **argv) {
    const struct option table[] = {
        {"mode", NULL, &mode},
        {"port", &port, NULL},
        {"connections", &connections, NULL},
        {"window-ms", &window_ms, NULL},
        {"requests", &requests_max, NULL},
        {"warmup-ms", &warmup_ms, NULL},
        {"ramp-ms", &ramp_ms, NULL},
        {"rate", &rate, NULL},
        {"stream", &stream, NULL},
        {"events", &expect_events, NULL},
        {"body-bytes", &body_bytes, NULL},
        {"pids", NULL, &pids_text},
        {"timeout", &timeout_s, NULL},
        {0},
    };

    options_parse(argc, argv, table);
    if (!port || !connections || connections > NET_MAX_FDS - 64)
        die("--port, and --connections of 1 to %d, are needed", NET_MAX_FDS - 64);
    if ((strcmp(mode, "rate") == 0) != (rate > 0) || rate > 1000000)
        die("--mode rate and --rate of 1 to 1000000 go together");
}

int main(int argc, char **argv) {
    settings_read(argc, argv);
    fd_limit_raise();
    cpu_clocks_open();
    requests_build();
    conns = zero_pages(connections * sizeof *conns);
    free_conns = zero_pages(connections * sizeof *free_conns);
    ep = poll_new();
    give_up_at = clock_ns() + timeout_s * 1000000000u;
    if (strcmp(mode, "idle") == 0)
        run_idle();
    else if (strcmp(mode, "streams") == 0)
        run_streams();
    else if (strcmp(mode, "closed") == 0 || rate)
        run_window();
    else
        die("unknown mode '%s'", mode);
    report();
    return errors || bad_status || bad_length || bad_stream ? 2 : 0;
}
