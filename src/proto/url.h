/* URLs of workers and vendors: an absolute base to which routes are appended. */
#pragma once

#include "base/str.h"

/* Slices of the parsed text (scheme excepted when it is a known one: then lower case). */
struct url {
    struct str scheme, host,
        base;            /* host without brackets; base is empty or "/a/b" without last '/' */
    struct str userinfo; /* "user:secret" before '@', empty when absent */
    uint16_t port;
};
/* Splits "http://host:port/base". Default ports: http 80, https 443; any other scheme must name its
 * port. Query, fragment, blanks and control bytes are refused. 0 or -EINVAL. */
int url_parse(struct str text, struct url *out) MUST_CHECK;
