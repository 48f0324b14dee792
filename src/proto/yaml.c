/* libyaml's events, written down as JSON text while they come. A stack of open collections, of fixed
 * depth, says whether a scalar is a key; each open mapping remembers its keys, because a key that
 * stands twice is a mistake in a configuration. Aliases and tags are refused: without them the size
 * of the document is the size of the text. */
#include "proto/yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <yaml.h>

#include "base/map.h"

#define YAML_MAX_DEPTH 64
#define YAML_MAX_BYTES (4u << 20)
/* Escapes and quotes make JSON longer than the YAML it comes from, at most so many times. */
#define JSON_PER_YAML 8

struct open_node {
    bool mapping, key_next;
    struct map keys;
};

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    struct json_writer writer;
    struct open_node open[YAML_MAX_DEPTH];
    size_t depth;
    unsigned documents;
    struct yaml_error *error;
};

__attribute__((format(printf, 3, 4))) static int fail_at(struct reader *reader, size_t line,
                                                         const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(reader->error->reason, sizeof reader->error->reason, format, args);
    va_end(args);
    reader->error->line = (int)line + 1;
    return -EINVAL;
}

#define fail(reader, ...) fail_at((reader), (reader)->event.start_mark.line, __VA_ARGS__)

static struct str scalar_text(const yaml_event_t *event) {
    return str_make((const char *)event->data.scalar.value, event->data.scalar.length);
}

/* --- plain scalars: the core schema of YAML 1.2 ---------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool among(struct str text, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (str_eq(text, str_from(words[i])))
            return true;
    return false;
}

static bool is_null(struct str text) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    return among(text, words, sizeof words / sizeof *words);
}

static bool is_bool(struct str text, bool *value) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    *value = text.len == 4;
    return among(text, words, sizeof words / sizeof *words);
}

static size_t digits(struct str text) {
    size_t n = 0;
    while (n < text.len && is_digit(text.ptr[n]))
        n++;
    return n;
}

/* The pieces of a decimal number. */
struct number {
    bool negative, real;
    struct str whole, fraction, exponent; /* exponent with its sign */
};

static bool take_exponent(struct str *rest, struct number *out) {
    if (rest->len == 0 || (rest->ptr[0] != 'e' && rest->ptr[0] != 'E'))
        return true;
    struct str power = str_skip(*rest, 1);
    size_t sign = power.len > 0 && (power.ptr[0] == '-' || power.ptr[0] == '+');
    size_t count = digits(str_skip(power, sign));
    out->exponent = str_head(power, sign + count);
    out->real = true;
    *rest = str_skip(power, sign + count);
    return count > 0;
}

static bool is_number(struct str text, struct number *out) {
    *out = (struct number){0};
    out->negative = text.len > 0 && text.ptr[0] == '-';
    if (text.len > 0 && (text.ptr[0] == '-' || text.ptr[0] == '+'))
        text = str_skip(text, 1);
    out->whole = str_head(text, digits(text));
    struct str rest = str_skip(text, out->whole.len);
    if (rest.len > 0 && rest.ptr[0] == '.') {
        rest = str_skip(rest, 1);
        out->fraction = str_head(rest, digits(rest));
        out->real = true;
        rest = str_skip(rest, out->fraction.len);
    }
    if (out->whole.len + out->fraction.len == 0)
        return false;
    return take_exponent(&rest, out) && rest.len == 0;
}

static void write_number(struct reader *reader, struct number number) {
    char text[512];
    while (number.whole.len > 1 && number.whole.ptr[0] == '0')
        number.whole = str_skip(number.whole, 1);
    if (number.whole.len == 0)
        number.whole = STR("0");
    if (number.real && number.fraction.len == 0)
        number.fraction = STR("0");
    int len = snprintf(text, sizeof text, "%s%.*s%s%.*s%s%.*s", number.negative ? "-" : "",
                       STR_ARG(number.whole), number.real ? "." : "", STR_ARG(number.fraction),
                       number.exponent.len > 0 ? "e" : "", STR_ARG(number.exponent));
    json_raw(&reader->writer, str_make(text, (size_t)len));
}

