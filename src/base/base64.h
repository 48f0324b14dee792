/* Base64 with the standard alphabet and padding (RFC 4648 section 4). */
#pragma once

#include "base/str.h"

/* Characters that `len` bytes encode to (no NUL); 0 stays 0. */
static inline size_t base64_encoded_len(size_t len) { return (len / 3 + (len % 3 != 0)) * 4; }
/* Room that decoding `len` characters may need. */
static inline size_t base64_decoded_max(size_t len) { return len / 4 * 3; }

/* Encodes into `out`, which has base64_encoded_len(s.len) bytes; no NUL is added. Characters
 * written. `out` must not overlap `s`. */
size_t base64_encode(struct str s, char *out);
/* Decodes into `out`, which has base64_decoded_max(s.len) bytes and may be where `s` starts. Bytes
 * written, or -EINVAL: only one text is accepted for given bytes, so blanks, missing or misplaced
 * padding, the URL-safe alphabet and bits set behind the last byte are refused. On error `out` may
 * have been written in part. */
ptrdiff_t base64_decode(struct str s, void *out) MUST_CHECK;
