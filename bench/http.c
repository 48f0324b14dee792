#define _GNU_SOURCE
#include "http.h"

#include <string.h>
#include <strings.h>

static bool named(const char *line, size_t n, const char *name, const char **value) {
    size_t len = strlen(name);

    if (n <= len || line[len] != ':' || strncasecmp(line, name, len) != 0)
        return false;
    for (len++; len < n && line[len] == ' ';)
        len++;
    *value = line + len;
    return true;
}

static void header_take(struct http_head *head, const char *line, size_t n) {
    const char *v;

    if (named(line, n, "content-length", &v)) {
        head->length = 0;
        for (; v < line + n && *v >= '0' && *v <= '9' && head->length < INT32_MAX; v++)
            head->length = head->length * 10 + (*v - '0');
    } else if (named(line, n, "transfer-encoding", &v)) {
        head->chunked = strncasecmp(v, "chunked", 7) == 0;
    } else if (named(line, n, "connection", &v)) {
        head->close = strncasecmp(v, "close", 5) == 0;
    }
}

int http_head_parse(const char *p, size_t n, struct http_head *head) {
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    const char *line = p;

    if (!end)
        return 0;
    *head = (struct http_head){.start = p, .len = (size_t)(end - p) + 4, .length = -1};
    while (line <= end) {
        const char *stop = memchr(line, '\r', (size_t)(end - line) + 1);

        if (line == p)
            head->start_len = (size_t)(stop - line);
        else if (strchr("cCtT", *line))
            header_take(head, line, (size_t)(stop - line));
        line = stop + 2;
    }
    return head->start_len ? 1 : -1;
}

static void tail_keep(struct response *r, const char *p, size_t n) {
    size_t keep = sizeof r->tail;

    if (n >= keep) {
        memcpy(r->tail, p + n - keep, keep);
        return;
    }
    memmove(r->tail, r->tail + n, keep - n);
    memcpy(r->tail + keep - n, p, n);
}

/* An event ends with an empty line; the byte after it begins the next one. */
static void events_scan(struct response *r, const char *p, size_t n, event_begin_fn *on_event) {
    const char *end = p + n;

    while (p < end) {
        const char *nl;

        if (!r->event_open) {
            r->event_open = true;
            on_event(p, (size_t)(end - p));
        }
        nl = memchr(p, '\n', (size_t)(end - p));
        if (!nl) {
            r->at_newline = false;
            return;
        }
        if (nl == p && r->at_newline) {
            r->events++;
            r->at_newline = r->event_open = false;
        } else {
            r->at_newline = true;
        }
        p = nl + 1;
    }
}

static size_t body_take(struct response *r, const char *p, size_t n, event_begin_fn *on_event) {
    if (n > r->left)
        n = r->left;
    r->left -= n;
    r->body += n;
    tail_keep(r, p, n);
    if (on_event)
        events_scan(r, p, n, on_event);
    return n;
}

static int64_t head_done(struct response *r, const char *p, size_t n) {
    struct http_head head;
    int rc = http_head_parse(p, n, &head);

    if (rc <= 0)
        return rc;
    if (head.start_len < 12 || memcmp(head.start, "HTTP/1.", 7) != 0)
        return -1;
    r->status = (head.start[9] - '0') * 100 + (head.start[10] - '0') * 10 + head.start[11] - '0';
    r->close = head.close;
    if (!head.chunked && head.length < 0)
        return -1;
    r->left = head.chunked ? 0 : (uint64_t)head.length;
    r->state = head.chunked ? CHUNK_SIZE : r->left ? RESPONSE_FIXED : RESPONSE_DONE;
    return (int64_t)head.len;
}

/* The head is parsed where it lies when it came in one piece, else it is collected first. */
static int64_t head_take(struct response *r, const char *p, size_t n) {
    size_t before = r->head_len;
    size_t room = sizeof r->head - before;
    int64_t used = before ? 0 : head_done(r, p, n);

    if (used)
        return used;
    n = n < room ? n : room;
    memcpy(r->head + before, p, n);
    r->head_len += (uint32_t)n;
    used = before ? head_done(r, r->head, r->head_len) : 0;
    if (used < 0 || (used == 0 && r->head_len == sizeof r->head))
        return -1;
    return used ? used - (int64_t)before : (int64_t)n;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool size_byte(struct response *r, char c) {
    int digit = hex_value(c);

    if (digit >= 0 && r->left < 1u << 28) {
        r->left = r->left * 16 + (uint64_t)digit;
        return true;
    }
    if (c == '\n')
        r->state = r->left ? CHUNK_DATA : CHUNK_TRAILER;
    else if (c == ';')
        r->state = CHUNK_EXTENSION;
    else if (c != '\r')
        return false;
    return true;
}

/* One byte of chunk framing. */
static bool frame_byte(struct response *r, char c) {
    switch (r->state) {
    case CHUNK_SIZE: return size_byte(r, c);
    case CHUNK_EXTENSION:
        if (c == '\n')
            r->state = r->left ? CHUNK_DATA : CHUNK_TRAILER;
        return true;
    case CHUNK_DATA_END:
        if (c == '\n')
            r->state = CHUNK_SIZE;
        return c == '\n' || c == '\r';
    case CHUNK_TRAILER:
        if (c == '\n')
            r->state = RESPONSE_DONE;
        else if (c != '\r')
            r->state = CHUNK_TRAILER_LINE;
        return true;
    case CHUNK_TRAILER_LINE:
        if (c == '\n')
            r->state = CHUNK_TRAILER;
        return true;
    default: return false;
    }
}

int64_t response_feed(struct response *r, const char *p, size_t n, event_begin_fn *on_event) {
    size_t at = 0;

    while (at < n && r->state != RESPONSE_DONE) {
        if (r->state == RESPONSE_HEAD) {
            int64_t used = head_take(r, p + at, n - at);

            if (used < 0)
                return -1;
            at += (size_t)used;
        } else if (r->state == RESPONSE_FIXED || r->state == CHUNK_DATA) {
            at += body_take(r, p + at, n - at, on_event);
            if (!r->left)
                r->state = r->state == RESPONSE_FIXED ? RESPONSE_DONE : CHUNK_DATA_END;
        } else if (!frame_byte(r, p[at++])) {
            return -1;
        }
    }
    return (int64_t)at;
}

bool response_saw_done(const struct response *r) {
    static const char done[] = "data: [DONE]\n\n";

    return memcmp(r->tail + sizeof r->tail - (sizeof done - 1), done, sizeof done - 1) == 0;
}
