/* Text lines are "2025-11-04 10:05:37  INFO target: file:line: message key=value"; JSON lines are one
 * object. What a client wrote must not be able to end the line, forge a field or drive a terminal:
 * control characters (C1 ones too) and bytes that are not UTF-8 are escaped, and text values are
 * quoted unless they are one plain word. */
#include "base/log_line.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/utf8.h"

enum {
    LINE_TAIL = 512, /* kept for target, file and closing braces */
    MAX_VALUE = 2048,
};

/* Values stop at `limit`, everything at `end`: so a long value costs neither the fields' closing
 * quotes nor the end of the line. */
struct line {
    char *at, *limit, *end;
};

enum escape { IN_MESSAGE = 1, IN_QUOTES = 3, IN_JSON = 7 };
/* Which bytes cannot stand as they are: 1 anywhere, 2 between quotes, 8 as a bare value. */
static const unsigned char byte_class[256] = {
    [0 ... 31] = 1 | 8, [' '] = 8,     ['"'] = 2 | 8,         ['='] = 8,
    ['\\'] = 2 | 8,     [127] = 1 | 8, [128 ... 255] = 1 | 8,
};

static void put(struct line *line, const char *ptr, size_t len) {
    size_t room = (size_t)(line->end - line->at);
    if (len > room)
        len = room;
    memcpy(line->at, ptr, len);
    line->at += len;
}
static void put_str(struct line *line, struct str s) { put(line, s.ptr, s.len); }
static void put_cstr(struct line *line, const char *text) { put(line, text, strlen(text)); }
#define put_lit(line, lit) put((line), lit, sizeof lit - 1)

static void put_int(struct line *line, int64_t number) {
    char digits[20], *at = digits + sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0)
        put_lit(line, "-");
    put(line, at, (size_t)(digits + sizeof digits - at));
}

static void put_real(struct line *line, double real) {
    char text[32];
    int len = snprintf(text, sizeof text, "%.9g", real);
    put(line, text, (size_t)len);
}

/* Length of the character at `s` when it may stand as it is: valid UTF-8, and none of the control
 * characters U+0080 to U+009F, which terminals obey. Else 0. */
static size_t good_character(struct str s) {
    unsigned char lead = (unsigned char)s.ptr[0];
    size_t len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC0 || len > s.len || !utf8_valid(str_head(s, len)))
        return 0;
    return lead == 0xC2 && (unsigned char)s.ptr[1] < 0xA0 ? 0 : len;
}

