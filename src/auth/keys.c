/* See keys.h. */
#include "auth/keys.h"

struct str keys_bearer(struct str authorization) {
    struct str scheme = STR("bearer ");
    if (!str_istarts(authorization, scheme))
        return STR_NONE;
    return str_trim(str_skip(authorization, scheme.len));
}

bool keys_equal(struct str a, struct str b) {
    if (a.len == 0 || b.len == 0)
        return false;
    /* The length of the expected key is no secret worth hiding; its bytes are. */
    volatile unsigned char differ = a.len != b.len;
    for (size_t i = 0; i < a.len; i++)
        differ |= (unsigned char)(a.ptr[i] ^ b.ptr[i % b.len]);
    return differ == 0;
}
