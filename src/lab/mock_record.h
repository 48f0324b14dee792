/* What a simulated worker has seen: counts by path, and the last requests with head and body, for
 * tests to look at. One thread at a time (the worker's lock), nothing parks. */
#pragma once

#include "base/map.h"
#include "proto/headers.h"
#include "proto/json.h"

struct mock_kept;

struct mock_record {
    struct mock_kept **kept; /* a ring of `cap` */
    size_t cap;
    uint64_t seen; /* requests so far; also numbers the kept ones */
    struct map counts;
};

/* Keeps the last `cap` requests. */
void mock_record_init(struct mock_record *record, size_t cap);
void mock_record_free(struct mock_record *record);
/* Forgets everything. */
void mock_record_clear(struct mock_record *record);

/* Counts a request to `path`. Paths past the 256th are counted as "other". */
void mock_record_count(struct mock_record *record, struct str path);
/* Keeps a request; bodies are kept up to 64 KiB. Its number, for mock_record_status. */
uint64_t mock_record_keep(struct mock_record *record, struct str method, struct str target,
                          const struct headers *headers, struct str body);
/* The status it was answered with; 0 (as at first) = none was sent. */
void mock_record_status(struct mock_record *record, uint64_t number, int status);

/* Members "counts" and "last" (oldest first, at most `last`) of the object that is open. */
void mock_record_write(const struct mock_record *record, size_t last, struct json_writer *writer);
