/* What worker URLs are taken (spec 01 section 1.19, 06 section 5.5): their shape, and the
 * addresses they may point at when somebody adds them over the network. URLs of the command line
 * are checked for their shape only: who starts the gateway is trusted. Nothing parks. */
#pragma once

#include <sys/socket.h>

#include "fleet/settings.h"
#include "proto/url.h"

#define WORKER_URL_MAX 2048
/* Room for a refusal, the URL included. */
#define URL_FAULT_MAX 512

/* Checks the shape of a worker URL. 0 with *parsed (slices of `text`; may be NULL), or -EINVAL
 * with the refusal of 01 section 1.19 in `fault` (URL_FAULT_MAX bytes; user info is blotted
 * out). */
int worker_url_check(struct str text, struct url *parsed, char *fault) MUST_CHECK;
/* The URL without trailing slashes: how a worker is registered. A slice of `text`. */
struct str worker_url_canonical(struct str text);

/* May a worker that was added over the network live at this address? `host` is what the URL
 * says: names in `worker_url_allow` are compared with it. 0, or -EACCES with the reason in
 * `fault`. */
int worker_address_check(const struct fleet_settings *settings, struct str host,
                         const struct sockaddr_storage *address, char *fault) MUST_CHECK;
/* True when an item of --worker-url-allow is a name, an address or a CIDR block. */
bool worker_url_allow_valid(struct str item);