static int hex_digit(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

/* 0o17 and 0xff. */
static bool is_based(struct str text, int64_t *value) {
    uint64_t number = 0;
    bool hex = str_starts(text, STR("0x"));
    if (text.len < 3 || (!hex && !str_starts(text, STR("0o"))))
        return false;
    for (size_t i = 2; i < text.len; i++) {
        int digit = hex_digit(text.ptr[i]);
        if (digit >= (hex ? 16 : 8) || number > INT64_MAX >> 4)
            return false;
        number = number * (hex ? 16 : 8) + (unsigned)digit;
    }
    *value = (int64_t)number;
    return true;
}

/* .inf and .nan have no place in JSON. */
static bool is_not_finite(struct str text) {
    static const char *const words[] = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"};
    if (text.len > 0 && (text.ptr[0] == '-' || text.ptr[0] == '+'))
        text = str_skip(text, 1);
    return among(text, words, sizeof words / sizeof *words);
}

static int write_plain(struct reader *reader, struct str text) {
    bool flag;
    int64_t integer;
    struct number number;
    if (is_null(text))
        json_null(&reader->writer);
    else if (is_bool(text, &flag))
        json_bool(&reader->writer, flag);
    else if (text.len < 300 && is_number(text, &number))
        write_number(reader, number);
    else if (is_based(text, &integer))
        json_int(&reader->writer, integer);
    else if (is_not_finite(text))
        return fail(reader, "infinity and NaN are not allowed");
    else
        json_string(&reader->writer, text);
    return 0;
}

/* --- events ---------------------------------------------------------------------------------- */

static struct open_node *innermost(struct reader *reader) {
    return reader->depth > 0 ? &reader->open[reader->depth - 1] : NULL;
}

/* A value has ended: in a mapping the next node is a key. */
static void value_done(struct reader *reader) {
    struct open_node *node = innermost(reader);
    if (node != NULL && node->mapping)
        node->key_next = true;
}

static int write_key(struct reader *reader, struct open_node *node, struct str key) {
    if (map_put(&node->keys, key, node) != NULL)
        return fail(reader, "the key '%.*s' stands twice", (int)(key.len < 64 ? key.len : 64),
                    key.ptr);
    json_key_str(&reader->writer, key);
    node->key_next = false;
    return 0;
}

static int on_scalar(struct reader *reader) {
    struct open_node *node = innermost(reader);
    const yaml_event_t *event = &reader->event;
    struct str text = scalar_text(event);
    int error = 0;
    if (event->data.scalar.tag != NULL)
        return fail(reader, "tags are not allowed");
    if (event->data.scalar.anchor != NULL)
        return fail(reader, "anchors are not allowed");
    if (node != NULL && node->key_next)
        return write_key(reader, node, text);
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        error = write_plain(reader, text);
    else
        json_string(&reader->writer, text);
    value_done(reader);
    return error;
}

static int open_node(struct reader *reader, bool mapping, const void *anchor, const void *tag) {
    struct open_node *outer = innermost(reader);
    if (tag != NULL || anchor != NULL)
        return fail(reader, "%s are not allowed", tag != NULL ? "tags" : "anchors");
    if (outer != NULL && outer->key_next)
        return fail(reader, "a key must be plain text");
    if (reader->depth == YAML_MAX_DEPTH)
        return fail(reader, "nested deeper than %d levels", YAML_MAX_DEPTH);
    struct open_node *node = &reader->open[reader->depth++];
    *node = (struct open_node){.mapping = mapping, .key_next = mapping};
    map_init(&node->keys);
    if (mapping)
        json_object(&reader->writer);
    else
        json_array(&reader->writer);
    return 0;
}

static int close_node(struct reader *reader) {
    struct open_node *node = &reader->open[--reader->depth];
    if (node->mapping)
        json_object_end(&reader->writer);
    else
        json_array_end(&reader->writer);
    map_free(&node->keys);
    value_done(reader);
    return 0;
}

static int on_event(struct reader *reader) {
    const yaml_event_t *event = &reader->event;
    switch (event->type) {
    case YAML_SCALAR_EVENT: return on_scalar(reader);
    case YAML_MAPPING_START_EVENT:
        return open_node(reader, true, event->data.mapping_start.anchor,
                         event->data.mapping_start.tag);
    case YAML_SEQUENCE_START_EVENT:
        return open_node(reader, false, event->data.sequence_start.anchor,
                         event->data.sequence_start.tag);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: return close_node(reader);
    case YAML_ALIAS_EVENT: return fail(reader, "aliases are not allowed");
    case YAML_DOCUMENT_START_EVENT:
        if (reader->documents++ > 0)
            return fail(reader, "more than one document");
        return 0;
    default: return 0;
    }
}

static int parser_problem(struct reader *reader) {
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
    size_t line = parser->problem_mark.line;
    if (parser->error == YAML_READER_ERROR)
        line = parser->mark.line;
    return fail_at(reader, line, "%s", problem);
}

/* Turns the whole text into events; `deliver` gets each one. */
static int pump(struct reader *reader, struct str yaml, int (*deliver)(struct reader *reader)) {
    int error = 0;
    bool end = false;
    if (!yaml_parser_initialize(&reader->parser))
        return fail_at(reader, 0, "out of memory");
    yaml_parser_set_encoding(&reader->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader->parser, (const unsigned char *)yaml.ptr, yaml.len);
    while (error == 0 && !end) {
        if (!yaml_parser_parse(&reader->parser, &reader->event)) {
            error = parser_problem(reader);
            break;
        }
        end = reader->event.type == YAML_STREAM_END_EVENT;
        error = deliver(reader);
        yaml_event_delete(&reader->event);
    }
    yaml_parser_delete(&reader->parser);
    return error;
}

static void close_all(struct reader *reader) {
    while (reader->depth > 0)
        map_free(&reader->open[--reader->depth].keys);
}

int yaml_to_json(struct arena *arena, struct str yaml, struct str *json, struct yaml_error *error) {
    struct reader *reader = arena_zalloc(arena, sizeof *reader);
    reader->error = error;
    *error = (struct yaml_error){0};
    if (yaml.len > YAML_MAX_BYTES)
        return fail_at(reader, 0, "larger than %u bytes", YAML_MAX_BYTES);
    json_writer_init(&reader->writer, (size_t)YAML_MAX_BYTES * JSON_PER_YAML);
    int result = pump(reader, yaml, on_event);
    close_all(reader);
    if (result == 0 && reader->writer.buf.len == 0)
        json_null(&reader->writer);
    *json = json_writer_end(&reader->writer, arena);
    if (result == 0 && json->ptr == NULL)
        result = fail_at(reader, 0, "too large");
    return result;
}

/* --- lines ----------------------------------------------------------------------------------- */

struct line_search {
    struct reader reader;
    struct yaml_error error;
    struct str key;
    size_t depth, nodes; /* open collections; nodes seen so far in the outermost one */
    int line;
};

static void search_scalar(struct line_search *search) {
    const yaml_event_t *event = &search->reader.event;
    if (search->depth != 1)
        return;
    if (search->nodes++ % 2 == 0 && str_eq(scalar_text(event), search->key) && search->line == 0)
        search->line = (int)event->start_mark.line + 1;
}

static int search_event(struct reader *reader) {
    struct line_search *search = (struct line_search *)reader;
    switch (reader->event.type) {
    case YAML_SCALAR_EVENT: search_scalar(search); break;
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        search->nodes += search->depth == 1;
        search->depth++;
        break;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: search->depth--; break;
    default: break;
    }
    return 0;
}

int yaml_line_of(struct str yaml, struct str key) {
    struct line_search *search = mem_zalloc(sizeof *search);
    search->key = key;
    search->reader.error = &search->error;
    int result = pump(&search->reader, yaml, search_event);
    int line = result == 0 ? search->line : 0;
    mem_free(search);
    return line;
}
