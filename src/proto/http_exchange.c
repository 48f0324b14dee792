/* What handlers see of a request and its answer (http_server.h), on the exchange's own fiber. */
#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/panic.h"
#include "proto/http_server_core.h"
#include "proto/json.h"

#define BODY_FREE (1024 * 1024) /* bytes a body may take without asking the budget */
#define BODY_STEP (1024 * 1024)
#define BODY_FIRST 65536 /* reserved at once for a body of known length */
#define BUDGET_RETRY_MS 20
#define DATE_TICK_MS 100
#define PEER_TEXT 64

static struct { _Atomic uint64_t limit, used; } budget;

void http_body_budget(uint64_t bytes) { atomic_store(&budget.limit, bytes); }

static bool budget_take(uint64_t bytes) {
    uint64_t limit = atomic_load(&budget.limit);
    uint64_t used = atomic_fetch_add(&budget.used, bytes) + bytes;
    if (limit == 0 || used <= limit)
        return true;
    atomic_fetch_sub(&budget.used, bytes);
    return false;
}

/* No waiting for what cannot come. */
static bool budget_never(uint64_t bytes) {
    uint64_t limit = atomic_load(&budget.limit);
    return limit != 0 && bytes > limit;
}

static void budget_give(struct exchange *exchange) {
    if (exchange->budget > 0)
        atomic_fetch_sub(&budget.used, exchange->budget);
    exchange->budget = 0;
}

static FIBER_FN enum problem_id body_wait(struct exchange *exchange, deadline_ms deadline);

/* --- life --- */

struct exchange *exchange_new(struct http_conn *conn) {
    struct arena *arena = arena_new();
    struct exchange *exchange = arena_zalloc(arena, sizeof *exchange);
    exchange->conn = conn;
    exchange->arena = arena;
    exchange->body_allowed = BODY_FREE;
    http1_head_init(&exchange->head, arena, &conn->server->limits);
    return exchange;
}

void exchange_free(struct exchange *exchange) {
    exchange_drop_body(exchange);
    arena_free(exchange->arena);
}

static enum http_method method_of(uint8_t method) {
    static const struct {
        uint8_t theirs;
        enum http_method ours;
    } table[] = {
        {HTTP_GET, HTTP_GET_METHOD},         {HTTP_HEAD, HTTP_HEAD_METHOD},
        {HTTP_POST, HTTP_POST_METHOD},       {HTTP_PUT, HTTP_PUT_METHOD},
        {HTTP_PATCH, HTTP_PATCH_METHOD},     {HTTP_DELETE, HTTP_DELETE_METHOD},
        {HTTP_OPTIONS, HTTP_OPTIONS_METHOD},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].theirs == method)
            return table[i].ours;
    return HTTP_OTHER_METHOD;
}

/* An absolute target ("http://host/path") is served by its path. */
static struct str target_path(struct str target) {
    ptrdiff_t scheme = target.ptr[0] == '/' ? -1 : str_find(target, STR("://"));
    if (scheme < 0)
        return target;
    struct str rest = str_skip(target, (size_t)scheme + 3);
    ptrdiff_t slash = str_find_char(rest, '/');
    return slash < 0 ? STR("/") : str_skip(rest, (size_t)slash);
}

static void request_fill(struct exchange *exchange) {
    const struct http1_head *head = &exchange->head;
    const struct http1 *parser = &exchange->conn->parser;
    struct http_request *request = &exchange->request;
    request->method = method_of(parser->ll.method);
    request->method_text = str_make(head->bytes + head->method_at, head->method_len);
    request->target = str_make(head->bytes + head->url_at, head->url_len);
    struct str path = target_path(request->target);
    ptrdiff_t mark = str_find_char(path, '?');
    request->path = mark < 0 ? path : str_head(path, (size_t)mark);
    request->query = mark < 0 ? STR_NONE : str_skip(path, (size_t)mark + 1);
    request->headers =
        (struct headers){.items = head->fields, .len = head->count, .cap = head->field_cap};
    request->host = headers_get(&request->headers, STR("host"));
    request->minor = parser->ll.http_minor;
    bool chunked = parser->ll.flags & F_CHUNKED;
    request->content_length = chunked ? UINT64_MAX : parser->ll.content_length;
    request->has_body = chunked || (parser->ll.flags & F_CONTENT_LENGTH);
}

