/* Addresses are compared as 16 bytes, IPv4 in its mapped form, so that ::ffff:169.254.169.254 is
 * seen for what it is. Blocks are a table. */
#include "fleet/url_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#define GRPC_LATER "gRPC workers come with a later issue (the gRPC issue)"
#define IPC_LATER "ipc:// workers come with a later issue (the gRPC issue)"

/* --- shape ----------------------------------------------------------------------------------- */

static size_t authority_start(struct str url) {
    ptrdiff_t mark = str_find(url, STR("://"));
    return mark < 0 ? 0 : (size_t)mark + 3;
}

/* Offset behind the last '@' of the authority; 0 when there is none. */
static size_t userinfo_end(struct str url) {
    size_t end = 0;
    for (size_t i = authority_start(url); i < url.len && url.ptr[i] != '/'; i++) {
        if (url.ptr[i] == '@')
            end = i + 1;
    }
    return end;
}

/* The URL for a message: no user info, no control bytes, not too long. */
static void printable(struct str url, char *out, size_t size) {
    size_t secret_end = userinfo_end(url);
    struct str head = str_head(str_head(url, authority_start(url)), secret_end ? 64 : 0);
    struct str tail = str_head(str_skip(url, secret_end), 200);
    int len =
        snprintf(out, size, "%.*s%s%.*s", STR_ARG(head), secret_end ? "***@" : "", STR_ARG(tail));
    for (int i = 0; i < len && i < (int)size - 1; i++) {
        if (out[i] < 0x20 || out[i] > 0x7e)
            out[i] = '?';
    }
}

static int refuse(struct str url, const char *reason, char *fault) {
    char shown[URL_FAULT_MAX - 128];
    printable(url, shown, sizeof shown);
    snprintf(fault, URL_FAULT_MAX, "Invalid value for field 'worker_url': %s - %s", shown, reason);
    return -EINVAL;
}

/* Schemes that are known; those with a reason are refused for now. */
static const struct {
    struct str scheme;
    const char *refusal;
} schemes[] = {
    {STR_INIT("http"), NULL},        {STR_INIT("https"), NULL},    {STR_INIT("grpc"), GRPC_LATER},
    {STR_INIT("grpcs"), GRPC_LATER}, {STR_INIT("ipc"), IPC_LATER},
};

static int check_scheme(struct str text, char *fault) {
    ptrdiff_t mark = str_find(text, STR("://"));
    struct str scheme = str_head(text, mark < 0 ? 0 : (size_t)mark);
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (!str_eq(scheme, schemes[i].scheme))
            continue;
        if (schemes[i].refusal == NULL)
            return 0;
        if (str_eq(scheme, STR("ipc")) && (size_t)mark + 3 == text.len)
            return refuse(text, "ipc:// needs a path", fault);
        char shown[URL_FAULT_MAX - 160];
        printable(text, shown, sizeof shown);
        snprintf(fault, URL_FAULT_MAX, "Incompatible configuration: %s: %s", shown,
                 schemes[i].refusal);
        return -EINVAL;
    }
    return refuse(text, "it must start with http://, https://, grpc://, grpcs:// or ipc://", fault);
}

struct str worker_url_canonical(struct str text) {
    while (text.len > 0 && text.ptr[text.len - 1] == '/')
        text.len--;
    return text;
}

int worker_url_check(struct str text, struct url *parsed, char *fault) {
    struct url url;
    if (text.len == 0)
        return refuse(text, "it is empty", fault);
    if (text.len > WORKER_URL_MAX)
        return refuse(text, "it is longer than 2048 bytes", fault);
    int err = check_scheme(text, fault);
    if (err)
        return err;
    if (str_find_char(text, '#') >= 0)
        return refuse(text, "it must not have a fragment", fault);
    if (str_find_char(text, '?') >= 0)
        return refuse(text, "it must not have a query", fault);
    if (url_parse(text, &url))
        return refuse(text, "it must be scheme://host[:port][/base], port 1..65535", fault);
    if (userinfo_end(text) > 0)
        return refuse(text, "it must not have user info; use api_key", fault);
    if (parsed)
        *parsed = url;
    return 0;
}
_Static_assert(WORKER_URL_MAX == 2048, "the message above names the limit");

/* --- addresses ------------------------------------------------------------------------------- */

struct block {
    unsigned char bytes[16];
    unsigned bits;
};

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void from_v4(const void *four, unsigned char out[16]) {
    memcpy(out, mapped_prefix, sizeof mapped_prefix);
    memcpy(out + sizeof mapped_prefix, four, 4);
}

