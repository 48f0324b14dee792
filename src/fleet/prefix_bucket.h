/* One bucket of the prefix table: the layout of its 512 bytes and what is done to it. The first 32
 * bytes say which slots may hold a hash and how old they are, so that one cache line is enough for
 * most searches; twelve slots are looked at in one step. Internal to prefix_table.c.
 *
 * All of it is read without a lock while one thread writes: words are loaded to acquire and stored
 * to release, so that who sees a later word sees the earlier ones. */
#pragma once

#include <stdatomic.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "fleet/prefix_table.h"

enum { SLOTS = 12 };

struct entry {
    _Atomic uint64_t hash;                    /* 0: free */
    _Atomic uint64_t holders[PREFIX_HOLDERS]; /* slot | generation << 16 | tick << 32 */
};

struct bucket {
    _Atomic uint64_t tags[2]; /* a byte of the hash for each slot, 0 = free; then `passed` */
    _Atomic uint64_t ages[2]; /* a byte for each slot: the epoch of the last use */
    struct entry entries[SLOTS];
};
_Static_assert(sizeof(struct bucket) == 512, "eight cache lines");

#define PASSED_SHIFT 32 /* upper half of tags[1]: entries that went on to the next bucket */
#define TAGS_1 UINT64_C(0xffffffff)

static inline uint64_t word(const _Atomic uint64_t *at) {
    return atomic_load_explicit(at, memory_order_acquire);
}

static inline void set_word(_Atomic uint64_t *at, uint64_t value) {
    atomic_store_explicit(at, value, memory_order_release);
}

static inline uint8_t byte_of(const _Atomic uint64_t words[2], unsigned slot) {
    return (uint8_t)(word(&words[slot / 8]) >> (slot % 8 * 8));
}

static inline void set_byte(_Atomic uint64_t words[2], unsigned slot, uint8_t value) {
    unsigned shift = slot % 8 * 8;
    uint64_t old = word(&words[slot / 8]);
    uint64_t new = (old & ~(UINT64_C(0xff) << shift)) | (uint64_t)value << shift;
    if (new != old)
        set_word(&words[slot / 8], new);
}

static inline uint8_t tag_of(uint64_t hash) {
    uint8_t tag = (uint8_t)(hash >> 32);
    return tag > 0 ? tag : 1;
}

static inline uint32_t passed(const struct bucket *bucket) {
    return (uint32_t)(word(&bucket->tags[1]) >> PASSED_SHIFT);
}

static inline void add_passed(struct bucket *bucket, int delta) {
    uint64_t old = word(&bucket->tags[1]);
    set_word(&bucket->tags[1], old + ((uint64_t)(int64_t)delta << PASSED_SHIFT));
}

typedef uint8_t lanes __attribute__((vector_size(16)));
typedef uint64_t halves __attribute__((vector_size(16)));

/* A byte for each slot; those past the last are 0. */
static inline lanes lanes_of(const _Atomic uint64_t words[2]) {
    return (lanes)(halves){word(&words[0]), word(&words[1]) & TAGS_1};
}

/* A bit for each byte that is 0xff and not 0. */
static inline unsigned bits_of(lanes marks) {
#ifdef __SSE2__
    return (unsigned)_mm_movemask_epi8((__m128i)marks);
#else
    halves both = ((halves)marks & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080);
    both >>= 56;
    return (unsigned)(both[0] | both[1] << 8);
#endif
}

/* Slots whose tag this is; 0: those that are free. */
static inline unsigned tagged(const struct bucket *bucket, uint8_t tag) {
    return bits_of((lanes)(lanes_of(bucket->tags) == tag)) & ((1u << SLOTS) - 1);
}

static inline int slot_in(const struct bucket *bucket, uint64_t hash) {
    for (unsigned some = tagged(bucket, tag_of(hash)); some != 0; some &= some - 1) {
        int slot = __builtin_ctz(some);
        if (word(&bucket->entries[slot].hash) == hash)
            return slot;
    }
    return -1;
}

/* The first slot that carries the tag, or -1. */
static inline int slot_tagged(const struct bucket *bucket, uint8_t tag) {
    unsigned some = tagged(bucket, tag);
    return some != 0 ? __builtin_ctz(some) : -1;
}

/* How due each slot is to go: its age in epochs + 1, at most UINT8_MAX; 0 where it is free. */
static inline lanes ranks_of(const struct bucket *bucket, uint8_t epoch) {
    lanes tags = lanes_of(bucket->tags), age = epoch - lanes_of(bucket->ages);
    return (age - (lanes)(age != UINT8_MAX)) & (lanes)(tags != 0);
}

/* The one byte by byte where the marks are set, the other elsewhere. */
static inline lanes choose(lanes marks, lanes yes, lanes no) {
    return (yes & marks) | (no & ~marks);
}

static inline lanes greater(lanes a, lanes b) { return choose((lanes)(a > b), a, b); }

/* The greatest byte. */
static inline uint8_t greatest(lanes bytes) {
    halves all = (halves)bytes;
    all = (halves)greater((lanes)all, (lanes)(halves){all[1], all[0]});
    for (int shift = 32; shift >= 8; shift /= 2)
        all = (halves)greater((lanes)all, (lanes)(all >> shift));
    return (uint8_t)all[0];
}
