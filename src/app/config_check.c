/* One small function for each matter, called from a table; each names the option it refuses, and
 * the message's family follows from the function that it ends with. */
#include "app/config_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "base/panic.h"
#include "proto/url.h"

/* --- refusals -------------------------------------------------------------------------------- */

static const struct opt_row *row_of(const char *option) {
    const struct opt_row *row = optparse_find(option_schema(), str_from(option), false);
    assert_always(row != NULL);
    return row;
}

/* Line in the configuration file if the option's value comes from there, else 0. */
static int line_of(const struct config_check *check, const char *option) {
    if (optparse_source(check->parser, option) != OPT_FROM_FILE)
        return 0;
    return config_file_line(check->file, row_of(option));
}

/* InvalidValue. `field` NULL = the option's own. */
static int refuse_as(const struct config_check *check, const char *option, const char *field,
                     const char *value, const char *reason) {
    char name[96];
    int line = line_of(check, option);
    const struct opt_row *row = row_of(option);
    if (field == NULL)
        field = opt_field_name(row, name, sizeof name);
    if (row->secret)
        value = "[redacted]";
    if (line != 0)
        snprintf(check->error, check->error_size, "%s:%d: %s: %.300s - %s", check->file->path, line,
                 field, value, reason);
    else
        snprintf(check->error, check->error_size, "Invalid value for field '%s': %.300s - %s",
                 field, value, reason);
    return -EINVAL;
}

static int refuse(const struct config_check *check, const char *option, const char *value,
                  const char *reason) {
    return refuse_as(check, option, NULL, value, reason);
}

static int incompatible(const struct config_check *check, const char *option, const char *reason) {
    int line = line_of(check, option);
    if (line != 0)
        snprintf(check->error, check->error_size, "%s:%d: %s: Incompatible configuration: %s",
                 check->file->path, line, option, reason);
    else
        snprintf(check->error, check->error_size, "Incompatible configuration: %s", reason);
    return -EINVAL;
}

/* --- pieces of text -------------------------------------------------------------------------- */

static bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all_chars(struct str text, const char *others) {
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == '\0' || (!is_alnum(text.ptr[i]) && !strchr(others, text.ptr[i])))
            return false;
    return text.len > 0;
}

