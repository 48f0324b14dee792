/* See listener.h. Accepting is done with accept4 on a watched descriptor rather than through libuv's listen,
 * because it must be paused, handed to other loops, and taken out of a loop without closing the socket. */
#include "io/listener.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/vec.h"
#include "io/loop_core.h"

#define BACKLOG 4096
#define ACCEPT_BATCH 32
#define PAUSE_PERCENT 97
#define PAUSE_LOG_MS 1000
#define RETRY_MS 100 /* after EMFILE */

struct acceptor {
    uv_poll_t poll;
    struct timer retry;
    struct listener *listener;
    struct acceptor *next; /* of the same loop */
    int fd;
    bool watching, closed;
    struct fiber *closer;
};

struct listener {
    struct listener_options options;
    VEC(int) fds;
    uint16_t port;
    VEC(struct acceptor *) acceptors[LOOPS_MAX];
};

struct handed {
    struct message message;
    struct listener *listener;
    int fd;
};

static struct {
    _Atomic uint64_t connections, descriptors, pauses;
    _Atomic uint64_t max_connections, max_descriptors;
    _Atomic bool paused;
    _Atomic int reserve;
} limits = {.max_descriptors = UINT64_MAX, .reserve = -1};

/* Acceptors of this loop that count against the limits: all are paused and resumed together. */
static _Thread_local struct acceptor *mine;

/* --- descriptors --- */

static uint64_t open_now(void) {
    DIR *dir = opendir("/proc/self/fd");
    uint64_t count = 0;
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the directory itself */
}

void descriptors_raise(uint64_t *before, uint64_t *now) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    *before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    *now = limit.rlim_cur;
    atomic_store(&limits.max_descriptors, limit.rlim_cur);
    atomic_store(&limits.descriptors, open_now());
    atomic_store(&limits.reserve, open("/dev/null", O_RDONLY | O_CLOEXEC));
}

uint64_t descriptors_in_use(void) { return atomic_load(&limits.descriptors); }
uint64_t descriptors_limit(void) { return atomic_load(&limits.max_descriptors); }
bool listener_paused(void) { return atomic_load(&limits.paused); }
uint64_t listener_pauses(void) { return atomic_load(&limits.pauses); }

static void reserve_release(void) {
    int fd = atomic_exchange(&limits.reserve, -1);
    if (fd >= 0)
        close(fd);
}

static void reserve_restore(void) {
    if (atomic_load(&limits.reserve) >= 0)
        return;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), none = -1;
    if (fd >= 0 && !atomic_compare_exchange_strong(&limits.reserve, &none, fd))
        close(fd);
}

static bool limit_reached(void) {
    uint64_t max = atomic_load(&limits.max_connections);
    if (max > 0 && atomic_load(&limits.connections) >= max)
        return true;
    uint64_t all = atomic_load(&limits.max_descriptors);
    return all != UINT64_MAX && atomic_load(&limits.descriptors) * 100 >= all * PAUSE_PERCENT;
}

/* --- pausing --- */

static void on_readable(uv_poll_t *handle, int status, int events);

static void watch(struct acceptor *acceptor) {
    if (!acceptor->watching)
        acceptor->watching = uv_poll_start(&acceptor->poll, UV_READABLE, on_readable) == 0;
}

static void unwatch(struct acceptor *acceptor) {
    if (acceptor->watching)
        uv_poll_stop(&acceptor->poll);
    acceptor->watching = false;
}

/* At the limit every close lets one connection in and is followed by a pause. */
static bool pause_worth_a_line(void) {
    static _Atomic int64_t last;
    int64_t now = clock_ms(), seen = atomic_load(&last);
    return now - seen >= PAUSE_LOG_MS && atomic_compare_exchange_strong(&last, &seen, now);
}

static void pause_begin(void) {
    if (atomic_exchange(&limits.paused, true))
        return;
    atomic_fetch_add(&limits.pauses, 1);
    if (!pause_worth_a_line())
        return;
    log_warn("io", "accepting pauses: limit reached, new connections wait",
             F_INT("connections", (int64_t)atomic_load(&limits.connections)),
             F_INT("descriptors", (int64_t)atomic_load(&limits.descriptors)));
}

static void resume_here(struct message *message) {
    mem_free(message);
    reserve_restore();
    for (struct acceptor *acceptor = mine; acceptor != NULL; acceptor = acceptor->next)
        watch(acceptor);
}

static void pause_end(void) {
    bool paused = true;
    if (limit_reached() || !atomic_compare_exchange_strong(&limits.paused, &paused, false))
        return;
    for (unsigned i = 0; i < loops_count(); i++) {
        struct message *message = mem_alloc(sizeof *message);
        message->run = resume_here;
        loop_post(loop_at(i), message);
    }
}

