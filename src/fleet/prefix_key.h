/* The routed key of a request as a chain of block hashes: block i's hash covers everything from
 * the start up to the block's end, so that two keys share hash i exactly when they share that much
 * of a prefix. Text comes as slices that are hashed where they lie, never joined; slice borders
 * leave no trace.
 *
 * A block is 128 bytes of text or 16 token ids. The first 512 blocks (64 KiB of text) are all
 * kept; behind them every 2nd, 4th, 8th ... one, the step doubling whenever the length has: a kept
 * block is then at most 1/256 of what precedes it, a key of 1 MiB has 1,536 of them and one of
 * 200 MB 3,600. What is left of the last block counts as a block of its own in keys of fewer than
 * 16 blocks, so that a short prompt is found whole when it comes again. */
#pragma once

#include "base/str.h"

/* How a key is cut: elements in a block, bytes in an element. A block has at most
 * PREFIX_BLOCK_BYTES bytes. Keys of different shapes have nothing in common. */
struct prefix_shape {
    uint16_t block;
    uint16_t width;
};
#define PREFIX_TEXT ((struct prefix_shape){128, 1})
#define PREFIX_IDS ((struct prefix_shape){16, 4})

enum { PREFIX_BLOCK_BYTES = 512, PREFIX_EXACT_BLOCKS = 512, PREFIX_TAIL_BLOCKS = 16 };

/* A plain value; one thread at a time. Read `hashes`, `count` and `length` after prefix_key_end. */
struct prefix_key {
    uint64_t *hashes; /* the caller's memory */
    size_t count, cap;
    uint64_t length; /* elements added: bytes of text or token ids */
    struct prefix_shape shape;
    /* The rest is prefix_key.c's. */
    uint16_t unit, filled;
    bool tail;
    uint64_t chain, units, next;
    unsigned char carry[PREFIX_BLOCK_BYTES];
};

/* What keys of a model start from: no two models, legs or adapters share a block. `salt` tells
 * apart what one model id covers (0: nothing). */
uint64_t prefix_seed(struct str model, uint64_t salt);
/* The most hashes that a key of `length` elements has; the room to give to prefix_key_init. */
size_t prefix_key_room(struct prefix_shape shape, uint64_t length);

/* Starts a key in `hashes`, which has room for `cap`: past that nothing is hashed any more, the
 * length still counts. */
void prefix_key_init(struct prefix_key *key, struct prefix_shape shape, uint64_t seed,
                     uint64_t *hashes, size_t cap);
/* Adds text. Whatever stands between two parts (a blank, a role mark) is added like any other. */
void prefix_key_add(struct prefix_key *key, struct str text);
/* Adds token ids, hashed in the machine's byte order. */
void prefix_key_add_ids(struct prefix_key *key, const uint32_t *ids, size_t count);
/* No more comes. */
void prefix_key_end(struct prefix_key *key);

/* Elements that the first `blocks` hashes of a finished key cover; blocks <= count. */
uint64_t prefix_key_depth(const struct prefix_key *key, size_t blocks);
