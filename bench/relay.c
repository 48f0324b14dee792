/* The bare relay: what forwarding costs when nothing is parsed.
 *
 * One thread, level-triggered epoll, non-blocking sockets with TCP_NODELAY. Each client gets one
 * connection to the backend for its lifetime; what arrives on one side is sent to the other at
 * once. Only what a peer does not take is kept (at most one read of 64 KiB), and reading from the
 * sender stops until that is gone. The end of either side ends both.
 *
 * Every proxy on the same machine has to make these system calls as well, so the relay is the
 * floor that the others are compared with. */
#define _GNU_SOURCE
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 65536 };

struct side {
    int peer; /* 0 = not in use */
    uint32_t off, len;
    char *pending; /* bytes this side has not taken yet */
    bool ends;     /* close both once pending is gone */
};

static struct side *sides;
static char *free_blocks[NET_MAX_FDS];
static int free_count;
static char scratch[BLOCK];
static int ep;

static char *block_take(void) { return free_count ? free_blocks[--free_count] : zero_pages(BLOCK); }

static void side_close(int fd) {
    struct side *s = &sides[fd];

    if (s->pending)
        free_blocks[free_count++] = s->pending;
    *s = (struct side){0};
    close(fd);
}

static void pair_close(int fd) {
    int peer = sides[fd].peer;

    side_close(fd);
    side_close(peer);
}

static void pair_open(int listener, uint16_t backend) {
    int client = accept_one(listener);
    int upstream;

    if (client < 0)
        return;
    upstream = connect_start(backend);
    if (upstream < 0) {
        close(client);
        return;
    }
    sides[client].peer = upstream;
    sides[upstream].peer = client;
    poll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLIN, (uint32_t)client);
    poll_ctl(ep, EPOLL_CTL_ADD, upstream, EPOLLIN, (uint32_t)upstream);
}

/* Keeps what `to` did not take and stops reading from its peer. */
static void stash(int to, const char *p, size_t n) {
    struct side *s = &sides[to];

    s->pending = block_take();
    memcpy(s->pending, p, n);
    s->off = 0;
    s->len = (uint32_t)n;
    poll_ctl(ep, EPOLL_CTL_MOD, to, EPOLLIN | EPOLLOUT, (uint32_t)to);
    poll_ctl(ep, EPOLL_CTL_MOD, s->peer, 0, (uint32_t)s->peer);
}

static void pump(int from) {
    int to = sides[from].peer;
    ssize_t got = recv(from, scratch, sizeof scratch, 0);
    ssize_t sent;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        if (got == 0 && sides[to].pending)
            sides[to].ends = true;
        else
            pair_close(from);
        return;
    }
    sent = send(to, scratch, (size_t)got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        pair_close(from);
    else if (sent < got)
        stash(to, scratch + (sent < 0 ? 0 : sent), (size_t)(got - (sent < 0 ? 0 : sent)));
}

static void flush(int to) {
    struct side *s = &sides[to];
    ssize_t sent = send(to, s->pending + s->off, s->len - s->off, MSG_NOSIGNAL);

    if (sent < 0 && errno == EAGAIN)
        return;
    s->off += sent < 0 ? 0 : (uint32_t)sent;
    if (sent < 0 || (s->off == s->len && s->ends)) {
        pair_close(to);
        return;
    }
    if (s->off < s->len)
        return;
    free_blocks[free_count++] = s->pending;
    s->pending = NULL;
    poll_ctl(ep, EPOLL_CTL_MOD, to, EPOLLIN, (uint32_t)to);
    poll_ctl(ep, EPOLL_CTL_MOD, s->peer, EPOLLIN, (uint32_t)s->peer);
}

static void serve_event(const struct epoll_event *event) {
    int fd = (int)event->data.u32;

    if (!sides[fd].peer)
        return;
    if (sides[fd].pending && (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        flush(fd);
    if (sides[fd].peer && (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        pump(fd);
}

int main(int argc, char **argv) {
    static struct epoll_event events[NET_EVENTS];
    uint64_t port = 0, backend = 0;
    const struct option table[] = {{"port", &port, NULL}, {"backend", &backend, NULL}, {0}};
    int listener;

    options_parse(argc, argv, table);
    fd_limit_raise();
    sides = zero_pages(NET_MAX_FDS * sizeof *sides);
    ep = poll_new();
    listener = listen_on((uint16_t)port);
    poll_ctl(ep, EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t)listener);
    for (;;) {
        int n = poll_wait(ep, events, NET_EVENTS, UINT64_MAX);

        for (int i = 0; i < n; i++) {
            if ((int)events[i].data.u32 == listener)
                pair_open(listener, (uint16_t)backend);
            else
                serve_event(&events[i]);
        }
    }
}
