/* One seeded XXH3 a block, seeded with the hash before it: the chain costs no second pass and no
 * second call. Every block of 128 bytes is hashed, also where few are kept; what is kept is a
 * matter of position alone, so long and short keys agree on their common part. */
#include "fleet/prefix_key.h"

#include "base/hash.h"
#include "base/panic.h"

enum { STEP_BLOCKS = PREFIX_EXACT_BLOCKS / 2 }; /* kept before the step doubles again */

/* --- which blocks are kept ------------------------------------------------------------------- */

/* Blocks up to the end of the n-th kept one; n > 0. */
static uint64_t kept_end(uint64_t n) {
    if (n <= PREFIX_EXACT_BLOCKS)
        return n;
    uint64_t past = n - PREFIX_EXACT_BLOCKS, tier = (past - 1) / STEP_BLOCKS;
    return ((uint64_t)PREFIX_EXACT_BLOCKS << tier) + ((past - tier * STEP_BLOCKS) << (tier + 1));
}

/* Kept ones among the first `units` blocks. */
static uint64_t kept_within(uint64_t units) {
    if (units <= PREFIX_EXACT_BLOCKS)
        return units;
    unsigned tier = 63 - (unsigned)__builtin_clzll(units / PREFIX_EXACT_BLOCKS);
    uint64_t start = (uint64_t)PREFIX_EXACT_BLOCKS << tier;
    return PREFIX_EXACT_BLOCKS + (uint64_t)tier * STEP_BLOCKS + ((units - start) >> (tier + 1));
}

size_t prefix_key_room(struct prefix_shape shape, uint64_t length) {
    uint64_t units = length / shape.block;
    return (size_t)kept_within(units) + (units < PREFIX_TAIL_BLOCKS);
}

uint64_t prefix_key_depth(const struct prefix_key *key, size_t blocks) {
    assert_always(blocks <= key->count);
    if (blocks == 0)
        return 0;
    if (key->tail && blocks == key->count)
        return key->length;
    return kept_end(blocks) * key->shape.block;
}

/* --- hashing --------------------------------------------------------------------------------- */

uint64_t prefix_seed(struct str model, uint64_t salt) {
    return hash_seeded(model.ptr, model.len, salt);
}

void prefix_key_init(struct prefix_key *key, struct prefix_shape shape, uint64_t seed,
                     uint64_t *hashes, size_t cap) {
    size_t unit = (size_t)shape.block * shape.width;
    assert_always(unit > 0 && unit <= PREFIX_BLOCK_BYTES);
    key->hashes = hashes;
    key->count = 0;
    key->cap = cap;
    key->length = 0;
    key->shape = shape;
    key->unit = (uint16_t)unit;
    key->filled = 0;
    key->tail = false;
    key->chain = hash_seeded(&shape, sizeof shape, seed);
    key->units = 0;
    key->next = 1;
}

static void keep(struct prefix_key *key) {
    key->hashes[key->count++] = key->chain;
    key->next = kept_end(key->count + 1);
}

/* Whole blocks from `at`; stops early when the key is full. Bytes used. */
static size_t hash_blocks(struct prefix_key *key, const char *at, size_t len) {
    size_t unit = key->unit, used = 0;
    for (; len - used >= unit && key->count < key->cap; used += unit) {
        key->chain = hash_seeded(at + used, unit, key->chain);
        if (++key->units == key->next)
            keep(key);
    }
    return used;
}

/* Fills the block that the slice before left unfinished. Bytes used. */
static size_t top_up(struct prefix_key *key, struct str text) {
    size_t room = (size_t)(key->unit - key->filled), used = text.len < room ? text.len : room;
    memcpy(key->carry + key->filled, text.ptr, used);
    key->filled = (uint16_t)(key->filled + used);
    if (key->filled == key->unit) {
        hash_blocks(key, (const char *)key->carry, key->unit);
        key->filled = 0;
    }
    return used;
}

static void add_bytes(struct prefix_key *key, struct str text) {
    if (key->filled > 0 && text.len > 0)
        text = str_skip(text, top_up(key, text));
    if (key->count == key->cap)
        return;
    if (text.len >= key->unit)
        text = str_skip(text, hash_blocks(key, text.ptr, text.len));
    if (text.len > 0 && key->count < key->cap)
        top_up(key, text);
}

void prefix_key_add(struct prefix_key *key, struct str text) {
    key->length += text.len / key->shape.width;
    if (key->count < key->cap)
        add_bytes(key, text);
}

void prefix_key_add_ids(struct prefix_key *key, const uint32_t *ids, size_t count) {
    assert_always(key->shape.width == sizeof *ids);
    prefix_key_add(key, str_make((const char *)ids, count * sizeof *ids));
}

void prefix_key_end(struct prefix_key *key) {
    if (key->filled == 0 || key->units >= PREFIX_TAIL_BLOCKS || key->count == key->cap)
        return;
    key->hashes[key->count++] = hash_seeded(key->carry, key->filled, key->chain);
    key->tail = true;
}
