/* Plain structs described by tables: read from JSON with range checks, copied, shown as JSON. A
 * field that was not given is "unset": text NULL, number FIELD_UNSET or NaN, bool -1, list NULL.
 * Nothing parks. */
#pragma once

#include "proto/json.h"

#define FIELD_UNSET INT64_MIN

enum field_kind {
    FIELD_TEXT,   /* struct str; max = bytes */
    FIELD_INT,    /* int64_t; min..max */
    FIELD_NUMBER, /* double; min..max */
    FIELD_BOOL,   /* int: -1, 0, 1 */
    FIELD_TEXTS,  /* struct text_list; max = items, of at most FIELD_TEXT_MAX bytes each */
    FIELD_OBJECT, /* struct str: the JSON text of an object; max = bytes */
};
enum field_flag {
    FIELD_HIDDEN = 1, /* never shown */
    FIELD_PATCH = 2,  /* may be changed by PATCH */
};
#define FIELD_TEXT_MAX 1024

struct text_list {
    struct str *items;
    size_t count;
};

struct field {
    const char *key;
    enum field_kind kind;
    unsigned flags;
    size_t offset;
    int64_t min, max;
};
struct field_table {
    const char *prefix; /* "health." in messages; "" at the top */
    const struct field *rows;
    size_t count;
};

/* All fields unset. */
void fields_clear(const struct field_table *table, void *target);
/* Sets what `object` gives (null counts as absent, unknown members are passed over); only rows
 * that have all of `flags`. Texts are not copied: they live as long as the document. 0, or
 * -EINVAL with *fault (in `arena`) naming the field and its limit; secrets are not quoted. */
int fields_read(struct arena *arena, const struct field_table *table, yyjson_val *object,
                unsigned flags, void *target, struct str *fault) MUST_CHECK;
/* Copies all fields into memory of `arena`. */
void fields_copy(struct arena *arena, const struct field_table *table, const void *from, void *to);
/* Takes over what is set in `from`, without copying texts. */
void fields_overlay(const struct field_table *table, const void *from, void *to);
/* True when a field is set that fields_write would show. */
bool fields_any(const struct field_table *table, const void *from);
/* Members for all fields that are set and not hidden; into an open object. */
void fields_write(struct json_writer *writer, const struct field_table *table, const void *from);

/* "FIELD: reason" for fields that no table reads; -EINVAL. */
int field_fault(struct arena *arena, struct str *fault, const char *prefix, const char *key,
                const char *reason);
/* A text field's rule: UTF-8 without NUL, at most `max` bytes. NULL, or the reason why not. */
bool field_text_ok(struct str text, int64_t max);
/* Copies a list into the arena. */
struct text_list text_list_copy(struct arena *arena, struct text_list list);
/* Writes any JSON value. */
void json_value(struct json_writer *writer, yyjson_val *value);
