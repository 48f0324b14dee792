/* What the bench programs share: sockets on loopback, epoll, the clock and the command line.
 *
 * Nothing here comes from sluice: a yardstick must not be made of what it measures. Memory comes
 * from mmap in large untouched tables indexed by descriptor, so there is no allocator at all.
 * Errors that a benchmark cannot go on from end the program with a message. */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

enum { NET_MAX_FDS = 20480, NET_EVENTS = 512 };

/* One command-line option `--name VALUE`. Exactly one target is set. */
struct option {
    const char *name;
    uint64_t *number;
    const char **text;
};

/* Prints the message (die_errno: and errno's text) to stderr, exits with 1. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void die_errno(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Fills the targets of a table that ends with a nameless entry; dies at an unknown option or a
 * value that is no decimal number where one is due. */
void options_parse(int argc, char **argv, const struct option *table);

/* Monotonic time in nanoseconds. */
uint64_t clock_ns(void);

/* Zeroed pages, committed when touched, never given back. */
void *zero_pages(size_t bytes);

/* Raises the soft limit of descriptors to the hard one. */
void fd_limit_raise(void);

/* Listens on 127.0.0.1:port, non-blocking; port 0 takes a free one. Prints "port N\n" to stdout. */
int listen_on(uint16_t port);

/* Accepts one connection (non-blocking, TCP_NODELAY) or returns -1 when there is none now. */
int accept_one(int listener);

/* Starts a connection to 127.0.0.1:port, non-blocking, TCP_NODELAY. Returns -1 on failure. */
int connect_start(uint16_t port);

/* Connects from 127.0.0.`last` to 127.0.0.1:port, waits at most two seconds, then makes the
 * socket non-blocking. Returns -1 on failure. */
int connect_from(uint16_t port, unsigned last);

/* epoll_create, and epoll_ctl that dies on failure. */
int poll_new(void);
void poll_ctl(int ep, int op, int fd, uint32_t events, uint32_t tag);

/* Waits for events until the deadline (clock_ns; UINT64_MAX = for ever). Returns their number. */
int poll_wait(int ep, struct epoll_event *events, int max, uint64_t deadline);

#endif