/* Called after a count or limit has changed. The look at `paused` must not move before that change: accept_one
 * sets it first and then looks at the counts once more. */
static void pause_review(void) {
    if (atomic_load(&limits.paused))
        pause_end();
}

void listener_connection_closed(void) {
    atomic_fetch_sub(&loop_here()->stats.connections, 1);
    atomic_fetch_sub(&limits.connections, 1);
    atomic_fetch_sub(&limits.descriptors, 1);
    pause_review();
}

void descriptors_count(int delta) {
    atomic_fetch_add(&limits.descriptors, (uint64_t)(int64_t)delta);
    pause_review();
}

void listener_limit(uint64_t max_connections) {
    atomic_store(&limits.max_connections, max_connections);
    pause_review();
}

/* --- accepting --- */

static struct loop *least_loaded(void) {
    struct loop *self = loop_here(), *least = self;
    for (unsigned i = 1; i < loops_count(); i++)
        if (loop_at(i)->stats.connections < least->stats.connections)
            least = loop_at(i);
    uint64_t own = self->stats.connections, low = least->stats.connections;
    return own > low + 1 + low / 8 ? least : self;
}

static void on_handed(struct message *message) {
    struct handed handed = *container_of(message, struct handed, message);
    mem_free(message);
    handed.listener->options.accepted(handed.listener->options.arg, handed.fd);
}

static void hand_over(struct listener *listener, int fd) {
    struct loop *target = listener->options.control_loop ? loop_here() : least_loaded();
    atomic_fetch_add(&limits.connections, 1);
    atomic_fetch_add(&limits.descriptors, 1);
    atomic_fetch_add(&target->stats.connections, 1);
    if (target == loop_here()) {
        listener->options.accepted(listener->options.arg, fd);
        return;
    }
    struct handed *handed = mem_alloc(sizeof *handed);
    *handed = (struct handed){.message.run = on_handed, .listener = listener, .fd = fd};
    loop_post(target, &handed->message);
}

static void on_retry(struct timer *timer) {
    reserve_restore();
    watch(container_of(timer, struct acceptor, retry));
}

static void out_of_descriptors(struct acceptor *acceptor, int error) {
    log_error("io", "cannot accept, will try again", F_CSTR("error", uv_strerror(-error)));
    reserve_release();
    unwatch(acceptor);
    acceptor->retry.fire = on_retry;
    timer_set(&acceptor->retry, deadline_in(RETRY_MS));
}

