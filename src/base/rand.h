/* Random numbers for balancing and jitter (not for secrets), and ids. Per-thread state: no locks.
 * With a process seed set before threads start, thread number n always gets the same sequence. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* Fixes the process seed; without it (or with 0) the kernel's randomness seeds each thread. The
 * calling thread starts anew, other threads that have drawn numbers already do not. */
void rand_seed_process(uint64_t seed);
/* Starts the calling thread's sequence as thread `number`. Threads that must draw the same numbers
 * in every run call it; the others are numbered from 0 in the order of their first draw. */
void rand_seed_thread(uint32_t number);
/* The process seed in force, 0 when none was set. */
uint64_t rand_process_seed(void);
uint64_t rand_u64(void);
/* Uniform in 0..n-1; n > 0. */
uint64_t rand_below(uint64_t n);
/* Uniform in [0,1). */
double rand_unit(void);
/* `len` characters of [A-Za-z0-9] (no NUL added). */
void rand_alnum(char *out, size_t len);

/* A generator of one's own, for simulations: same seed, same numbers. */
struct rand_stream {
    uint64_t s[4];
};
void rand_stream_init(struct rand_stream *stream, uint64_t seed);
uint64_t rand_stream_u64(struct rand_stream *stream);
double rand_stream_unit(struct rand_stream *stream);

#define UUID_LEN 36
/* Version 7 UUID in lower-case text with NUL (37 bytes); from the kernel's randomness. */
void uuid_v7(char out[UUID_LEN + 1]);
/* True for 8-4-4-4-12 hex digits, any case. */
bool uuid_valid(struct str s);
