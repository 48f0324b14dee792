/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#pragma once

#include "base/str.h"

/* Length of the longest valid prefix: s.len when all of it is valid, else the offset of the first
 * byte of the bad or unfinished character. */
size_t utf8_valid_prefix(struct str s);
static inline bool utf8_valid(struct str s) { return utf8_valid_prefix(s) == s.len; }
/* Writes the code point as 1 to 4 bytes and says how many; 0 (nothing written) for surrogates and
 * numbers above U+10FFFF. */
size_t utf8_encode(uint32_t code, char out[4]);
