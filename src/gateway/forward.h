/* Which headers cross the gateway: the allow-list towards workers and the filter of their
 * answers (spec 01 sections 5.1 to 5.3). */
#pragma once

#include "gateway/request.h"

/* Takes the names of --request-id-headers; once, before the loops start. */
void forward_init(const struct opt_list *names);
/* At most 256 visible ASCII characters, and not none. */
bool forward_id_usable(struct str id);
/* The first of those names' values that is usable; ptr NULL when there is none. */
struct str forward_given_id(const struct headers *headers);
/* The header lines for a worker ("name: value\r\n"...), in the arena: Content-Type, allowed ones
 * of the client, the request id, and at most one Authorization: the worker's own, else the
 * client's unless it is a key of this gateway. */
struct str forward_head(struct request *request, const struct worker *worker);
/* The worker's answer headers that the client gets, after those of the request itself. With
 * `event_stream` the content type is text/event-stream whatever the worker said. */
struct headers forward_answer(struct request *request, const struct headers *theirs,
                              bool event_stream);
/* A Bearer token that this gateway accepts as its own. */
bool forward_own_key(const struct request *request, struct str authorization);