/* How many bytes of `s` can be copied. */
static size_t plain_run(struct str s, enum escape how) {
    size_t i = 0;
    while (i < s.len) {
        unsigned char byte = (unsigned char)s.ptr[i];
        if (!(byte_class[byte] & how)) {
            i++;
            continue;
        }
        size_t len = byte < 0x80 ? 0 : good_character(str_skip(s, i));
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

static void put_escape(struct line *line, unsigned char byte, enum escape how) {
    static const char hex[] = "0123456789abcdef";
    char named = byte == '\n' ? 'n' : byte == '\r' ? 'r' : byte == '\t' ? 't' : 0;
    if (byte == '"' || byte == '\\')
        named = (char)byte;
    if (named) {
        put(line, (char[]){'\\', named}, 2);
    } else if (how != IN_JSON) {
        put(line, (char[]){'\\', 'x', hex[byte >> 4], hex[byte & 15]}, 4);
    } else if (byte < 0x80) {
        put(line, (char[]){'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]}, 6);
    } else {
        put_lit(line, "\\ufffd");
    }
}

/* At most `max` bytes, whole characters. */
static struct str cut(struct str s, size_t max) {
    if (s.len <= max)
        return s;
    for (int back = 0; back < 3 && max > 0 && ((unsigned char)s.ptr[max] & 0xC0) == 0x80; back++)
        max--;
    return str_head(s, max);
}

static void put_escaped(struct line *line, struct str s, enum escape how) {
    struct str rest = cut(s, MAX_VALUE);
    bool whole = rest.len == s.len;
    while (rest.len > 0) {
        size_t run = plain_run(rest, how);
        size_t room = line->at + 6 < line->limit ? (size_t)(line->limit - line->at) - 6 : 0;
        if (run > room || room == 0) {
            put_str(line, cut(rest, room));
            whole = false;
            break;
        }
        put(line, rest.ptr, run);
        rest = str_skip(rest, run);
        if (rest.len == 0)
            break;
        put_escape(line, (unsigned char)rest.ptr[0], how);
        rest = str_skip(rest, 1);
    }
    if (!whole)
        put_lit(line, "...");
}

static bool needs_quotes(struct str s) {
    unsigned char seen = s.len == 0 || s.len > MAX_VALUE ? 8 : 0;
    for (size_t i = 0; i < s.len && !(seen & 8); i++)
        seen |= byte_class[(unsigned char)s.ptr[i]];
    return seen & 8;
}

static void put_value(struct line *line, const struct log_field *field, bool json) {
    if (field->kind == LOG_FIELD_INT) {
        put_int(line, field->number);
    } else if (field->kind == LOG_FIELD_BOOL) {
        put_cstr(line, field->number ? "true" : "false");
    } else if (field->kind == LOG_FIELD_FLOAT) {
        if (json && !isfinite(field->real))
            put_lit(line, "null");
        else
            put_real(line, field->real);
    } else if (json || needs_quotes(field->text)) {
        put_lit(line, "\"");
        put_escaped(line, field->text, json ? IN_JSON : IN_QUOTES);
        put_lit(line, "\"");
    } else {
        put_escaped(line, field->text, IN_QUOTES);
    }
}

/* "2025-11-04 10:05:37", kept per thread since most lines fall into the second of the last one. */
static const char *time_text(int64_t when_ns) {
    static _Thread_local struct {
        int64_t second;
        char text[25];
    } last = {.second = -1};
    int64_t second = when_ns / 1000000000;
    if (second != last.second) {
        clock_rfc3339(second * 1000, last.text, sizeof last.text);
        last.text[10] = ' ';
        last.second = second;
    }
    return last.text;
}

static const char level_names[][6] = {"DEBUG", " INFO", " WARN", "ERROR"};
enum { TIME_LEN = LOG_LEVEL_AT - 1 };

static void format_text(struct line *line, const struct log_event *event) {
    put(line, time_text(event->when_ns), TIME_LEN);
    put_lit(line, " ");
    put(line, level_names[event->level], LOG_LEVEL_LEN);
    put_lit(line, " ");
    put_cstr(line, event->target);
    put_lit(line, ": ");
    put_cstr(line, event->file);
    put_lit(line, ":");
    put_int(line, event->number);
    put_lit(line, ": ");
    put_escaped(line, str_from(event->message), IN_MESSAGE);
    for (size_t i = 0; i < event->count && line->at < line->limit; i++) {
        put_lit(line, " ");
        put_cstr(line, event->fields[i].key);
        put_lit(line, "=");
        put_value(line, &event->fields[i], false);
    }
}

static void put_json_time(struct line *line, int64_t when_ns) {
    const char *text = time_text(when_ns);
    int ms = (int)(when_ns / 1000000 % 1000);
    char tail[5] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10),
                    'Z'};
    put(line, text, 10);
    put_lit(line, "T");
    put(line, text + 11, 8);
    put(line, tail, sizeof tail);
}

static void format_json(struct line *line, const struct log_event *event) {
    put_lit(line, "{\"timestamp\":\"");
    put_json_time(line, event->when_ns);
    put_lit(line, "\",\"level\":\"");
    put_str(line, str_trim(str_from(level_names[event->level])));
    put_lit(line, "\",\"message\":\"");
    put_escaped(line, str_from(event->message), IN_JSON);
    put_lit(line, "\"");
    for (size_t i = 0; i < event->count && line->at < line->limit; i++) {
        put_lit(line, ",\"");
        put_cstr(line, event->fields[i].key);
        put_lit(line, "\":");
        put_value(line, &event->fields[i], true);
    }
    put_lit(line, ",\"target\":\"");
    put_cstr(line, event->target);
    put_lit(line, "\",\"filename\":\"");
    put_cstr(line, event->file);
    put_lit(line, "\",\"line_number\":");
    put_int(line, event->number);
    put_lit(line, "}");
}

size_t log_line_format(char *out, const struct log_event *event, bool json) {
    struct line line = {out, out + LOG_LINE_MAX - LINE_TAIL, out + LOG_LINE_MAX - 1};
    if (json)
        format_json(&line, event);
    else
        format_text(&line, event);
    *line.at++ = '\n';
    return (size_t)(line.at - out);
}
