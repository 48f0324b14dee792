/* Listening sockets, shared by all data loops: one socket per address, bound without SO_REUSEPORT (a port
 * in use is an error), watched by every loop. A loop that holds clearly more connections than the least
 * loaded one passes a new descriptor on by message. Accepting pauses at 97 % of the descriptor limit or at
 * the connection limit, with one descriptor in reserve; new connections then wait in the kernel. */
#pragma once

#include "io/loop.h"

struct listener;

struct listener_options {
    const char *host;  /* name, IPv4, IPv6 (bare or bracketed) */
    uint16_t port;     /* 0: the kernel chooses */
    bool control_loop; /* accept on the control loop only (metrics, probe port) */
    bool unlimited;    /* accepts at the limits too (its connections count) */
    /* A new connection, on the loop that shall own it; must take `fd` over. Loop's stack. */
    void (*accepted)(void *arg, int fd);
    void *arg;
};

/* Binds and listens, but does not accept yet. 0 with *out, or a negative errno (-EADDRINUSE...). Main
 * thread. All addresses of the name are bound. */
int listener_open(const struct listener_options *options, struct listener **out) MUST_CHECK;
/* The port in use. */
uint16_t listener_port(const struct listener *listener);
/* Lets the loops accept. Control loop. */
void listener_start(struct listener *listener);
/* No new connections: out of every loop first, then closed (what waits in the backlog is refused) and freed.
 * Control loop; parks until every loop has let go. */
FIBER_FN void listener_close(struct listener *listener);

/* Raises RLIMIT_NOFILE to the hard limit; old and new values. Once at start. */
void descriptors_raise(uint64_t *before, uint64_t *now);
/* Client connections open at once over all listeners; 0 = by the descriptor limit. */
void listener_limit(uint64_t max_connections);
/* The owner of an accepted descriptor says that its connection is gone (keeps counts, ends pauses).
 * Calling loop = owning loop. */
void listener_connection_closed(void);
/* Descriptors other than client connections that count to the limit (upstream sockets): +1, -1. */
void descriptors_count(int delta);
uint64_t descriptors_in_use(void);
uint64_t descriptors_limit(void);
bool listener_paused(void);
uint64_t listener_pauses(void);
