/* Writing JSON text straight into a buf. Strings go out in runs: a run is what needs no escape, found
 * eight bytes at a time. */
#include <errno.h>

#include "base/panic.h"
#include "base/utf8.h"
#include "proto/json.h"

void json_writer_init(struct json_writer *writer, size_t max) {
    *writer = (struct json_writer){.buf = buf_make(max)};
}

static void put(struct json_writer *writer, const void *ptr, size_t len) {
    if (writer->error == 0)
        writer->error = buf_append(&writer->buf, ptr, len);
}

/* Before a value or a key. */
static void begin(struct json_writer *writer) {
    if (writer->need_comma)
        put(writer, ",", 1);
    writer->need_comma = 1;
}

static void open_with(struct json_writer *writer, const char *bracket) {
    begin(writer);
    put(writer, bracket, 1);
    writer->need_comma = 0;
}

static void close_with(struct json_writer *writer, const char *bracket) {
    put(writer, bracket, 1);
    writer->need_comma = 1;
}

void json_object(struct json_writer *writer) { open_with(writer, "{"); }
void json_object_end(struct json_writer *writer) { close_with(writer, "}"); }
void json_array(struct json_writer *writer) { open_with(writer, "["); }
void json_array_end(struct json_writer *writer) { close_with(writer, "]"); }

static bool is_plain(unsigned char c) { return c >= 0x20 && c != '"' && c != '\\'; }

/* True when none of eight bytes is a control character, a quote or a backslash. */
static bool plain8(const char *ptr) {
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t word;
    memcpy(&word, ptr, sizeof word);
    uint64_t quote = word ^ (ones * '"'), slash = word ^ (ones * '\\');
    uint64_t hits =
        ((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash);
    return (hits & highs) == 0;
}

static size_t plain_run(struct str s) {
    size_t len = 0;
    while (s.len - len >= 8 && plain8(s.ptr + len))
        len += 8;
    while (len < s.len && is_plain((unsigned char)s.ptr[len]))
        len++;
    return len;
}

static void put_escape(struct json_writer *writer, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    static const char names[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    char name = c >= 0x20 ? (char)c : names[c];
    if (name)
        put(writer, (char[]){'\\', name}, 2);
    else
        put(writer, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

/* Valid UTF-8. */
static void put_escaped(struct json_writer *writer, struct str s) {
    while (s.len > 0) {
        size_t run = plain_run(s);
        put(writer, s.ptr, run);
        if (run < s.len)
            put_escape(writer, (unsigned char)s.ptr[run++]);
        s = str_skip(s, run);
    }
}

static void put_quoted(struct json_writer *writer, struct str s) {
    put(writer, "\"", 1);
    for (;;) {
        size_t valid = utf8_valid_prefix(s);
        put_escaped(writer, str_head(s, valid));
        if (valid == s.len)
            break;
        put(writer, "\xef\xbf\xbd", 3);
        s = str_skip(s, valid + 1);
    }
    put(writer, "\"", 1);
}

void json_key_str(struct json_writer *writer, struct str key) {
    begin(writer);
    put_quoted(writer, key);
    put(writer, ":", 1);
    writer->need_comma = 0;
}

void json_key(struct json_writer *writer, const char *key) { json_key_str(writer, str_from(key)); }

void json_string(struct json_writer *writer, struct str value) {
    begin(writer);
    put_quoted(writer, value);
}

static size_t decimal(char out[24], uint64_t magnitude, bool negative) {
    char *end = out + 24, *at = end;
    do
        *--at = (char)('0' + magnitude % 10);
    while (magnitude /= 10);
    if (negative)
        *--at = '-';
    memmove(out, at, (size_t)(end - at));
    return (size_t)(end - at);
}

void json_int(struct json_writer *writer, int64_t value) {
    char text[24];
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    begin(writer);
    put(writer, text, decimal(text, magnitude, value < 0));
}

/* The library's own shortest form, written into memory on the stack. */
void json_double(struct json_writer *writer, double value) {
    if (value != value || value - value != 0) {
        json_null(writer);
        return;
    }
    char memory[512];
    yyjson_alc alc;
    assert_always(yyjson_alc_pool_init(&alc, memory, sizeof memory));
    yyjson_val number = {0};
    yyjson_set_real(&number, value);
    size_t len;
    const char *text = yyjson_val_write_opts(&number, 0, &alc, &len, NULL);
    assert_always(text != NULL);
    begin(writer);
    put(writer, text, len);
}

void json_raw(struct json_writer *writer, struct str json) {
    begin(writer);
    put(writer, json.ptr, json.len);
}

void json_bool(struct json_writer *writer, bool value) {
    json_raw(writer, value ? STR("true") : STR("false"));
}

void json_null(struct json_writer *writer) { json_raw(writer, STR("null")); }

struct str json_writer_end(struct json_writer *writer, struct arena *arena) {
    struct str text = STR_NONE;
    if (writer->error == 0)
        text = arena_dup(arena, buf_str(&writer->buf));
    buf_free(&writer->buf);
    return text;
}

void json_kv_str(struct json_writer *writer, const char *key, struct str value) {
    json_key(writer, key);
    json_string(writer, value);
}

void json_kv_int(struct json_writer *writer, const char *key, int64_t value) {
    json_key(writer, key);
    json_int(writer, value);
}

void json_kv_double(struct json_writer *writer, const char *key, double value) {
    json_key(writer, key);
    json_double(writer, value);
}

void json_kv_bool(struct json_writer *writer, const char *key, bool value) {
    json_key(writer, key);
    json_bool(writer, value);
}
