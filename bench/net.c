#define _GNU_SOURCE
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *program = "bench";

static void __attribute__((noreturn, format(printf, 1, 0)))
complain(const char *fmt, va_list ap, const char *reason) {
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "%s%s\n", reason ? ": " : "", reason ? reason : "");
    exit(1);
}

void die(const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap, NULL);
}

void die_errno(const char *fmt, ...) {
    const char *reason = strerror(errno);
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap, reason);
}

static uint64_t number_parse(const char *name, const char *text) {
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9' && value < UINT64_MAX / 100; p++)
        value = value * 10 + (uint64_t)(*p - '0');
    if (p == text || *p != '\0')
        die("--%s: '%s' is not a number", name, text);
    return value;
}

static const struct option *option_find(const struct option *table, const char *arg) {
    if (strncmp(arg, "--", 2) != 0)
        die("unexpected argument '%s'", arg);
    while (table->name && strcmp(table->name, arg + 2) != 0)
        table++;
    if (!table->name)
        die("unknown option '%s'", arg);
    return table;
}

void options_parse(int argc, char **argv, const struct option *table) {
    program = argv[0];
    for (int i = 1; i < argc; i += 2) {
        const struct option *o = option_find(table, argv[i]);

        if (i + 1 == argc)
            die("%s needs a value", argv[i]);
        if (o->number)
            *o->number = number_parse(o->name, argv[i + 1]);
        else
            *o->text = argv[i + 1];
    }
}

uint64_t clock_ns(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void *zero_pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    if (p == MAP_FAILED)
        die_errno("mmap of %zu bytes", bytes);
    return p;
}

void fd_limit_raise(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        die_errno("getrlimit");
    limit.rlim_cur = limit.rlim_max < NET_MAX_FDS ? limit.rlim_max : NET_MAX_FDS;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        die_errno("setrlimit");
}

static struct sockaddr_in loopback(unsigned last, uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(0x7f000000u | last),
    };
}

static void set_flag(int fd, int level, int name) {
    int one = 1;

    if (setsockopt(fd, level, name, &one, sizeof one))
        die_errno("setsockopt");
}

int listen_on(uint16_t port) {
    struct sockaddr_in at = loopback(1, port);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die_errno("socket");
    set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        die_errno("listen on port %u", port);
    if (getsockname(fd, (struct sockaddr *)&at, &size))
        die_errno("getsockname");
    printf("port %u\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= NET_MAX_FDS)
        die("more than %d descriptors", NET_MAX_FDS);
    if (fd >= 0)
        set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
    return fd;
}

int connect_start(uint16_t port) {
    struct sockaddr_in to = loopback(1, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (fd >= NET_MAX_FDS)
        die("more than %d descriptors", NET_MAX_FDS);
    set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to) || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

int connect_from(uint16_t port, unsigned last) {
    struct sockaddr_in from = loopback(last, 0);
    struct sockaddr_in to = loopback(1, port);
    struct timeval patience = {.tv_sec = 2};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
    set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) ||
        connect(fd, (struct sockaddr *)&to, sizeof to) || fcntl(fd, F_SETFL, O_NONBLOCK)) {
        close(fd);
        return -1;
    }
    return fd;
}

int poll_new(void) {
    int ep = epoll_create1(EPOLL_CLOEXEC);

    if (ep < 0)
        die_errno("epoll_create1");
    return ep;
}

void poll_ctl(int ep, int op, int fd, uint32_t events, uint32_t tag) {
    struct epoll_event event = {.events = events, .data.u32 = tag};

    if (epoll_ctl(ep, op, fd, &event))
        die_errno("epoll_ctl of descriptor %d", fd);
}

int poll_wait(int ep, struct epoll_event *events, int max, uint64_t deadline) {
    struct timespec left;
    uint64_t now, ns;
    int n;

    if (deadline == UINT64_MAX) {
        n = epoll_wait(ep, events, max, -1);
    } else {
        now = clock_ns();
        ns = deadline > now ? deadline - now : 0;
        left.tv_sec = (time_t)(ns / 1000000000u);
        left.tv_nsec = (long)(ns % 1000000000u);
        n = epoll_pwait2(ep, events, max, &left, NULL);
    }
    if (n < 0 && errno != EINTR)
        die_errno("epoll_wait");
    return n < 0 ? 0 : n;
}
