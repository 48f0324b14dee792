/* See http1.h. */
#include "proto/http1.h"

#include <errno.h>

#include "base/panic.h"

#define FIELDS_FIRST 24
#define HEAD_SLACK 1

static struct http1 *of(llhttp_t *ll) { return ll->data; }

/* Offset of `at` from the first byte of the head. */
static size_t offset_of(const struct http1 *parser, const char *at) {
    return parser->head->len + (size_t)(at - parser->base);
}

static int fault(struct http1 *parser, enum problem_id id) {
    parser->head->fault = id;
    return HPE_USER;
}

/* --- llhttp callbacks: spans may come in several pieces --- */

static int on_method(llhttp_t *ll, const char *at, size_t len) {
    struct http1_head *head = of(ll)->head;
    if (head->method_len == 0)
        head->method_at = offset_of(of(ll), at);
    head->method_len += len;
    return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t len) {
    struct http1_head *head = of(ll)->head;
    if (head->url_len == 0)
        head->url_at = offset_of(of(ll), at);
    head->url_len += len;
    if (head->url_len > head->limits->line_bytes)
        return fault(of(ll), PROBLEM_URI_TOO_LONG);
    return 0;
}

static void fields_grow(struct http1_head *head) {
    size_t cap = head->field_cap ? head->field_cap * 2 : FIELDS_FIRST;
    struct header *fields = arena_alloc(head->arena, cap * sizeof *fields);
    if (head->count > 0)
        memcpy(fields, head->fields, head->count * sizeof *fields);
    head->fields = fields;
    head->field_cap = cap;
}

static int on_field(llhttp_t *ll, const char *at, size_t len) {
    struct http1_head *head = of(ll)->head;
    size_t offset = offset_of(of(ll), at);
    if (head->count > 0 && !head->in_value) {
        struct header *last = &head->fields[head->count - 1];
        if ((size_t)last->name.ptr + last->name.len == offset) {
            last->name.len += len;
            return 0;
        }
    }
    if (head->count >= head->limits->header_count)
        return fault(of(ll), PROBLEM_HEADERS_TOO_LARGE);
    if (head->count == head->field_cap)
        fields_grow(head);
    head->in_value = false;
    head->fields[head->count++] =
        (struct header){.name = {(const char *)offset, len}, .value = {NULL, 0}};
    return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t len) {
    struct http1_head *head = of(ll)->head;
    if (head->count == 0) /* a trailer after its head was taken: dropped */
        return 0;
    struct str *value = &head->fields[head->count - 1].value;
    size_t offset = offset_of(of(ll), at);
    if (!head->in_value)
        *value = (struct str){(const char *)offset, 0};
    else if ((size_t)value->ptr + value->len != offset)
        return fault(of(ll), PROBLEM_BAD_REQUEST); /* folded over lines */
    head->in_value = true;
    value->len += len;
    return 0;
}

static int on_headers_complete(llhttp_t *ll) {
    (void)ll;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t len) {
    struct http1 *parser = of(ll);
    if (parser->body == NULL)
        parser->body = (char *)at;
    else if (parser->body + parser->body_len != at)
        memmove(parser->body + parser->body_len, at, len);
    parser->body_len += len;
    return 0;
}

