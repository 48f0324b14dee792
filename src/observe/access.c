/* The record is a log line with one field a fact, so that text and JSON logs both can be searched by
 * them. What the client chose is escaped by the log; what may be a secret is blanked here. */
#include "observe/access.h"

#include "base/panic.h"

enum { MAX_URI = 1024, MAX_WORKER = 512, MAX_FIELDS = 20 };

/* --- blanking secrets ------------------------------------------------------------------------ */

struct out {
    char *start, *at, *end;
    bool whole;
};

static void put(struct out *out, struct str s) {
    size_t room = (size_t)(out->end - out->at);
    if (s.len > room)
        out->whole = false;
    struct str part = str_head(s, room);
    if (part.len)
        memcpy(out->at, part.ptr, part.len);
    out->at += part.len;
}

static bool is_secret(struct str name) {
    static const struct str names[] = {
        STR_INIT("key"),    STR_INIT("token"),        STR_INIT("api_key"), STR_INIT("api-key"),
        STR_INIT("apikey"), STR_INIT("access_token"), STR_INIT("secret"),  STR_INIT("password"),
    };
    char plain[64];
    if (name.len > sizeof plain)
        return false;
    ptrdiff_t len = str_percent_decode(name, plain);
    struct str decoded = len < 0 ? name : str_make(plain, (size_t)len);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (str_ieq(decoded, names[i]))
            return true;
    }
    return false;
}

/* Up to the first of the two bytes. */
static struct str until(struct str s, char a, char b) {
    size_t len = 0;
    while (len < s.len && s.ptr[len] != a && s.ptr[len] != b)
        len++;
    return str_head(s, len);
}

/* What follows the question mark. Some servers also take ; between parameters. */
static void put_query(struct out *out, struct str query) {
    while (query.len > 0) {
        struct str part = until(query, '&', ';');
        struct str name = until(part, '=', '=');
        bool blank = name.len < part.len && is_secret(name);
        put(out, blank ? name : part);
        if (blank)
            put(out, STR("=***"));
        query = str_skip(query, part.len);
        put(out, str_head(query, 1));
        query = str_skip(query, 1);
    }
}

/* "scheme://user:password@host": where the name starts, and its length with the password's; 0 when
 * there is none. */
static size_t find_user(struct str url, size_t *start) {
    ptrdiff_t scheme = str_find(until(url, '?', '#'), STR("://"));
    if (scheme < 0)
        return 0;
    *start = (size_t)scheme + 3;
    struct str authority = until(str_skip(url, *start), '/', '?');
    for (size_t len = authority.len; len > 0; len--) {
        if (authority.ptr[len - 1] == '@')
            return len - 1;
    }
    return 0;
}

struct str access_redact(struct str url, char *buffer, size_t size) {
    assert_always(size >= 16);
    size_t user_at = 0, user_len = find_user(url, &user_at);
    ptrdiff_t query = str_find_char(url, '?');
    if (user_len == 0 && query < 0 && url.len <= size)
        return url;
    struct out out = {buffer, buffer, buffer + size - 3, true};
    struct str path = query < 0 ? url : str_head(url, (size_t)query + 1);
    if (user_len > 0) {
        put(&out, str_head(url, user_at));
        put(&out, STR("***"));
        path = str_skip(path, user_at + user_len);
    }
    put(&out, path);
    if (query >= 0)
        put_query(&out, str_skip(url, (size_t)query + 1));
    if (!out.whole) {
        memcpy(out.at, "...", 3);
        out.at += 3;
    }
    return str_make(out.start, (size_t)(out.at - out.start));
}

/* --- lines ----------------------------------------------------------------------------------- */

struct fields {
    size_t count;
    struct log_field items[MAX_FIELDS];
};

static void add(struct fields *fields, struct log_field field) {
    if (field.kind != LOG_FIELD_STR || field.text.len > 0)
        fields->items[fields->count++] = field;
}

static void write_line(enum log_level level, const char *target, const char *message,
                       const struct fields *fields) {
    log_write(level, target, __FILE__, __LINE__, message, fields->items, fields->count);
}

static void add_head(struct fields *fields, const struct access_record *record, struct str uri) {
    add(fields, F_STR("method", record->method));
    add(fields, F_STR("uri", uri));
    add(fields, F_STR("version", record->version));
    add(fields, F_STR("request_id", record->request_id));
}

static void add_end(struct fields *fields, const struct access_record *record, struct str worker) {
    add(fields, F_STR("route", record->route));
    add(fields, F_INT("status_code", record->status));
    add(fields, F_STR("error", record->error_code));
    if (record->latency_us >= 0)
        add(fields, F_INT("latency", record->latency_us));
    if (record->total_us >= 0)
        add(fields, F_INT("total", record->total_us));
    add(fields, F_INT("bytes_in", (int64_t)record->bytes_in));
    add(fields, F_INT("bytes_out", (int64_t)record->bytes_out));
    add(fields, F_STR("worker", worker));
    add(fields, F_STR("model", record->model));
    if (record->attempts > 0)
        add(fields, F_INT("attempts", record->attempts));
    add(fields, F_BOOL("stream", record->stream));
    add(fields, F_STR("client", record->client));
}

static enum log_level level_of(int status, const char **message) {
    if (status >= 500) {
        *message = "request failed with server error";
        return LOG_ERROR;
    }
    if (status >= 400) {
        *message = "request failed with client error";
        return LOG_WARN;
    }
    *message = "finished processing request";
    return LOG_INFO;
}

void access_log(const struct access_record *record) {
    const char *message;
    enum log_level level = level_of(record->status, &message);
    if (!log_enabled(level))
        return;
    char uri[MAX_URI], worker[MAX_WORKER];
    struct fields fields;
    fields.count = 0;
    add_head(&fields, record, access_redact(record->uri, uri, sizeof uri));
    add_end(&fields, record, access_redact(record->worker, worker, sizeof worker));
    write_line(level, "smg::response", message, &fields);
}

void access_log_start(const struct access_record *record) {
    char uri[MAX_URI];
    struct fields fields;
    fields.count = 0;
    add_head(&fields, record, access_redact(record->uri, uri, sizeof uri));
    add(&fields, F_STR("client", record->client));
    write_line(LOG_DEBUG, "smg::request", "started processing request", &fields);
}
