/* Three bytes to four characters and back, a group at a time. */
#include "base/base64.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Value plus one; 0 for characters outside the alphabet. */
static const unsigned char values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

size_t base64_encode(struct str s, char *out) {
    const unsigned char *in = (const unsigned char *)s.ptr;
    char *start = out;
    for (size_t left = s.len; left > 0;) {
        size_t count = left < 3 ? left : 3;
        uint32_t group = (uint32_t)in[0] << 16;
        group |= count > 1 ? (uint32_t)in[1] << 8 : 0;
        group |= count > 2 ? in[2] : 0;
        *out++ = alphabet[group >> 18];
        *out++ = alphabet[group >> 12 & 63];
        *out++ = count > 1 ? alphabet[group >> 6 & 63] : '=';
        *out++ = count > 2 ? alphabet[group & 63] : '=';
        in += count;
        left -= count;
    }
    return (size_t)(out - start);
}

/* The `count` characters (2 to 4) of one group as count - 1 bytes; false when one of them is not of
 * the alphabet or bits are left over. */
static bool decode_group(const unsigned char *in, size_t count, unsigned char *out) {
    uint32_t group = 0;
    for (size_t i = 0; i < count; i++) {
        if (values[in[i]] == 0)
            return false;
        group |= (uint32_t)(values[in[i]] - 1) << (18 - 6 * i);
    }
    if (group & 0xffffffu >> 8 * (count - 1))
        return false;
    for (size_t i = 0; i + 1 < count; i++)
        out[i] = (unsigned char)(group >> (16 - 8 * i));
    return true;
}

ptrdiff_t base64_decode(struct str s, void *out) {
    if (s.len % 4 != 0)
        return -EINVAL;
    const unsigned char *in = (const unsigned char *)s.ptr;
    unsigned char *to = out;
    for (size_t left = s.len; left > 0; left -= 4, in += 4) {
        size_t count = 4;
        if (left == 4)
            count -= in[3] != '=' ? 0 : in[2] != '=' ? 1 : 2;
        if (!decode_group(in, count, to))
            return -EINVAL;
        to += count - 1;
    }
    return to - (unsigned char *)out;
}
