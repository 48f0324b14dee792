/* Only what a base URL of a worker may be: everything unusual is refused rather than guessed at,
 * because two readers of one URL must never see two hosts. */
#include "proto/url.h"

#include <errno.h>

static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool scheme_char(char c) {
    return is_alpha(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
}
static bool name_char(char c) {
    return is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_';
}
static bool address_char(char c) {
    return is_alpha(c) || is_digit(c) || c == ':' || c == '.' || c == '%';
}
static bool userinfo_char(char c) {
    return c > ' ' && c < 0x7f && c != '/' && c != '?' && c != '#' && c != '@' && c != '\\';
}
static bool path_char(char c) { return c > ' ' && c < 0x7f && c != '?' && c != '#' && c != '\\'; }

static bool all(struct str s, bool (*allowed)(char c)) {
    for (size_t i = 0; i < s.len; i++) {
        if (!allowed(s.ptr[i]))
            return false;
    }
    return true;
}

static const struct {
    struct str name;
    uint16_t port;
} known_schemes[] = {{STR_INIT("http"), 80},
                     {STR_INIT("https"), 443},
                     {STR_INIT("grpc"), 0},
                     {STR_INIT("grpcs"), 0}};

static int parse_scheme(struct str scheme, struct url *out) {
    if (scheme.len == 0 || !is_alpha(scheme.ptr[0]) || !all(scheme, scheme_char))
        return -EINVAL;
    out->scheme = scheme;
    for (size_t i = 0; i < sizeof known_schemes / sizeof *known_schemes; i++) {
        if (str_ieq(scheme, known_schemes[i].name)) {
            out->scheme = known_schemes[i].name;
            out->port = known_schemes[i].port;
        }
    }
    return 0;
}

/* ":8000" or nothing (then the scheme's port stands). */
static int parse_port(struct str text, struct url *out) {
    uint64_t port = out->port;
    if (text.len > 0) {
        if (text.ptr[0] != ':' || str_to_u64(str_skip(text, 1), &port))
            return -EINVAL;
    }
    if (port == 0 || port > UINT16_MAX)
        return -EINVAL;
    out->port = (uint16_t)port;
    return 0;
}

static int parse_bracketed(struct str text, struct url *out) {
    ptrdiff_t close = str_find_char(text, ']');
    if (close < 0)
        return -EINVAL;
    out->host = str_make(text.ptr + 1, (size_t)close - 1);
    if (str_find_char(out->host, ':') < 0 || !all(out->host, address_char))
        return -EINVAL;
    return parse_port(str_skip(text, (size_t)close + 1), out);
}

static int parse_host_port(struct str text, struct url *out) {
    if (text.len > 0 && text.ptr[0] == '[')
        return parse_bracketed(text, out);
    ptrdiff_t colon = str_find_char(text, ':');
    out->host = colon < 0 ? text : str_head(text, (size_t)colon);
    if (out->host.len == 0 || !all(out->host, name_char))
        return -EINVAL;
    return parse_port(str_skip(text, out->host.len), out);
}

static int parse_authority(struct str text, struct url *out) {
    ptrdiff_t at = str_find_char(text, '@');
    if (at >= 0) {
        out->userinfo = str_head(text, (size_t)at);
        if (!all(out->userinfo, userinfo_char))
            return -EINVAL;
        text = str_skip(text, (size_t)at + 1);
    }
    return parse_host_port(text, out);
}

static int parse_base(struct str path, struct url *out) {
    if (!all(path, path_char))
        return -EINVAL;
    while (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    out->base = path;
    return 0;
}

int url_parse(struct str text, struct url *out) {
    *out = (struct url){.userinfo = STR(""), .base = STR("")};
    ptrdiff_t mark = str_find(text, STR("://"));
    if (mark < 0)
        return -EINVAL;
    int err = parse_scheme(str_head(text, (size_t)mark), out);
    if (err)
        return err;
    struct str rest = str_skip(text, (size_t)mark + 3);
    ptrdiff_t slash = str_find_char(rest, '/');
    size_t authority = slash < 0 ? rest.len : (size_t)slash;
    err = parse_authority(str_head(rest, authority), out);
    return err ? err : parse_base(str_skip(rest, authority), out);
}