static bool is_address(int family, struct str text) {
    char copy[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(family, copy, bytes) == 1;
}

static bool is_ipv6(struct str text) {
    ptrdiff_t zone = str_find_char(text, '%');
    if (zone < 0)
        return is_address(AF_INET6, text);
    return is_address(AF_INET6, str_head(text, (size_t)zone)) &&
           all_chars(str_skip(text, (size_t)zone + 1), "._-");
}

bool config_host(struct str text, struct str *host) {
    bool bracketed = text.len > 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']';
    *host = bracketed ? str_make(text.ptr + 1, text.len - 2) : text;
    if (bracketed || str_find_char(text, ':') >= 0)
        return is_ipv6(*host);
    return text.len <= 253 && all_chars(text, ".-_");
}

bool config_origin(struct str text) {
    struct url url;
    if (str_eq(text, STR("null")))
        return true;
    return url_parse(text, &url) == 0 && url.base.len == 0 && url.userinfo.len == 0 &&
           !str_ends(text, STR("/"));
}

/* --- server ---------------------------------------------------------------------------------- */

static int check_host(const struct config_check *check) {
    struct str host;
    const char *text = check->values->settings.gateway.host;
    if (config_host(str_from(text), &host))
        return 0;
    return refuse(check, "host", text, "neither an address nor a host name");
}

static int check_api_key(const struct config_check *check) {
    for (const char *c = check->values->api_key; c != NULL && *c != '\0'; c++)
        if (*c <= ' ' || *c == 0x7f)
            return refuse(check, "api-key", "", "must not hold blanks or control characters");
    return 0;
}

static int check_backend(const struct config_check *check) {
    static const char *const vendors[] = {"openai", "anthropic", "gemini"};
    const char *backend = check->values->settings.backend;
    char reason[128];
    snprintf(reason, sizeof reason, "--backend %s is not available in this version yet", backend);
    for (size_t i = 0; i < OPT_COUNT(vendors); i++)
        if (strcmp(vendors[i], backend) == 0)
            return incompatible(check, "backend", reason);
    return 0;
}

static int check_request_ids(const struct config_check *check) {
    const struct opt_list *list = &check->values->settings.gateway.request_id_headers;
    for (size_t i = 0; i < list->len; i++)
        if (!all_chars(str_from(list->items[i]), "!#$%&'*+-.^_`|~"))
            return refuse(check, "request-id-headers", list->items[i], "not a header name");
    return 0;
}

/* --- workers --------------------------------------------------------------------------------- */

static int refuse_url(const struct config_check *check, const char *url, const char *reason) {
    return refuse_as(check, "worker-urls", "worker_url", url, reason);
}

/* What is known of a scheme; `later` says why it is refused in this version. */
static const struct scheme {
    struct str prefix;
    const char *later;
} schemes[] = {
    {STR_INIT("http://"), NULL},
    {STR_INIT("https://"),
     "https workers come with the TLS issue, which is not in this version yet"},
    {STR_INIT("grpc://"),
     "gRPC workers come with the gRPC issue, which is not in this version yet"},
    {STR_INIT("grpcs://"),
     "gRPC workers come with the gRPC issue, which is not in this version yet"},
    {STR_INIT("ipc://"), "ipc workers are not available in this version yet"},
};

static const struct scheme *find_scheme(struct str url) {
    for (size_t i = 0; i < OPT_COUNT(schemes); i++)
        if (str_starts(url, schemes[i].prefix))
            return &schemes[i];
    return NULL;
}

static int refuse_scheme(const struct config_check *check, const char *url,
                         const struct scheme *scheme) {
    char reason[512];
    snprintf(reason, sizeof reason, "worker %.300s: %s", url, scheme->later);
    return incompatible(check, "worker-urls", reason);
}

static int check_worker_url(const struct config_check *check, const char *text) {
    struct url parsed;
    struct str url = str_from(text);
    if (url.len == 0)
        return refuse_url(check, text, "must not be empty");
    if (str_find_char(url, '@') >= 0)
        return refuse_url(check, "[redacted]", "must not hold a user name or password");
    const struct scheme *scheme = find_scheme(url);
    if (scheme == NULL)
        return refuse_url(check, text,
                          "must start with http://, https://, grpc://, grpcs:// or ipc://");
    struct str rest = str_skip(url, scheme->prefix.len);
    if (rest.len == 0 || (rest.ptr[0] == '/' && !str_starts(url, STR("ipc://"))))
        return refuse_url(check, text, "names no host or path");
    if (scheme->later != NULL)
        return refuse_scheme(check, text, scheme);
    return url_parse(url, &parsed) == 0 ? 0 : refuse_url(check, text, "not a valid URL");
}

static int check_worker_urls(const struct config_check *check) {
    for (size_t i = 0; i < check->values->worker_urls.len; i++) {
        int error = check_worker_url(check, check->values->worker_urls.items[i]);
        if (error != 0)
            return error;
    }
    return 0;
}

static int check_policy(const struct config_check *check) {
    char reason[128];
    bool two_choices = strcmp(check->values->settings.fleet.policy, "power_of_two") == 0;
    if (!two_choices || check->values->worker_urls.len >= 2)
        return 0;
    snprintf(reason, sizeof reason,
             "policy power_of_two needs at least 2 workers, --worker-urls names %zu",
             check->values->worker_urls.len);
    return incompatible(check, "policy", reason);
}

/* ADDRESS, ADDRESS/BITS or a host name. */
static bool is_allow_entry(struct str text) {
    struct str host;
    uint64_t bits;
    ptrdiff_t slash = str_find_char(text, '/');
    if (slash < 0)
        return config_host(text, &host);
    struct str address = str_head(text, (size_t)slash);
    if (str_to_u64(str_skip(text, (size_t)slash + 1), &bits) != 0)
        return false;
    return (is_address(AF_INET, address) && bits <= 32) ||
           (is_address(AF_INET6, address) && bits <= 128);
}

static int check_allow_list(const struct config_check *check) {
    const struct opt_list *list = &check->values->worker_url_allow;
    for (size_t i = 0; i < list->len; i++)
        if (!is_allow_entry(str_from(list->items[i])))
            return refuse(check, "worker-url-allow", list->items[i],
                          "neither a CIDR nor an address nor a host name");
    return 0;
}

static int check_health_path(const struct config_check *check) {
    const char *path = check->values->settings.fleet.health.endpoint;
    for (const char *c = path; *c != '\0'; c++)
        if (*c <= ' ' || *c >= 0x7f || *c == '#')
            return refuse(check, "health-check-endpoint", path,
                          "must not hold blanks, '#' or other than ASCII");
    if (path[0] != '/')
        return refuse(check, "health-check-endpoint", path, "must start with '/'");
    return 0;
}

/* --- the rest -------------------------------------------------------------------------------- */

static int check_backoff(const struct config_check *check) {
    const struct gateway_settings *gateway = &check->values->settings.gateway;
    char value[32], reason[96];
    if (gateway->retry.max_ms >= gateway->retry.initial_ms)
        return 0;
    snprintf(value, sizeof value, "%lld", (long long)gateway->retry.max_ms);
    snprintf(reason, sizeof reason, "must be at least retry.initial_backoff_ms (%lld)",
             (long long)gateway->retry.initial_ms);
    const char *option = "retry-max-backoff-ms";
    if (optparse_source(check->parser, option) == OPT_FROM_DEFAULT)
        option = "retry-initial-backoff-ms";
    return refuse_as(check, option, "retry.max_backoff_ms", value, reason);
}

/* What base/metric.h takes. */
#define MAX_BOUNDS 128

static int check_buckets(const struct config_check *check) {
    const struct opt_floats *buckets = &check->values->settings.gateway.metrics.buckets;
    char value[32];
    snprintf(value, sizeof value, "%zu", buckets->len);
    if (buckets->len > MAX_BOUNDS)
        return refuse(check, "prometheus-duration-buckets", value, "at most 128 bounds");
    for (size_t i = 1; i < buckets->len; i++) {
        if (buckets->items[i] > buckets->items[i - 1])
            continue;
        snprintf(value, sizeof value, "%g", buckets->items[i]);
        return refuse(check, "prometheus-duration-buckets", value, "bounds must ascend");
    }
    return 0;
}

int config_check(const struct config_check *check) {
    static int (*const checks[])(const struct config_check *check) = {
        check_worker_urls, check_host,    check_api_key,    check_backend,     check_request_ids,
        check_policy,      check_backoff, check_allow_list, check_health_path, check_buckets,
    };
    for (size_t i = 0; i < OPT_COUNT(checks); i++) {
        int error = checks[i](check);
        if (error != 0)
            return error;
    }
    return 0;
}
