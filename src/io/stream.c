/* See stream.h. libuv streams that are left reading; writes try the socket first and only what does not fit
 * goes through libuv's queue, with the writer parked until libuv has let go of its memory. */
#include "io/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/panic.h"
#include "base/str.h"
#include "io/loop_core.h"

#define KEEPALIVE_S 30
#define MAX_PARTS 16
#define JOIN_MAX 16384

struct stream_write {
    uv_write_t request;
    struct fiber *writer;
    int result;
    bool done, cut;
};

static struct stream *stream_of(void *handle) { return handle; }

static void on_closed(uv_handle_t *handle) {
    loop_entered(handle->loop->data);
    struct stream *stream = stream_of(handle);
    stream->events->closed(stream);
}

void stream_close(struct stream *stream) {
    if (stream->closing)
        return;
    stream->closing = true;
    stream->reading = false;
    uv_close(&stream->handle, on_closed);
}

void stream_abort(struct stream *stream) {
    if (stream->closing)
        return;
    stream->closing = true;
    stream->reading = false;
    if (stream->handle.type != UV_TCP || uv_tcp_close_reset(&stream->tcp, on_closed) != 0)
        uv_close(&stream->handle, on_closed);
}

bool stream_open_now(const struct stream *stream) { return !stream->closing; }

int stream_open(struct stream *stream, int fd, const struct stream_events *events) {
    *stream = (struct stream){.events = events};
    int rc = uv_tcp_init(loop_uv(loop_here()), &stream->tcp);
    assert_always(rc == 0);
    rc = uv_tcp_open(&stream->tcp, fd);
    if (rc < 0) { /* the loop knows the handle already, so it needs its close callback too */
        close(fd);
        stream_close(stream);
    }
    return rc;
}

/* --- reading --- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)suggested;
    struct loop *loop = handle->loop->data;
    *buffer = uv_buf_init(loop->read_buffer, LOOP_READ_SIZE);
}

static void on_read(uv_stream_t *handle, ssize_t count, const uv_buf_t *buffer) {
    struct stream *stream = stream_of(handle);
    loop_entered(handle->loop->data);
    if (count > 0) {
        stream->events->data(stream, buffer->base, (size_t)count);
        return;
    }
    if (count == 0 || stream->ended)
        return;
    stream->ended = true;
    stream_pause(stream);
    stream->events->end(stream, count == UV_EOF ? 0 : (int)count);
}

void stream_resume(struct stream *stream) {
    if (stream->reading || stream->closing || stream->ended)
        return;
    stream->reading = uv_read_start(&stream->uv, on_alloc, on_read) == 0;
}

void stream_pause(struct stream *stream) {
    if (!stream->reading || stream->closing)
        return;
    stream->reading = false;
    uv_read_stop(&stream->uv);
}

/* --- writing --- */

/* Small parts (a head and a body mostly) are joined first: copying 4 KB costs a tenth of what the kernel takes for
 * a list of parts. Returns the parts to send. */
static const struct iovec *parts_join(const struct iovec *parts, int *count, struct iovec *joined) {
    static _Thread_local char scratch[JOIN_MAX];
    size_t total = 0;
    for (int i = 0; i < *count; i++)
        total += parts[i].iov_len;
    if (*count == 1 || total > sizeof scratch)
        return parts;
    char *at = scratch;
    for (int i = 0; i < *count; i++)
        at = str_put(at, str_make(parts[i].iov_base, parts[i].iov_len));
    *joined = (struct iovec){.iov_base = scratch, .iov_len = total};
    *count = 1;
    return joined;
}

