/* Validation in runs: eight ASCII bytes at a time, other characters one by one. The second byte's
 * range depends on the first, and that is all there is to overlong forms, surrogates and the top. */
#include "base/utf8.h"

/* Characters of more than one byte, by their first byte. */
static const struct form {
    unsigned char first, last; /* of the first byte */
    unsigned char low, high;   /* of the second byte */
    unsigned char len;
} forms[] = {
    {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static const struct form *form_of(unsigned char first) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (first >= forms[i].first && first <= forms[i].last)
            return &forms[i];
    }
    return NULL;
}

/* Bytes of the character at `p` (not ASCII), `left` > 0 bytes before the end; 0 when invalid. */
static size_t char_len(const unsigned char *p, size_t left) {
    const struct form *form = form_of(p[0]);
    if (form == NULL || left < form->len || p[1] < form->low || p[1] > form->high)
        return 0;
    for (size_t i = 2; i < form->len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return form->len;
}

static size_t ascii_run(const unsigned char *p, size_t left) {
    size_t n = 0;
    for (uint64_t word; left - n >= sizeof word; n += sizeof word) {
        memcpy(&word, p + n, sizeof word);
        if (word & 0x8080808080808080)
            break;
    }
    while (n < left && p[n] < 0x80)
        n++;
    return n;
}

size_t utf8_valid_prefix(struct str s) {
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t at = 0;
    while (at < s.len) {
        size_t len = p[at] < 0x80 ? ascii_run(p + at, s.len - at) : char_len(p + at, s.len - at);
        if (len == 0)
            break;
        at += len;
    }
    return at;
}

size_t utf8_encode(uint32_t code, char out[4]) {
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(0xf00 >> len | code);
    return len;
}