enum problem_id exchange_head_done(struct exchange *exchange) {
    const struct http_server_options *options = &exchange->conn->server->options;
    request_fill(exchange);
    exchange->started_us = clock_us();
    enum problem_id fault = http1_request_check(&exchange->conn->parser);
    if (fault != PROBLEM_NONE)
        return fault;
    exchange->keep_alive = http1_keep_alive(&exchange->conn->parser);
    struct http_request *request = &exchange->request;
    exchange->body = buf_make(options->max_body);
    exchange->wants_continue =
        headers_has_token(&request->headers, STR("expect"), STR("100-continue"));
    if (!request->has_body || request->content_length == 0 || request->minor == 0)
        exchange->wants_continue = false;
    if (request->content_length != UINT64_MAX && request->content_length > options->max_body)
        exchange->body_fault = PROBLEM_PAYLOAD_TOO_LARGE;
    return PROBLEM_NONE;
}

/* A small body is awaited before the handler runs, also where the handler will not look at it: so how a request is
 * cut into packets decides neither what is answered nor whether the connection is kept. */
static FIBER_FN enum problem_id body_first(struct exchange *exchange) {
    const struct http_request *request = &exchange->request;
    bool known = request->content_length != UINT64_MAX;
    if (!request->has_body || exchange->wants_continue || exchange->body_fault != PROBLEM_NONE ||
        (known && request->content_length > BODY_FIRST))
        return PROBLEM_NONE;
    enum problem_id problem = PROBLEM_NONE;
    while (problem == PROBLEM_NONE && !exchange->body_done && !exchange->starved)
        problem = body_wait(exchange, DEADLINE_NEVER);
    bool malformed = exchange->body_fault == PROBLEM_BAD_REQUEST;
    return malformed ? PROBLEM_BAD_REQUEST : problem;
}

/* Ends an exchange that no handler has seen. */
static FIBER_FN void refuse(struct exchange *exchange, enum problem_id fault) {
    const struct http_server_options *options = &exchange->conn->server->options;
    struct problem problem = {.id = fault};
    exchange->body_fault = fault;
    if (!exchange->gone)
        (void)exchange_problem(exchange, problem, NULL);
    if (options->refused != NULL)
        options->refused(options->arg, exchange, problem);
}

void exchange_main(void *arg) {
    struct exchange *exchange = arg;
    struct http_conn *conn = exchange->conn;
    exchange->fiber = fiber_self();
    enum problem_id fault = body_first(exchange);
    if (fault == PROBLEM_NONE)
        conn->server->options.handler(conn->server->options.arg, exchange);
    else
        refuse(exchange, fault);
    if (!exchange->head_given && !exchange->gone && !exchange->aborted && !exchange->cut)
        (void)exchange_problem(exchange, (struct problem){.id = PROBLEM_INTERNAL}, NULL);
    conn_exchange_done(conn);
}

/* --- the request --- */

const struct http_request *exchange_request(const struct exchange *exchange) {
    return &exchange->request;
}
struct arena *exchange_arena(struct exchange *exchange) {
    return exchange->arena;
}
int64_t exchange_started_us(const struct exchange *exchange) { return exchange->started_us; }
bool exchange_client_gone(const struct exchange *exchange) { return exchange->gone; }

struct str exchange_peer(struct exchange *exchange) {
    char text[PEER_TEXT];
    peer_address_text(&exchange->conn->peer, text, sizeof text);
    return arena_dup(exchange->arena, str_from(text));
}

void exchange_body_bytes(struct exchange *exchange, const char *ptr, size_t len) {
    if (len == 0 || exchange->body_fault != PROBLEM_NONE)
        return;
    exchange->bytes_in += len;
    uint64_t known = exchange->request.content_length;
    if (exchange->body.len == 0 && known != UINT64_MAX &&
        buf_reserve(&exchange->body, known < BODY_FIRST ? known : BODY_FIRST) < 0)
        exchange->body_fault = PROBLEM_OVERLOADED;
    int rc = buf_append(&exchange->body, ptr, len);
    if (rc < 0)
        exchange->body_fault = rc == -EMSGSIZE ? PROBLEM_PAYLOAD_TOO_LARGE : PROBLEM_OVERLOADED;
    if (exchange->body.len >= exchange->body_allowed || exchange->body_fault != PROBLEM_NONE)
        exchange->starved = true;
}

