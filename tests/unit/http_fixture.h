/* For tests of the HTTP server and client: a plain socket that reads whole answers or requests, and a server
 * on data loop 1. Include it after loop_fixture.h. */
#pragma once

#include <string.h>

#include "proto/http_server.h"

/* --- a plain client or server socket with a buffer --- */

struct wire {
    int fd;
    char bytes[1 << 18];
    size_t len, taken;
};

struct answer {
    int status;
    char head[4096];
    char *body; /* in the wire's buffer, until the next read */
    size_t body_len;
    bool chunked, close;
};

static inline void wire_open(struct wire *wire, int fd) {
    wire->fd = fd;
    wire->len = wire->taken = 0;
}

static inline void wire_close(struct wire *wire) { close(wire->fd); }

/* More bytes: false at the end (*how: 0 end, -1 nothing within `ms`, -2 reset). */
static inline bool wire_more(struct wire *wire, int ms, int *how) {
    if (wire->taken > 0) {
        memmove(wire->bytes, wire->bytes + wire->taken, wire->len - wire->taken);
        wire->len -= wire->taken;
        wire->taken = 0;
    }
    assert_true(wire->len < sizeof wire->bytes - 1);
    ssize_t count =
        raw_read(wire->fd, wire->bytes + wire->len, sizeof wire->bytes - 1 - wire->len, ms);
    if (count <= 0) {
        *how = (int)count;
        return false;
    }
    wire->len += (size_t)count;
    wire->bytes[wire->len] = '\0';
    return true;
}

static inline size_t wire_unread(const struct wire *wire) { return wire->len - wire->taken; }

static inline void wire_send(struct wire *wire, const void *bytes, size_t len) {
    const char *at = bytes;
    while (len > 0) {
        ssize_t count = send(wire->fd, at, len, MSG_NOSIGNAL);
        assert_true(count > 0);
        at += count;
        len -= (size_t)count;
    }
}

static inline void wire_text(struct wire *wire, const char *text) {
    wire_send(wire, text, strlen(text));
}

#define WIRE_MS 20000

/* Reads up to and with the blank line: where the head starts, its length in *len; NULL at the end. */
static inline char *wire_head(struct wire *wire, size_t *len, int *how) {
    for (;;) {
        char *start = wire->bytes + wire->taken;
        char *end = wire_unread(wire) ? memmem(start, wire_unread(wire), "\r\n\r\n", 4) : NULL;
        if (end != NULL) {
            *len = (size_t)(end - start) + 4;
            wire->taken += *len;
            return start;
        }
        if (!wire_more(wire, WIRE_MS, how))
            return NULL;
    }
}

static inline char *wire_exact(struct wire *wire, size_t count) {
    int how;
    while (wire_unread(wire) < count)
        if (!wire_more(wire, WIRE_MS, &how))
            return NULL;
    char *start = wire->bytes + wire->taken;
    wire->taken += count;
    return start;
}

static inline bool head_has(const char *head, const char *line) {
    return strstr(head, line) != NULL;
}

static inline long head_number(const char *head, const char *name) {
    const char *at = strstr(head, name);
    return at ? strtol(at + strlen(name), NULL, 10) : -1;
}

/* Chunks, moved together at the front of the wire's buffer. */
static inline bool wire_chunks(struct wire *wire, struct answer *answer) {
    static char gathered[1 << 18];
    answer->body = gathered;
    for (;;) {
        int how;
        char *line_end;
        while ((line_end = wire_unread(wire)
                               ? memmem(wire->bytes + wire->taken, wire_unread(wire), "\r\n", 2)
                               : NULL) == NULL)
            if (!wire_more(wire, WIRE_MS, &how))
                return false;
        size_t size = strtoul(wire->bytes + wire->taken, NULL, 16);
        wire->taken = (size_t)(line_end - wire->bytes) + 2;
        char *bytes = wire_exact(wire, size + 2);
        if (bytes == NULL || memcmp(bytes + size, "\r\n", 2) != 0)
            return false;
        if (size == 0)
            return true;
        assert_true(answer->body_len + size < sizeof gathered);
        memcpy(gathered + answer->body_len, bytes, size);
        answer->body_len += size;
    }
}

/* One answer with its body (none when it is to a HEAD request). False when the connection ended first, with *how as
 * above. */
static inline bool wire_answer(struct wire *wire, bool to_head, struct answer *answer, int *how) {
    size_t len;
    memset(answer, 0, sizeof *answer);
    *how = 1;
    char *head = wire_head(wire, &len, how);
    if (head == NULL)
        return false;
    assert_true(len < sizeof answer->head);
    memcpy(answer->head, head, len);
    if (sscanf(answer->head, "HTTP/1.1 %d ", &answer->status) != 1)
        fail_msg("no answer: %s", answer->head);
    answer->close = head_has(answer->head, "\r\nconnection: close\r\n");
    answer->chunked = head_has(answer->head, "\r\ntransfer-encoding: chunked\r\n");
    long length = head_number(answer->head, "\r\ncontent-length: ");
    bool none =
        to_head || answer->status / 100 == 1 || answer->status == 204 || answer->status == 304;
    if (none || (length <= 0 && !answer->chunked))
        return true;
    if (answer->chunked)
        return wire_chunks(wire, answer);
    answer->body_len = (size_t)length;
    return (answer->body = wire_exact(wire, (size_t)length)) != NULL;
}

/* The status of the next answer, whose body must be `body` (NULL: any). */
static inline int wire_expect(struct wire *wire, const char *body) {
    struct answer answer;
    int how;
    if (!wire_answer(wire, false, &answer, &how))
        fail_msg("no answer (%d) where \"%s\" was to come", how, body ? body : "any");
    if (body != NULL) {
        struct str got = str_make(answer.body, answer.body_len);
        if (!str_eq(got, str_from(body)))
            fail_msg("body \"%.*s\", not \"%s\"", STR_ARG(got), body);
    }
    return answer.status;
}

/* Nothing more comes, and the connection ends: 0 in good order, -2 by a reset, -1 not within `ms`. */
static inline int wire_ending(struct wire *wire, int ms) {
    int how = 1;
    if (wire_unread(wire) > 0)
        fail_msg("unexpected: %.*s", (int)wire_unread(wire), wire->bytes + wire->taken);
    if (wire_more(wire, ms, &how))
        fail_msg("unexpected: %.*s", (int)wire_unread(wire), wire->bytes + wire->taken);
    return how;
}

static inline void wire_reset(struct wire *wire) {
    struct linger linger = {.l_onoff = 1};
    (void)setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(wire->fd);
}
