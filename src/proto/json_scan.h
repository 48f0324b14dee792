/* JSON read in place: checks a text and hands out the members of its top-level object as slices, without building
 * anything. Every proxied request passes through this once, so it costs a fraction of a parse. */
#pragma once

#include "base/str.h"

enum json_kind { JSON_INVALID, JSON_OBJECT, JSON_OTHER };

/* A member of the top-level object: the key between its quotes, undecoded, and the value's text. */
typedef void json_member_fn(void *arg, struct str key, struct str value);

/* Checks `text` (RFC 8259, valid UTF-8, at most JSON_MAX_DEPTH levels; numbers of any size) and calls `fn` for each
 * top-level member in order, duplicates included. Calls before a fault is found are not taken back. Never
 * allocates, never parks. */
enum json_kind json_scan(struct str text, json_member_fn *fn, void *arg);