/* Room for the next part of a large body. Without it the connection stays unread: that is the back pressure. */
static FIBER_FN enum problem_id body_room(struct exchange *exchange, deadline_ms deadline) {
    uint64_t known = exchange->request.content_length;
    uint64_t step =
        known != UINT64_MAX && known > exchange->budget ? known - exchange->budget : BODY_STEP;
    while (!budget_take(step)) {
        if (clock_ms() >= deadline || budget_never(exchange->budget + step))
            return PROBLEM_OVERLOADED;
        if (fiber_sleep(BUDGET_RETRY_MS) < 0)
            return PROBLEM_CLIENT_GONE;
    }
    exchange->budget += step;
    exchange->body_allowed += step;
    exchange->starved = false;
    conn_resume(exchange->conn);
    return PROBLEM_NONE;
}

static FIBER_FN int send_continue(struct exchange *exchange, deadline_ms deadline) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec part = {.iov_base = (void *)text, .iov_len = sizeof text - 1};
    exchange->wants_continue = false;
    if (exchange->head_given) /* too late for an interim answer */
        return 0;
    int rc = stream_write(&exchange->conn->stream, &part, 1, deadline);
    if (rc < 0)
        exchange->gone = true;
    return rc;
}

/* Waits for the body's next step: its end, a fault, or hunger for budget. */
static FIBER_FN enum problem_id body_wait(struct exchange *exchange, deadline_ms deadline) {
    int64_t quiet = exchange->conn->server->options.body_idle_timeout_ms;
    size_t before = exchange->body.len;
    exchange->body_wanted = true;
    int rc = fiber_park(deadline_sooner(deadline, deadline_in(quiet)));
    exchange->body_wanted = false;
    if (rc == -ECANCELED)
        return PROBLEM_CLIENT_GONE;
    bool stuck = rc == -ETIMEDOUT && (exchange->body.len == before || clock_ms() >= deadline);
    return stuck && !exchange->body_done ? PROBLEM_BODY_TIMEOUT : PROBLEM_NONE;
}

static FIBER_FN enum problem_id body_read(struct exchange *exchange, deadline_ms deadline) {
    if (exchange->body_fault == PROBLEM_NONE && exchange->wants_continue &&
        exchange->body.len == 0 && send_continue(exchange, deadline) < 0)
        return PROBLEM_CLIENT_GONE;
    enum problem_id problem = exchange->body_fault;
    while (problem == PROBLEM_NONE && !exchange->body_done) {
        problem = exchange->starved ? body_room(exchange, deadline) : body_wait(exchange, deadline);
        if (problem == PROBLEM_NONE)
            problem = exchange->body_fault;
    }
    return problem;
}

static struct str too_large(struct exchange *exchange) {
    return arena_printf(exchange->arena, "request body larger than max_payload_size (%llu bytes)",
                        (unsigned long long)exchange->conn->server->options.max_body);
}

FIBER_FN struct problem exchange_body(struct exchange *exchange, deadline_ms deadline,
                                      struct str *body) {
    *body = STR_NONE;
    if (!exchange->request.has_body)
        exchange->body_done = exchange->body_done || exchange->request.content_length == 0;
    struct problem problem = {.id = body_read(exchange, deadline)};
    if (problem.id == PROBLEM_PAYLOAD_TOO_LARGE)
        problem.message = too_large(exchange);
    if (problem.id != PROBLEM_NONE)
        exchange->body_fault = problem.id;
    else
        *body = buf_str(&exchange->body);
    return problem;
}

void exchange_drop_body(struct exchange *exchange) {
    buf_free(&exchange->body);
    budget_give(exchange);
}

/* --- the answer's head --- */

