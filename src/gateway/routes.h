/* The route table: one row for each method and path the gateway knows, also those that later versions serve
 * (answered 501). The rows stand in route_table.c; admin/ and inference.c bring the handlers. */
#pragma once

#include "gateway/request.h"

enum route_auth { AUTH_PUBLIC, AUTH_DATA, AUTH_CONTROL };
/* How a body that is no JSON is refused (spec 01 section 4.2). */
enum route_media { MEDIA_ANY, MEDIA_JSON_400, MEDIA_JSON_415 };

struct route {
    enum http_method method;
    struct str path; /* template; "{...}" stands for one segment */
    enum route_auth auth;
    enum route_media media;
    FIBER_FN void (*handler)(struct request *request); /* NULL: 501 with `missing` */
    const char *missing;
    bool rest; /* the last "{...}" takes slashes too */
    /* inference rows */
    const char *endpoint; /* metric label; NULL: no inference */
    struct str upstream;  /* route at the worker */
    bool may_stream;
};

extern const struct route route_table[];
extern const size_t route_count;

/* The row for method and path. NULL with *allow (a list for the Allow header, in static memory) when only the
 * method is wrong, NULL with allow->len == 0 when the path is unknown. HEAD finds GET rows. */
const struct route *route_find(enum http_method method, struct str path, struct str *param,
                               struct str *allow);
/* Builds the look-up structures; once, before the loops start. */
void routes_init(void);
/* Position in the table, for metric arrays. */
static inline size_t route_index(const struct route *route) {
    return (size_t)(route - route_table);
}
