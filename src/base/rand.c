/* xoshiro256++ for the numbers, splitmix64 to spread a seed over its state. Each thread has its own
 * state, seeded at first use: from the process seed and the thread's number when a seed is set, else
 * from the kernel. UUIDs draw on the kernel's randomness only, 256 bytes at a time, because they
 * must not repeat over processes and restarts that share a seed. */
#include "base/rand.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/panic.h"

enum { UUID_RANDOM_BYTES = 10, KERNEL_BATCH = 256 };

static _Atomic uint64_t process_seed;
static _Atomic uint32_t next_thread_number;

static _Thread_local struct rand_stream own;
static _Thread_local bool own_ready;

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t rotl(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* `len` is at most 256: the kernel gives so much in one piece or fails. */
static void kernel_bytes(void *out, size_t len) {
    ssize_t n;
    do {
        n = getrandom(out, len, 0);
    } while (n < 0 && errno == EINTR);
    assert_always(n == (ssize_t)len);
}

void rand_stream_init(struct rand_stream *stream, uint64_t seed) {
    for (int i = 0; i < 4; i++)
        stream->s[i] = splitmix64(&seed);
}

uint64_t rand_stream_u64(struct rand_stream *stream) {
    uint64_t *s = stream->s;
    uint64_t result = rotl(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double rand_stream_unit(struct rand_stream *stream) {
    return (double)(rand_stream_u64(stream) >> 11) * 0x1p-53;
}

void rand_seed_process(uint64_t seed) {
    atomic_store(&process_seed, seed);
    atomic_store(&next_thread_number, 0);
    own_ready = false;
}

uint64_t rand_process_seed(void) { return atomic_load(&process_seed); }

void rand_seed_thread(uint32_t number) {
    uint64_t seed = rand_process_seed();
    if (seed == 0) {
        kernel_bytes(&own, sizeof own);
    } else {
        /* Mixed before it meets the seed, so that neighbours' states are not shifted copies. */
        uint64_t place = number;
        rand_stream_init(&own, seed ^ splitmix64(&place));
    }
    own_ready = true;
}

static struct rand_stream *thread_stream(void) {
    if (__builtin_expect(!own_ready, 0))
        rand_seed_thread(atomic_fetch_add(&next_thread_number, 1));
    return &own;
}

uint64_t rand_u64(void) { return rand_stream_u64(thread_stream()); }

double rand_unit(void) { return rand_stream_unit(thread_stream()); }

/* The high half of a product with n is uniform once the low halves that come up once too often
 * (2^64 mod n of them) are drawn again. The division is needed only when a low half is below n. */
uint64_t rand_below(uint64_t n) {
    assert_always(n > 0);
    struct rand_stream *stream = thread_stream();
    unsigned __int128 product = (unsigned __int128)rand_stream_u64(stream) * n;
    if ((uint64_t)product < n) {
        uint64_t surplus = -n % n;
        while ((uint64_t)product < surplus)
            product = (unsigned __int128)rand_stream_u64(stream) * n;
    }
    return (uint64_t)(product >> 64);
}

void rand_alnum(char *out, size_t len) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    struct rand_stream *stream = thread_stream();
    for (size_t i = 0; i < len;) {
        uint64_t bits = rand_stream_u64(stream);
        for (int sextets = 10; sextets > 0 && i < len; sextets--, bits >>= 6) {
            if ((bits & 63) < 62)
                out[i++] = letters[bits & 63];
        }
    }
}

static void uuid_random(unsigned char *out) {
    static _Thread_local unsigned char batch[KERNEL_BATCH];
    static _Thread_local size_t left;
    if (left < UUID_RANDOM_BYTES) {
        kernel_bytes(batch, sizeof batch);
        left = sizeof batch;
    }
    left -= UUID_RANDOM_BYTES;
    memcpy(out, batch + left, UUID_RANDOM_BYTES);
}

void uuid_v7(char out[UUID_LEN + 1]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[16];
    uint64_t now = (uint64_t)clock_wall_ms();
    for (int i = 0; i < 6; i++)
        bytes[i] = (unsigned char)(now >> (40 - 8 * i));
    uuid_random(bytes + 6);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool uuid_valid(struct str s) {
    if (s.len != UUID_LEN)
        return false;
    for (size_t i = 0; i < UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? s.ptr[i] != '-' : !is_hex(s.ptr[i]))
            return false;
    }
    return true;
}
