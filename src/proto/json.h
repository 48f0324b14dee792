/* JSON: reading through yyjson (in an arena), writing into a buf. Depth and size are bounded. */
#pragma once

#include <yyjson.h>

#include "base/arena.h"
#include "base/buf.h"

#define JSON_MAX_DEPTH 512

/* Parses; the document lives in `arena` (do not free it) and does not point into `text`. NULL with
 * *error (reason and position, in the arena; `error` may be NULL) when it is not JSON, is nested deeper
 * than JSON_MAX_DEPTH, is no valid UTF-8, or memory for a large document is lacking. */
yyjson_doc *json_parse(struct arena *arena, struct str text, struct str *error);
/* The member's value, or NULL when it is absent or `object` (may be NULL) is none. The last of duplicate
 * keys counts, as it does for the workers and for json_member_span. */
yyjson_val *json_get(yyjson_val *object, const char *key);
/* Member look-ups on objects: absent or of another type gives the fallback. Whole numbers only for
 * json_get_int, any number for json_get_num. */
struct str json_get_str(yyjson_val *object, const char *key, struct str fallback);
int64_t json_get_int(yyjson_val *object, const char *key, int64_t fallback);
double json_get_num(yyjson_val *object, const char *key, double fallback);
bool json_get_bool(yyjson_val *object, const char *key, bool fallback);
struct str json_str(yyjson_val *value); /* ptr NULL when no string */

/* The text of a parsed value, compact, in the arena. */
struct str json_text(struct arena *arena, yyjson_val *value);

/* A writer that puts commas and escapes. Errors stick; json_writer_end tells. Nothing parks. */
struct json_writer {
    struct buf buf;
    unsigned char need_comma;
    int error;
};
void json_writer_init(struct json_writer *writer, size_t max);
void json_object(struct json_writer *writer);
void json_object_end(struct json_writer *writer);
void json_array(struct json_writer *writer);
void json_array_end(struct json_writer *writer);
/* The key of the next value. */
void json_key(struct json_writer *writer, const char *key);
void json_key_str(struct json_writer *writer, struct str key);
void json_string(struct json_writer *writer, struct str value); /* invalid UTF-8 becomes U+FFFD */
void json_int(struct json_writer *writer, int64_t value);
void json_double(struct json_writer *writer,
                 double value); /* shortest; NaN and infinity become null */
void json_bool(struct json_writer *writer, bool value);
void json_null(struct json_writer *writer);
/* Bytes that are JSON already. */
void json_raw(struct json_writer *writer, struct str json);
/* Copies the text into the arena and frees the buffer; ptr NULL on an error (over `max`, no memory). */
struct str json_writer_end(struct json_writer *writer, struct arena *arena);

/* key and value in one. */
void json_kv_str(struct json_writer *writer, const char *key, struct str value);
void json_kv_int(struct json_writer *writer, const char *key, int64_t value);
void json_kv_double(struct json_writer *writer, const char *key, double value);
void json_kv_bool(struct json_writer *writer, const char *key, bool value);

/* Byte positions in the original text of a top-level member's value, for splicing without
 * re-serialising: [start, end) of the value, 0 or -ENOENT. `text` is a valid JSON object (other bytes give
 * -ENOENT or a span that means nothing, never a read past the end). `key` is the decoded key; escapes in
 * the text's keys are understood. The last of duplicate keys counts. One walk, no memory. */
int json_member_span(struct str text, struct str key, size_t *start, size_t *end) MUST_CHECK;
