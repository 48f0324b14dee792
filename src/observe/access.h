/* The access record: one log line a request, and the line at its start for those who debug.
 * No bodies, no headers, no keys: query values and user info that may be secrets are blanked. */
#pragma once

#include "base/log.h"

/* What is known of a request when it ends. Empty strings, attempts of 0 and latencies below 0 are
 * left out. Nothing is kept: the strings need to live for the call only. */
struct access_record {
    struct str method, uri, version; /* "POST", "/generate?x=1", "HTTP/1.1" */
    struct str request_id;
    struct str route;             /* template, "/workers/{id}" */
    int status;                   /* as sent to the client; 499 when it had gone */
    struct str error_code;        /* of an answer that the gateway made, or of a broken stream */
    int64_t latency_us;           /* to the response head; -1: none was sent */
    int64_t total_us;             /* to the last byte */
    uint64_t bytes_in, bytes_out; /* body bytes */
    struct str worker, model;     /* the last worker tried */
    int attempts;
    bool stream;
    struct str client; /* address */
};

/* Target smg::response; 5xx is ERROR, 4xx WARN, else INFO. Does not park. */
void access_log(const struct access_record *record);

void access_log_start(const struct access_record *record);
/* Target smg::request, DEBUG, so that by default a request costs one line; of the record only
 * method, uri, version, request_id and client are read. */
#define access_start(record)                                                                       \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG))                                                                \
            access_log_start(record);                                                              \
    } while (0)

/* `url` into `buffer` (capacity `size`) with secrets blanked: the values of query parameters that hold
 * keys, and a user:password@ in front of the host. Cut with "..." when it does not fit; `size` is
 * at least 16. The result lies in `buffer`, or is `url` itself where nothing could need blanking. */
struct str access_redact(struct str url, char *buffer, size_t size);