/* Straight to the socket: writev, which libuv would use, goes through the file layer and costs more. */
static ssize_t socket_send(int fd, const struct iovec *parts, int count) {
    struct iovec joined;
    parts = parts_join(parts, &count, &joined);
    const struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    ssize_t done;
    do
        done = count == 1 ? send(fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (done < 0 && errno == EINTR);
    if (done >= 0)
        return done;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : -errno;
}

ssize_t stream_try_write(struct stream *stream, const struct iovec *parts, int count) {
    uv_os_fd_t fd;
    if (stream->closing)
        return -EPIPE;
    if (uv_stream_get_write_queue_size(&stream->uv) > 0) /* what is queued goes first */
        return 0;
    int rc = uv_fileno(&stream->handle, &fd);
    return rc < 0 ? rc : socket_send(fd, parts, count);
}

static void on_written(uv_write_t *request, int status) {
    struct stream_write *write = container_of(request, struct stream_write, request);
    loop_entered(request->handle->loop->data);
    write->result = status;
    write->done = true;
    fiber_wake(write->writer);
}

void stream_write_cut(struct stream *stream) {
    struct stream_write *write = stream->writing;
    if (write == NULL || write->done || write->cut)
        return;
    write->cut = true;
    fiber_wake(write->writer);
}

/* Queues the rest and waits. On cancellation, timeout or cut the stream is aborted first, which makes libuv
 * give the memory back through on_written. */
static FIBER_FN int write_wait(struct stream *stream, const uv_buf_t *parts, unsigned count,
                               deadline_ms deadline) {
    struct stream_write write = {.writer = fiber_self()};
    int rc = uv_write(&write.request, &stream->uv, parts, count, on_written);
    if (rc < 0)
        return rc;
    stream->writing = &write;
    int reason = 0;
    while (!write.done && !write.cut && reason == 0)
        reason = fiber_park(deadline);
    if (!write.done) {
        stream_abort(stream);
        while (!write.done)
            fiber_park_hard();
    }
    stream->writing = NULL;
    if (reason == 0 && write.cut)
        reason = -EPIPE;
    if (reason != 0 && stream->closing)
        return reason;
    return write.result;
}

/* What still lies in the loop's read buffer is overwritten by the next read of any connection, so it moves
 * into memory of its own (mem_free; NULL when nothing had to move). */
static char *parts_move_out(uv_buf_t *parts, int count) {
    const char *low = loop_read_buffer(), *high = low + LOOP_READ_SIZE;
    size_t total = 0;
    for (int i = 0; i < count; i++)
        if (parts[i].base >= low && parts[i].base < high)
            total += parts[i].len;
    if (total == 0)
        return NULL;
    char *copy = mem_alloc(total), *at = copy;
    for (int i = 0; i < count; i++) {
        if (parts[i].base < low || parts[i].base >= high)
            continue;
        memcpy(at, parts[i].base, parts[i].len);
        parts[i].base = at;
        at += parts[i].len;
    }
    return copy;
}

/* Skips `done` bytes of the parts; the new first part is adjusted in place. */
static int parts_skip(uv_buf_t *parts, int count, size_t done) {
    int first = 0;
    while (first < count && done >= parts[first].len)
        done -= parts[first++].len;
    if (first < count) {
        parts[first].base += done;
        parts[first].len -= done;
    }
    return first;
}

static FIBER_FN int write_rest(struct stream *stream, const struct iovec *parts, int count,
                               size_t done, deadline_ms deadline) {
    uv_buf_t rest[MAX_PARTS];
    assert_always(count <= MAX_PARTS);
    memcpy(rest, parts, (size_t)count * sizeof *parts);
    int first = parts_skip(rest, count, done);
    char *copy = parts_move_out(rest + first, count - first);
    int rc = write_wait(stream, rest + first, (unsigned)(count - first), deadline);
    mem_free(copy);
    return rc;
}

FIBER_FN int stream_write(struct stream *stream, const struct iovec *parts, int count,
                          deadline_ms deadline) {
    assert_always(stream->writing == NULL);
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].iov_len;
    ssize_t done = stream_try_write(stream, parts, count);
    int rc = done < 0 ? (int)done : 0;
    if (rc == 0 && (size_t)done < total)
        rc = write_rest(stream, parts, count, (size_t)done, deadline);
    if (rc < 0)
        stream_close(stream);
    return rc;
}

/* --- connecting --- */

struct connecting {
    uv_connect_t request;
    struct fiber *fiber;
    int result;
    bool done;
};

static void on_connected(uv_connect_t *request, int status) {
    struct connecting *connecting = container_of(request, struct connecting, request);
    loop_entered(request->handle->loop->data);
    connecting->result = status;
    connecting->done = true;
    fiber_wake(connecting->fiber);
}

static FIBER_FN int connect_wait(struct stream *stream, struct connecting *connecting,
                                 deadline_ms deadline) {
    int reason = 0;
    while (!connecting->done && reason == 0)
        reason = fiber_park(deadline);
    if (connecting->done)
        return connecting->result;
    stream_close(stream); /* libuv calls on_connected with ECANCELED before `closed` */
    while (!connecting->done)
        fiber_park_hard();
    return reason;
}

FIBER_FN int stream_connect(struct stream *stream, const struct sockaddr *address,
                            const struct stream_events *events, deadline_ms deadline) {
    *stream = (struct stream){.events = events};
    struct connecting connecting = {.fiber = fiber_self()};
    int rc = uv_tcp_init(loop_uv(loop_here()), &stream->tcp);
    assert_always(rc == 0); /* makes no socket yet */
    (void)uv_tcp_nodelay(&stream->tcp, 1);
    rc = uv_tcp_connect(&connecting.request, &stream->tcp, address, on_connected);
    if (rc == 0)
        rc = connect_wait(stream, &connecting, deadline);
    if (rc < 0)
        stream_close(stream);
    else
        (void)uv_tcp_keepalive(&stream->tcp, 1, KEEPALIVE_S);
    return rc;
}

/* --- names --- */

void stream_peer(const struct stream *stream, union peer_address *out) {
    int length = sizeof *out;
    memset(out, 0, sizeof *out);
    if (stream->closing || uv_tcp_getpeername(&stream->tcp, &out->any, &length) != 0)
        out->any.sa_family = AF_UNSPEC;
}

void peer_address_text(const union peer_address *address, char *out, size_t size) {
    char host[INET6_ADDRSTRLEN] = "?";
    switch (address->any.sa_family) {
    case AF_INET6:
        inet_ntop(AF_INET6, &address->six.sin6_addr, host, sizeof host);
        snprintf(out, size, "[%s]:%u", host, ntohs(address->six.sin6_port));
        break;
    case AF_INET:
        inet_ntop(AF_INET, &address->four.sin_addr, host, sizeof host);
        snprintf(out, size, "%s:%u", host, ntohs(address->four.sin_port));
        break;
    default: snprintf(out, size, "-");
    }
}
