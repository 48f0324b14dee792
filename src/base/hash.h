/* 64-bit hashing (XXH3). Stable over runs for a given seed. */
#pragma once

#include "base/str.h"

uint64_t hash_bytes(const void *ptr, size_t len);
uint64_t hash_seeded(const void *ptr, size_t len, uint64_t seed);
static inline uint64_t hash_str(struct str s) { return hash_bytes(s.ptr, s.len); }
