/* Points in one sorted array, owners in another, so that a binary search touches points only. The
 * points are evenly spread hashes: one pass puts each near its place by its top bits, an insertion
 * sort does the rest. */
#include "fleet/hash_ring.h"

#include "base/hash.h"
#include "base/panic.h"
#include "fleet/fleet.h"

struct hash_ring {
    uint64_t *points; /* ascending; equal ones by owner */
    uint32_t *owners;
    size_t len;
    uint32_t count;
};

struct spot {
    uint64_t point;
    uint32_t owner;
};

enum { KEY_SEED = 1, ASKED_FEW = 16 };

/* --- making ---------------------------------------------------------------------------------- */

/* Which of `n` equal stretches of the ring. */
static size_t stretch(uint64_t point, size_t n) {
    return (size_t)((unsigned __int128)point * n >> 64);
}

static bool behind(const struct spot *a, const struct spot *b) {
    return a->point != b->point ? a->point > b->point : a->owner > b->owner;
}

/* Places every spot into its stretch. */
static void scatter(struct spot *placed, const struct spot *drawn, size_t n) {
    uint32_t *starts = mem_zalloc((n + 1) * sizeof *starts);
    for (size_t i = 0; i < n; i++)
        starts[stretch(drawn[i].point, n) + 1]++;
    for (size_t i = 0; i < n; i++)
        starts[i + 1] += starts[i];
    for (size_t i = 0; i < n; i++)
        placed[starts[stretch(drawn[i].point, n)]++] = drawn[i];
    mem_free(starts);
}

static void settle(struct spot *spots, size_t n) {
    for (size_t i = 1; i < n; i++) {
        struct spot spot = spots[i];
        size_t at = i;
        for (; at > 0 && behind(&spots[at - 1], &spot); at--)
            spots[at] = spots[at - 1];
        spots[at] = spot;
    }
}

static void split(struct hash_ring *ring, const struct spot *spots) {
    ring->points = mem_alloc((ring->len + 1) * sizeof *ring->points);
    ring->owners = mem_alloc((ring->len + 1) * sizeof *ring->owners);
    for (size_t i = 0; i < ring->len; i++) {
        ring->points[i] = spots[i].point;
        ring->owners[i] = spots[i].owner;
    }
}

static void place_name(struct str name, uint32_t owner, struct spot *spots) {
    uint64_t base = hash_str(name);
    for (uint64_t i = 0; i < HASH_RING_PLACES; i++)
        spots[i] = (struct spot){hash_seeded(&i, sizeof i, base), owner};
}

struct hash_ring *hash_ring_new(const struct str *names, size_t count) {
    struct hash_ring *ring = mem_zalloc(sizeof *ring);
    assert_always(count <= INT32_MAX / HASH_RING_PLACES);
    ring->len = count * HASH_RING_PLACES;
    ring->count = (uint32_t)count;
    struct spot *drawn = mem_alloc((ring->len + 1) * sizeof *drawn);
    struct spot *spots = mem_alloc((ring->len + 1) * sizeof *spots);
    for (size_t i = 0; i < count; i++)
        place_name(names[i], (uint32_t)i, drawn + i * HASH_RING_PLACES);
    scatter(spots, drawn, ring->len);
    settle(spots, ring->len);
    split(ring, spots);
    mem_free(drawn);
    mem_free(spots);
    return ring;
}

struct hash_ring *hash_ring_of(const struct fleet_group *group) {
    struct str *names = mem_alloc((group->count + 1) * sizeof *names);
    for (size_t i = 0; i < group->count; i++)
        names[i] = group->workers[i]->url;
    struct hash_ring *ring = hash_ring_new(names, group->count);
    mem_free(names);
    return ring;
}

void hash_ring_free(struct hash_ring *ring) {
    if (ring == NULL)
        return;
    mem_free(ring->points);
    mem_free(ring->owners);
    mem_free(ring);
}

size_t hash_ring_count(const struct hash_ring *ring) { return ring->count; }

/* --- looking up ------------------------------------------------------------------------------ */

uint64_t hash_ring_point(struct str key) { return hash_seeded(key.ptr, key.len, KEY_SEED); }

/* The first place at or behind the point; the ring has one. */
static size_t place_of(const struct hash_ring *ring, uint64_t point) {
    size_t low = 0, n = ring->len;
    while (n > 0) {
        size_t half = n / 2;
        bool right = ring->points[low + half] < point;
        low = right ? low + half + 1 : low;
        n = right ? n - half - 1 : half;
    }
    return low == ring->len ? 0 : low;
}

int hash_ring_owner(const struct hash_ring *ring, uint64_t point) {
    return ring->len > 0 ? (int)ring->owners[place_of(ring, point)] : -1;
}

/* Who was asked: a short list, and once that is full a bit for each. */
struct asked {
    uint32_t few[ASKED_FEW];
    uint32_t count;
    uint64_t *bits;
};

static bool asked_before(const struct asked *asked, uint32_t number) {
    if (asked->bits != NULL)
        return asked->bits[number / 64] >> (number % 64) & 1;
    for (uint32_t i = 0; i < asked->count; i++) {
        if (asked->few[i] == number)
            return true;
    }
    return false;
}

static void set_asked(struct asked *asked, uint32_t number) {
    asked->bits[number / 64] |= UINT64_C(1) << (number % 64);
}

static void note_asked(struct asked *asked, uint32_t number, uint32_t all) {
    if (asked->bits == NULL && asked->count == ASKED_FEW) {
        asked->bits = mem_zalloc((all / 64 + 1) * sizeof *asked->bits);
        for (uint32_t i = 0; i < ASKED_FEW; i++)
            set_asked(asked, asked->few[i]);
    }
    if (asked->bits != NULL)
        set_asked(asked, number);
    else
        asked->few[asked->count] = number;
    asked->count++;
}

int hash_ring_find(const struct hash_ring *ring, uint64_t point,
                   bool (*accept)(void *arg, uint32_t number), void *arg) {
    struct asked asked = {.count = 0};
    int found = -1;
    size_t at = ring->len > 0 ? place_of(ring, point) : 0;
    for (size_t i = 0; i < ring->len && asked.count < ring->count && found < 0; i++) {
        uint32_t number = ring->owners[at];
        at = at + 1 == ring->len ? 0 : at + 1;
        if (asked_before(&asked, number))
            continue;
        note_asked(&asked, number, ring->count);
        if (accept(arg, number))
            found = (int)number;
    }
    mem_free(asked.bits);
    return found;
}
