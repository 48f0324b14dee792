/* Byte streams: TCP, unix sockets and pipes today; a TLS filter sits under the same calls.
 *
 * Reading is push: the owner gets bytes on the loop's stack, straight out of the loop's shared read
 * buffer, and must copy what it wants to keep. Writing is pull: a fiber writes and parks only when the
 * kernel's buffer is full. Closing is asynchronous: `closed` tells when the memory may go. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <uv.h>

#include "io/loop.h"

struct stream;

struct stream_events {
    /* Bytes arrived. The stream may be paused or closed in here. */
    void (*data)(struct stream *stream, const char *ptr, size_t len);
    /* The peer ended its side (0) or the connection failed (negative errno). No data follows. */
    void (*end)(struct stream *stream, int error);
    /* The handle is closed; the owner frees the memory. */
    void (*closed)(struct stream *stream);
};

/* Embedded in the owner's connection object. */
struct stream {
    union {
        uv_handle_t handle;
        uv_stream_t uv;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    const struct stream_events *events;
    struct stream_write *writing; /* the one write under way */
    bool reading, closing, ended;
};

/* Takes a connected socket over, also on failure. 0 or a negative errno; after a failure the stream is closing
 * and `closed` will be called. */
int stream_open(struct stream *stream, int fd, const struct stream_events *events) MUST_CHECK;
/* Connects to an address: TCP_NODELAY, keepalive 30 s. 0, -ECANCELED, -ETIMEDOUT, or the error. After a
 * failure the stream is closing and `closed` will be called. */
FIBER_FN int stream_connect(struct stream *stream, const struct sockaddr *address,
                            const struct stream_events *events, deadline_ms deadline);

/* Starts or stops the flow of data events. */
void stream_resume(struct stream *stream);
void stream_pause(struct stream *stream);

/* Writes all of it. 0, or -ECANCELED, -ETIMEDOUT, -EPIPE, -ECONNRESET...; after any failure the stream
 * is closed (a half-written stream is of no use), and nobody holds the caller's memory. Bytes that lie in the
 * loop's read buffer are copied before the fiber parks; all others must stay until it returns. One writer at a
 * time, at most 16 parts. */
FIBER_FN int stream_write(struct stream *stream, const struct iovec *parts, int count,
                          deadline_ms deadline);
/* Makes the write under way, if any, fail with -EPIPE: its owner has learnt that nobody wants the bytes any
 * more. Loop's stack; the writer runs before this returns. */
void stream_write_cut(struct stream *stream);
/* As much as fits without waiting; bytes written (0 when full), or a negative errno. */
ssize_t stream_try_write(struct stream *stream, const struct iovec *parts, int count);

/* Closes; `closed` follows on a later turn. Harmless when repeated. */
void stream_close(struct stream *stream);
/* Closes with a reset (RST) so that the peer sees an abort, not an end. */
void stream_abort(struct stream *stream);
bool stream_open_now(const struct stream *stream);

/* The address at the other end. To be asked early: after a reset the kernel does not know it any more. */
union peer_address {
    struct sockaddr any; /* sa_family 0: unknown */
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};
void stream_peer(const struct stream *stream, union peer_address *out);
/* "127.0.0.1:1234", "[::1]:1234", or "-" when unknown. */
void peer_address_text(const union peer_address *address, char *out, size_t size);
