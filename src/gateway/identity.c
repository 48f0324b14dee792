/* See identity.h. */
#include "gateway/identity.h"

#include "base/rand.h"
#include "gateway/forward.h"

#define ID_RANDOM 24

static const struct {
    struct str ending, prefix;
} prefixes[] = {
    {STR_INIT("/chat/completions"), STR_INIT("chatcmpl-")},
    {STR_INIT("/completions"), STR_INIT("cmpl-")},
    {STR_INIT("/generate"), STR_INIT("gnt-")},
    {STR_INIT("/responses"), STR_INIT("resp-")},
    {STR_INIT("/messages"), STR_INIT("msg_")},
    {STR_INIT(""), STR_INIT("req-")},
};

static struct str id_made(struct request *request) {
    size_t row = 0;
    while (!str_ends(request->http->path, prefixes[row].ending))
        row++;
    struct str prefix = prefixes[row].prefix;
    char *id = arena_alloc(request->arena, prefix.len + ID_RANDOM);
    memcpy(id, prefix.ptr, prefix.len);
    rand_alnum(id + prefix.len, ID_RANDOM);
    return str_make(id, prefix.len + ID_RANDOM);
}

void identity_set(struct request *request) {
    request->id = forward_given_id(&request->http->headers);
    if (request->id.ptr == NULL)
        request->id = id_made(request);
    request_header(request, STR("x-request-id"), request->id);
}

/* --- CORS --- */

static bool origin_allowed(const struct request *request, struct str origin) {
    const struct opt_list *origins = &request->settings->cors_origins;
    for (size_t i = 0; i < origins->len; i++)
        if (str_eq(origin, str_from(origins->items[i])))
            return true;
    return false;
}

static void cors_listed(struct request *request, struct str origin) {
    request_header(request, STR("vary"),
                   STR("origin")); /* also without one: a cache must not mix the two */
    if (!origin_allowed(request, origin))
        return;
    request_header(request, STR("access-control-allow-origin"), origin);
    request_header(request, STR("access-control-expose-headers"), STR("x-request-id"));
}

void identity_cors(struct request *request) {
    struct str origin = headers_get(&request->http->headers, STR("origin"));
    if (request->settings->cors_origins.len > 0) {
        cors_listed(request, origin);
        return;
    }
    if (origin.ptr == NULL)
        return;
    request_header(request, STR("access-control-allow-origin"), STR("*"));
    request_header(request, STR("access-control-expose-headers"), STR("*"));
}

FIBER_FN bool identity_preflight(struct request *request) {
    const struct headers *headers = &request->http->headers;
    if (request->http->method != HTTP_OPTIONS_METHOD ||
        headers_get(headers, STR("access-control-request-method")).ptr == NULL)
        return false;
    bool any = request->settings->cors_origins.len == 0;
    request_header(request, STR("access-control-allow-methods"),
                   any ? STR("*") : STR("GET, POST, PUT, PATCH, DELETE, OPTIONS"));
    request_header(request, STR("access-control-allow-headers"),
                   any ? STR("*") : STR("content-type, authorization"));
    request_header(request, STR("access-control-max-age"), STR("3600"));
    request_respond(request, 200, STR(""), STR(""));
    return true;
}