static bool from_socket(const struct sockaddr_storage *address, unsigned char out[16]) {
    if (address->ss_family == AF_INET) {
        from_v4(&((const struct sockaddr_in *)address)->sin_addr, out);
        return true;
    }
    if (address->ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
        return true;
    }
    return false;
}

static bool in_block(const unsigned char address[16], const struct block *block) {
    unsigned whole = block->bits / 8, rest = block->bits % 8;
    if (memcmp(address, block->bytes, whole) != 0)
        return false;
    if (rest == 0)
        return true;
    unsigned mask = 0xffu << (8 - rest) & 0xffu;
    return (address[whole] & mask) == (block->bytes[whole] & mask);
}

/* "10.0.0.0/8", "fd00::/8", or a single address. */
static bool parse_block(struct str item, struct block *out) {
    char text[64];
    ptrdiff_t slash = str_find_char(item, '/');
    struct str host = slash < 0 ? item : str_head(item, (size_t)slash);
    if (host.len == 0 || host.len >= sizeof text)
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = 0;
    unsigned char four[4];
    bool v4 = inet_pton(AF_INET, text, four) == 1;
    if (v4)
        from_v4(four, out->bytes);
    else if (inet_pton(AF_INET6, text, out->bytes) != 1)
        return false;
    uint64_t most = v4 ? 32 : 128, bits = most;
    if (slash >= 0 && (str_to_u64(str_skip(item, (size_t)slash + 1), &bits) || bits > most))
        return false;
    out->bits = (unsigned)bits + (v4 ? 96 : 0);
    return true;
}

enum reach { REACH_LINK_LOCAL, REACH_PRIVATE };
static const struct {
    const char *block;
    enum reach reach;
} special_blocks[] = {
    {"169.254.0.0/16", REACH_LINK_LOCAL},
    {"fe80::/10", REACH_LINK_LOCAL},
    {"0.0.0.0/8", REACH_PRIVATE},
    {"10.0.0.0/8", REACH_PRIVATE},
    {"100.64.0.0/10", REACH_PRIVATE},
    {"127.0.0.0/8", REACH_PRIVATE},
    {"172.16.0.0/12", REACH_PRIVATE},
    {"192.168.0.0/16", REACH_PRIVATE},
    {"::/128", REACH_PRIVATE},
    {"::1/128", REACH_PRIVATE},
    {"fc00::/7", REACH_PRIVATE},
};

static bool address_is(const unsigned char address[16], enum reach reach) {
    for (size_t i = 0; i < sizeof special_blocks / sizeof *special_blocks; i++) {
        struct block block;
        if (special_blocks[i].reach == reach &&
            parse_block(str_from(special_blocks[i].block), &block) && in_block(address, &block))
            return true;
    }
    return false;
}

static bool allowed_by_list(const struct fleet_settings *settings, struct str host,
                            const unsigned char address[16]) {
    for (size_t i = 0; i < settings->worker_url_allow_count; i++) {
        struct str item = str_from(settings->worker_url_allow[i]);
        struct block block;
        if (parse_block(item, &block) ? in_block(address, &block) : str_ieq(item, host))
            return true;
    }
    return false;
}

int worker_address_check(const struct fleet_settings *settings, struct str host,
                         const struct sockaddr_storage *address, char *fault) {
    unsigned char bytes[16];
    const char *reason = NULL;
    if (!from_socket(address, bytes)) {
        reason = "its address is neither IPv4 nor IPv6";
    } else {
        bool listed = allowed_by_list(settings, host, bytes);
        if (address_is(bytes, REACH_LINK_LOCAL) && !settings->allow_link_local && !listed)
            reason = "link-local addresses are refused (--allow-link-local-workers)";
        else if (settings->worker_url_allow_count > 0 && !listed)
            reason = "its address is not in --worker-url-allow";
        else if (settings->strict_urls && !listed &&
                 (address_is(bytes, REACH_PRIVATE) || address_is(bytes, REACH_LINK_LOCAL)))
            reason = "private, loopback and link-local addresses are refused (--strict-urls)";
    }
    if (reason == NULL)
        return 0;
    snprintf(fault, URL_FAULT_MAX, "Invalid value for field 'worker_url': host %.*s - %s",
             (int)(host.len < 255 ? host.len : 255), host.ptr, reason);
    return -EACCES;
}

bool worker_url_allow_valid(struct str item) {
    struct block block;
    if (parse_block(item, &block))
        return true;
    if (item.len == 0 || item.len > 253)
        return false;
    for (size_t i = 0; i < item.len; i++) {
        unsigned char c = (unsigned char)item.ptr[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_')
            return false;
    }
    return true;
}