static bool accept_one(struct acceptor *acceptor) {
    bool counted = !acceptor->listener->options.unlimited;
    if (counted && limit_reached()) {
        pause_begin();
        unwatch(acceptor);
        if (!limit_reached()) /* a connection closed meanwhile and saw no pause */
            pause_end();
        return false;
    }
    int fd = accept4(acceptor->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        hand_over(acceptor->listener, fd);
        return true;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        out_of_descriptors(acceptor, errno);
    return errno == ECONNABORTED || errno == EINTR;
}

static void on_readable(uv_poll_t *handle, int status, int events) {
    (void)status;
    (void)events;
    struct acceptor *acceptor = container_of(handle, struct acceptor, poll);
    loop_entered(handle->loop->data);
    for (int i = 0; i < ACCEPT_BATCH && acceptor->watching; i++)
        if (!accept_one(acceptor))
            return;
}

/* --- opening --- */

static int socket_listen(const struct addrinfo *address, int *out) {
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted ones inherit it */
    if (address->ai_family == AF_INET6) /* "::" takes IPv4 clients too */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    *out = fd;
    return 0;
}

static uint16_t port_of(int fd) {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address = {.six = {0}};
    socklen_t length = sizeof address;
    if (getsockname(fd, &address.any, &length) < 0)
        return 0;
    return ntohs(address.any.sa_family == AF_INET6 ? address.six.sin6_port : address.four.sin_port);
}

/* "localhost" may have an IPv6 address that this machine has not. */
static bool not_here(int rc) { return rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT; }

static int bind_all(struct listener *listener, const struct addrinfo *list) {
    int absent = -EADDRNOTAVAIL;
    for (const struct addrinfo *address = list; address != NULL; address = address->ai_next) {
        int fd = -1, rc = socket_listen(address, &fd);
        if (not_here(rc)) {
            absent = rc;
            continue;
        }
        if (rc < 0)
            return rc;
        vec_push(&listener->fds, fd);
        if (listener->options.port == 0) /* one port for one address */
            break;
    }
    return listener->fds.len > 0 ? 0 : absent;
}

static void fds_close(struct listener *listener) {
    for (size_t i = 0; i < listener->fds.len; i++)
        close(listener->fds.items[i]);
    vec_free(&listener->fds);
}

static char *bare_host(const char *host) {
    struct str text = str_from(host);
    if (text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
        text = str_make(text.ptr + 1, text.len - 2);
    return str_dup(text);
}

int listener_open(const struct listener_options *options, struct listener **out) {
    char port[8];
    snprintf(port, sizeof port, "%u", options->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char *host = bare_host(options->host);
    int rc = getaddrinfo(host, port, &hints, &list);
    mem_free(host);
    if (rc != 0)
        return rc == EAI_SYSTEM ? -errno : -EADDRNOTAVAIL;
    struct listener *listener = mem_zalloc(sizeof *listener);
    listener->options = *options;
    rc = bind_all(listener, list);
    freeaddrinfo(list);
    if (rc < 0) {
        fds_close(listener);
        mem_free(listener);
        return rc;
    }
    listener->port = port_of(listener->fds.items[0]);
    *out = listener;
    return 0;
}

uint16_t listener_port(const struct listener *listener) { return listener->port; }

/* --- starting and closing, loop by loop --- */

static void acceptor_open(struct listener *listener, int fd) {
    struct acceptor *acceptor = mem_zalloc(sizeof *acceptor);
    acceptor->listener = listener;
    acceptor->fd = fd;
    if (uv_poll_init(loop_uv(loop_here()), &acceptor->poll, fd) != 0) {
        mem_free(acceptor);
        return;
    }
    vec_push(&listener->acceptors[loop_index(loop_here())], acceptor);
    if (!listener->options.unlimited) {
        acceptor->next = mine;
        mine = acceptor;
    }
    watch(acceptor);
}

struct start_message {
    struct message message;
    struct listener *listener;
};

static void start_here(struct message *message) {
    struct listener *listener = container_of(message, struct start_message, message)->listener;
    mem_free(message);
    for (size_t i = 0; i < listener->fds.len; i++)
        acceptor_open(listener, listener->fds.items[i]);
}

void listener_start(struct listener *listener) {
    /* Loops, logs and sockets of ours have been opened since the limit was raised: count anew. */
    if (atomic_load(&limits.connections) == 0)
        atomic_store(&limits.descriptors, open_now());
    unsigned first = listener->options.control_loop ? 0 : 1;
    unsigned end = listener->options.control_loop ? 1 : loops_count();
    for (unsigned i = first; i < end; i++) {
        struct start_message *start = mem_alloc(sizeof *start);
        *start = (struct start_message){.message.run = start_here, .listener = listener};
        loop_post(loop_at(i), &start->message);
    }
}

static void on_acceptor_closed(uv_handle_t *handle) {
    struct acceptor *acceptor = container_of((uv_poll_t *)handle, struct acceptor, poll);
    acceptor->closed = true;
    fiber_wake(acceptor->closer);
}

static void mine_remove(struct acceptor *acceptor) {
    struct acceptor **link = &mine;
    while (*link != NULL && *link != acceptor)
        link = &(*link)->next;
    if (*link != NULL)
        *link = acceptor->next;
}

static FIBER_FN void acceptor_close(struct acceptor *acceptor) {
    mine_remove(acceptor);
    timer_clear(&acceptor->retry);
    acceptor->watching = false;
    acceptor->closer = fiber_self();
    uv_close((uv_handle_t *)&acceptor->poll, on_acceptor_closed);
    while (!acceptor->closed)
        fiber_park_hard();
    mem_free(acceptor);
}

static FIBER_FN int close_here(void *arg) {
    struct listener *listener = arg;
    unsigned index = loop_index(loop_here());
    while (listener->acceptors[index].len > 0)
        acceptor_close(listener->acceptors[index].items[--listener->acceptors[index].len]);
    vec_free(&listener->acceptors[index]);
    return 0;
}

static int look_in(void *arg) {
    (void)arg;
    return 0;
}

/* A descriptor that one loop handed to another may still be on its way there when both have let go; the second
 * round comes behind it. */
FIBER_FN void listener_close(struct listener *listener) {
    for (unsigned i = 0; i < loops_count(); i++)
        (void)loop_call(loop_at(i), close_here, listener);
    for (unsigned i = 0; i < loops_count(); i++)
        (void)loop_call(loop_at(i), look_in, NULL);
    fds_close(listener);
    mem_free(listener);
}