static int on_complete(llhttp_t *ll) {
    of(ll)->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t *settings(void) {
    static const llhttp_settings_t table = {
        .on_method = on_method,
        .on_url = on_url,
        .on_header_field = on_field,
        .on_header_value = on_value,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_complete,
    };
    return &table;
}

/* After the head has been taken, names and values are trailers: parsed, bounded, dropped. */
static int drop_span(llhttp_t *ll, const char *at, size_t len) {
    (void)at;
    struct http1_head *head = of(ll)->head;
    head->len += len;
    return head->len > head->limits->head_bytes ? fault(of(ll), PROBLEM_HEADERS_TOO_LARGE) : 0;
}

static const llhttp_settings_t *body_settings(void) {
    static const llhttp_settings_t table = {
        .on_header_field = drop_span,
        .on_header_value = drop_span,
        .on_body = on_body,
        .on_message_complete = on_complete,
    };
    return &table;
}

/* --- feeding --- */

void http1_init(struct http1 *parser, llhttp_type_t type) {
    memset(parser, 0, sizeof *parser);
    llhttp_init(&parser->ll, type, settings());
    parser->ll.data = parser;
}

void http1_begin(struct http1 *parser, struct http1_head *head) {
    llhttp_reset(&parser->ll);
    parser->ll.settings = (void *)settings();
    parser->head = head;
    parser->complete = false;
    parser->body = NULL;
    parser->body_len = 0;
}

void http1_head_init(struct http1_head *head, struct arena *arena,
                     const struct http1_limits *limits) {
    *head = (struct http1_head){.arena = arena, .limits = limits};
}

static int head_keep(struct http1_head *head, const char *ptr, size_t len) {
    if (head->len + len > head->limits->head_bytes)
        return -EMSGSIZE;
    if (head->len + len > head->cap) {
        size_t cap = head->cap == 0 ? len : (head->len + len) * 2;
        char *bytes = arena_alloc(head->arena, cap + HEAD_SLACK);
        if (head->len > 0)
            memcpy(bytes, head->bytes, head->len);
        head->bytes = bytes;
        head->cap = cap;
    }
    memcpy(head->bytes + head->len, ptr, len);
    head->len += len;
    return 0;
}

static void lower(char *name, size_t len) {
    static const char letters[256] = {
#define LETTER(c) [c] = 0x20
        LETTER('A'), LETTER('B'), LETTER('C'), LETTER('D'), LETTER('E'), LETTER('F'), LETTER('G'),
        LETTER('H'), LETTER('I'), LETTER('J'), LETTER('K'), LETTER('L'), LETTER('M'), LETTER('N'),
        LETTER('O'), LETTER('P'), LETTER('Q'), LETTER('R'), LETTER('S'), LETTER('T'), LETTER('U'),
        LETTER('V'), LETTER('W'), LETTER('X'), LETTER('Y'), LETTER('Z'),
#undef LETTER
    };
    for (size_t i = 0; i < len; i++)
        name[i] |= letters[(unsigned char)name[i]];
}

/* Turns offsets into pointers once all bytes lie where they will stay, and names into lower case. */
static void head_settle(struct http1_head *head) {
    for (size_t i = 0; i < head->count; i++) {
        struct header *field = &head->fields[i];
        char *name = head->bytes + (size_t)field->name.ptr;
        lower(name, field->name.len);
        field->name.ptr = name;
        field->value.ptr = head->bytes + (size_t)field->value.ptr;
        while (field->value.len > 0 && (field->value.ptr[field->value.len - 1] == ' ' ||
                                        field->value.ptr[field->value.len - 1] == '\t'))
            field->value.len--;
    }
}

static enum http1_progress fed_fault(struct http1 *parser) {
    if (parser->head->fault == PROBLEM_NONE)
        parser->head->fault = PROBLEM_BAD_REQUEST;
    return HTTP1_FAULT;
}

static bool in_head(const struct http1 *parser) {
    return parser->ll.settings == (const void *)settings();
}

static enum http1_progress feed_head(struct http1 *parser, char *ptr, size_t len, size_t *used) {
    struct http1_head *head = parser->head;
    llhttp_errno_t rc = llhttp_execute(&parser->ll, ptr, len);
    if (rc != HPE_OK && rc != HPE_PAUSED)
        return fed_fault(parser);
    *used = rc == HPE_OK ? len : (size_t)(llhttp_get_error_pos(&parser->ll) - ptr);
    if (head_keep(head, ptr, *used) < 0) {
        head->fault = PROBLEM_HEADERS_TOO_LARGE;
        return HTTP1_FAULT;
    }
    if (rc == HPE_OK)
        return HTTP1_MORE;
    head_settle(head);
    parser->ll.settings = (void *)body_settings();
    llhttp_resume(&parser->ll);
    return HTTP1_HEAD;
}

static enum http1_progress feed_body(struct http1 *parser, char *ptr, size_t len, size_t *used) {
    llhttp_errno_t rc = llhttp_execute(&parser->ll, ptr, len);
    if (rc == HPE_OK) {
        *used = len;
        return HTTP1_MORE;
    }
    bool upgrade = rc == HPE_PAUSED_UPGRADE && parser->complete;
    if (!upgrade && (rc != HPE_PAUSED || !parser->complete))
        return fed_fault(parser);
    *used = (size_t)(llhttp_get_error_pos(&parser->ll) - ptr);
    return HTTP1_COMPLETE;
}

enum http1_progress http1_feed(struct http1 *parser, char *ptr, size_t len, size_t *used) {
    parser->base = ptr;
    parser->body = NULL;
    parser->body_len = 0;
    *used = 0;
    if (in_head(parser))
        return feed_head(parser, ptr, len, used);
    return feed_body(parser, ptr, len, used);
}

enum http1_progress http1_end(struct http1 *parser) {
    parser->body = NULL;
    parser->body_len = 0;
    if (in_head(parser))
        return fed_fault(parser);
    llhttp_errno_t rc = llhttp_finish(&parser->ll);
    if ((rc == HPE_OK || rc == HPE_PAUSED) && parser->complete)
        return HTTP1_COMPLETE;
    return fed_fault(parser);
}

bool http1_keep_alive(const struct http1 *parser) {
    const struct headers headers = {.items = parser->head->fields, .len = parser->head->count};
    return llhttp_should_keep_alive(&parser->ll) &&
           !headers_has_token(&headers, STR("connection"), STR("close"));
}

void http1_no_body(struct http1 *parser) { parser->ll.flags |= F_SKIPBODY; }

/* --- what a strict server asks beyond the parser --- */

static bool target_ok(struct str target, bool options) {
    if (target.len == 0)
        return false;
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char)target.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == '#')
            return false;
    }
    return target.ptr[0] == '/' || (options && str_eq(target, STR("*"))) ||
           str_istarts(target, STR("http://")) || str_istarts(target, STR("https://"));
}