static struct str date_line(void) {
    static _Thread_local struct {
        int64_t tick;
        char text[48];
        size_t len;
    } cache;
    int64_t tick = loop_now_ms() / DATE_TICK_MS + 1;
    if (tick != cache.tick) {
        struct tm tm;
        time_t seconds = (time_t)(clock_wall_ms() / 1000);
        gmtime_r(&seconds, &tm);
        cache.len =
            strftime(cache.text, sizeof cache.text, "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        cache.tick = tick;
    }
    return str_make(cache.text, cache.len);
}

static size_t headers_size(const struct headers *headers) {
    size_t size = 0;
    for (size_t i = 0; headers != NULL && i < headers->len; i++)
        size += headers->items[i].name.len + headers->items[i].value.len + 4;
    return size;
}

static char *put_headers(char *at, const struct headers *headers) {
    for (size_t i = 0; headers != NULL && i < headers->len; i++) {
        at = str_put(at, headers->items[i].name);
        at = str_put(at, STR(": "));
        at = str_put(at, headers->items[i].value);
        at = str_put(at, STR("\r\n"));
    }
    return at;
}

static bool bodiless(int status) { return status == 204 || status == 304 || status / 100 == 1; }

static char *put_framing(char *at, const struct exchange *exchange, int status) {
    if (exchange->chunked)
        return str_put(at, STR("transfer-encoding: chunked\r\n"));
    if (exchange->out_length == UINT64_MAX || bodiless(status))
        return at;
    at = str_put(at, STR("content-length: "));
    return str_put(str_put_u64(at, exchange->out_length), STR("\r\n"));
}

static void decide(struct exchange *exchange, int status, uint64_t length) {
    const struct http_request *request = &exchange->request;
    exchange->no_body = request->method == HTTP_HEAD_METHOD || bodiless(status);
    exchange->chunked = length == UINT64_MAX && request->minor >= 1 && !bodiless(status);
    exchange->out_length = length;
    if (length == UINT64_MAX && !exchange->chunked && !exchange->no_body)
        exchange->keep_alive = false;
    if (!exchange->body_done || exchange->body_fault != PROBLEM_NONE ||
        atomic_load_explicit(&exchange->conn->server->draining, memory_order_relaxed))
        exchange->keep_alive = false;
}

static struct str connection_line(const struct exchange *exchange) {
    if (!exchange->keep_alive)
        return STR("connection: close\r\n");
    return exchange->request.minor == 0 ? STR("connection: keep-alive\r\n") : STR("");
}

static struct str head_build(struct exchange *exchange, int status, const struct headers *headers) {
    struct str reason = status_reason(status), date = date_line();
    size_t room = 128 + reason.len + date.len + headers_size(headers);
    char *start = arena_alloc(exchange->arena, room), *at = start;
    at = str_put(at, STR("HTTP/1.1 "));
    at = str_put(str_put_u64(at, (uint64_t)status), STR(" "));
    at = str_put(at, reason);
    at = str_put(at, STR("\r\n"));
    at = put_headers(at, headers);
    at = put_framing(at, exchange, status);
    at = str_put(at, connection_line(exchange));
    if (headers == NULL || headers_get(headers, STR("date")).ptr == NULL) /* a worker's own stays */
        at = str_put(at, date);
    at = str_put(at, STR("\r\n"));
    assert_always((size_t)(at - start) <= room);
    return str_make(start, (size_t)(at - start));
}

/* --- sending --- */

static deadline_ms write_deadline(const struct exchange *exchange) {
    return loop_now_ms() + exchange->conn->server->options.write_timeout_ms;
}

static FIBER_FN int send_parts(struct exchange *exchange, const struct iovec *parts, int count) {
    if (exchange->gone || exchange->aborted)
        return -EPIPE;
    if (exchange->head_us == 0)
        exchange->head_us = clock_us();
    int rc = stream_write(&exchange->conn->stream, parts, count, write_deadline(exchange));
    if (rc < 0 && rc != -ECANCELED)
        exchange->gone = true;
    if (rc < 0)
        exchange->keep_alive = false;
    return rc;
}

static struct iovec part_of(struct str s) {
    return (struct iovec){.iov_base = (void *)s.ptr, .iov_len = s.len};
}

/* The head, if it has not gone out yet, goes first. */
static int take_head(struct exchange *exchange, struct iovec *parts) {
    if (exchange->out_head.len == 0)
        return 0;
    parts[0] = part_of(exchange->out_head);
    exchange->out_head = STR_NONE;
    return 1;
}

static void head_given(struct exchange *exchange, int status, const struct headers *headers,
                       uint64_t length) {
    assert_always(!exchange->head_given);
    exchange->head_given = true;
    exchange->status = status;
    decide(exchange, status, length);
    exchange->out_head = head_build(exchange, status, headers);
}

FIBER_FN int exchange_respond(struct exchange *exchange, int status, const struct headers *headers,
                              struct str body) {
    head_given(exchange, status, headers, body.len);
    struct iovec parts[2];
    int count = take_head(exchange, parts);
    if (!exchange->no_body && body.len > 0) {
        parts[count++] = part_of(body);
        exchange->out_body = body.len;
    }
    exchange->ended = true;
    return send_parts(exchange, parts, count);
}

void exchange_begin(struct exchange *exchange, int status, const struct headers *headers,
                    uint64_t length) {
    head_given(exchange, status, headers, length);
}

static FIBER_FN int write_chunk(struct exchange *exchange, struct str piece) {
    char size[20], *end = str_put(str_put_hex(size, piece.len), STR("\r\n"));
    struct iovec parts[4];
    int count = take_head(exchange, parts);
    parts[count++] = (struct iovec){.iov_base = size, .iov_len = (size_t)(end - size)};
    parts[count++] = part_of(piece);
    parts[count++] = part_of(STR("\r\n"));
    return send_parts(exchange, parts, count);
}

FIBER_FN int exchange_write(struct exchange *exchange, struct str piece) {
    assert_always(exchange->head_given && !exchange->ended);
    if (piece.len == 0)
        return 0;
    if (exchange->no_body)
        return exchange_flush(exchange);
    exchange->out_body += piece.len;
    if (exchange->chunked)
        return write_chunk(exchange, piece);
    assert_always(exchange->out_body <= exchange->out_length);
    struct iovec parts[2];
    int count = take_head(exchange, parts);
    parts[count++] = part_of(piece);
    return send_parts(exchange, parts, count);
}

FIBER_FN int exchange_flush(struct exchange *exchange) {
    struct iovec parts[1];
    int count = take_head(exchange, parts);
    return count == 0 ? 0 : send_parts(exchange, parts, count);
}

FIBER_FN int exchange_end(struct exchange *exchange) {
    assert_always(exchange->head_given && !exchange->ended);
    bool short_body = exchange->out_length != UINT64_MAX && !exchange->no_body &&
                      exchange->out_body < exchange->out_length;
    if (short_body || exchange->gone || exchange->aborted) {
        exchange_abort(exchange);
        return -EPIPE;
    }
    struct iovec parts[2];
    int count = take_head(exchange, parts);
    if (exchange->chunked && !exchange->no_body)
        parts[count++] = part_of(STR("0\r\n\r\n"));
    exchange->ended = true;
    return count == 0 ? 0 : send_parts(exchange, parts, count);
}

void exchange_cut(struct exchange *exchange) {
    exchange->cut = true;
    exchange->keep_alive = false;
}

FIBER_FN int exchange_raw(struct exchange *exchange, struct str bytes) {
    struct iovec parts[2];
    int count = take_head(exchange, parts);
    parts[count++] = part_of(bytes);
    exchange_cut(exchange);
    return send_parts(exchange, parts, count);
}

void exchange_abort(struct exchange *exchange) {
    exchange->aborted = true;
    exchange->keep_alive = false;
}

bool exchange_head_sent(const struct exchange *exchange) { return exchange->head_us != 0; }
int exchange_status(const struct exchange *exchange) { return exchange->status; }
uint64_t exchange_bytes_in(const struct exchange *exchange) { return exchange->bytes_in; }
uint64_t exchange_bytes_out(const struct exchange *exchange) { return exchange->out_body; }
int64_t exchange_head_us(const struct exchange *exchange) { return exchange->head_us; }

/* --- error answers --- */

struct str problem_json(struct arena *arena, struct problem problem) {
    struct json_writer writer;
    int status = problem_status(problem.id);
    json_writer_init(&writer, 16384);
    json_object(&writer);
    json_key(&writer, "error");
    json_object(&writer);
    json_kv_str(&writer, "type",
                problem.id == PROBLEM_JSON_PARSE ? STR("invalid_request_error")
                                                 : status_reason(status));
    json_kv_str(&writer, "code", problem_code(problem.id));
    json_kv_str(&writer, "message", problem_text(problem));
    json_key(&writer, "param");
    json_null(&writer);
    json_object_end(&writer);
    json_object_end(&writer);
    return json_writer_end(&writer, arena);
}

static struct headers problem_headers(struct exchange *exchange, struct problem problem,
                                      const struct headers *extra) {
    struct headers headers = {0};
    headers_add(&headers, exchange->arena, STR("content-type"), STR("application/json"));
    headers_add(&headers, exchange->arena, STR("x-smg-error-code"), problem_code(problem.id));
    for (size_t i = 0; extra != NULL && i < extra->len; i++)
        headers_add(&headers, exchange->arena, extra->items[i].name, extra->items[i].value);
    return headers;
}

FIBER_FN int exchange_problem(struct exchange *exchange, struct problem problem,
                              const struct headers *extra) {
    struct headers headers = problem_headers(exchange, problem, extra);
    return exchange_respond(exchange, problem_status(problem.id), &headers,
                            problem_json(exchange->arena, problem));
}

struct str exchange_refusal(struct exchange *exchange, struct problem problem) {
    struct headers headers = problem_headers(exchange, problem, NULL);
    struct str body = problem_json(exchange->arena, problem);
    exchange->request.minor = 1;
    exchange->keep_alive = false;
    head_given(exchange, problem_status(problem.id), &headers, body.len);
    exchange->ended = true;
    return arena_printf(exchange->arena, "%.*s%.*s", STR_ARG(exchange->out_head), STR_ARG(body));
}