/* "METHOD SP target SP HTTP/1.x": exactly one space each, and a version we speak. */
static bool line_ok(const struct http1 *parser) {
    const struct http1_head *head = parser->head;
    const char *after = head->bytes + head->url_at + head->url_len;
    bool spaces = head->url_at == head->method_at + head->method_len + 1 && after[0] == ' ' &&
                  after[1] == 'H';
    bool version = parser->ll.http_major == 1 && parser->ll.http_minor <= 1;
    return spaces && version &&
           target_ok(str_make(head->bytes + head->url_at, head->url_len),
                     parser->ll.method == HTTP_OPTIONS);
}

static bool host_ok(struct str host) {
    for (size_t i = 0; i < host.len; i++) {
        unsigned char c = (unsigned char)host.ptr[i];
        if (c <= ' ' || c >= 0x7f || strchr("/\\@?#,\"<>^`{|}", c) != NULL)
            return false;
    }
    return true;
}

struct framing {
    size_t hosts, lengths, encodings;
    struct str host, encoding;
};

static void framing_look(struct framing *seen, const struct header *field) {
    if (str_eq(field->name, STR("host"))) {
        seen->hosts++;
        seen->host = field->value;
    } else if (str_eq(field->name, STR("content-length"))) {
        seen->lengths++;
    } else if (str_eq(field->name, STR("transfer-encoding"))) {
        seen->encodings++;
        seen->encoding = field->value;
    }
}

enum problem_id http1_request_check(const struct http1 *parser) {
    const struct http1_head *head = parser->head;
    struct framing seen = {0};
    for (size_t i = 0; i < head->count; i++)
        framing_look(&seen, &head->fields[i]);
    bool old = parser->ll.http_major == 1 && parser->ll.http_minor == 0;
    bool hosts = seen.hosts == 1 || (old && seen.hosts == 0);
    bool lengths = seen.lengths + seen.encodings <= 1;
    bool encoding = seen.encodings == 0 || (!old && str_ieq(seen.encoding, STR("chunked")));
    bool ok = hosts && lengths && encoding && line_ok(parser) && host_ok(seen.host);
    return ok ? PROBLEM_NONE : PROBLEM_BAD_REQUEST;
}
