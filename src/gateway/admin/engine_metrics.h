/* Merging the metrics pages of many workers into one (spec 06 section 1.10): families by name, the
 * worker's URL as a label on every sample, one set of labels in each family. Pages are hostile:
 * what is wrong with one costs that page, or its part of a family, never the others. Pure CPU work
 * without parking, fit for the offload pool. */
#pragma once

#include "base/buf.h"
#include "gateway/admin/prom_text.h"

/* Bounds of one page, and of the merged one. */
#define ENGINE_PAGE_MAX ((size_t)16 << 20)
#define ENGINE_PAGE_SAMPLES 400000
#define ENGINE_PAGE_FAMILIES 20000
#define ENGINE_FAMILIES_MAX 50000
#define ENGINE_OUT_MAX ((size_t)256 << 20) /* for buf_make */
/* Names of all labels of one family together. */
#define ENGINE_LABEL_BYTES 2048

#define ENGINE_WORKER_LABEL "worker_addr"

struct engine_page;

/* Reads a page. Takes the bytes of `text` over in any case (it is empty afterwards); `addr` must
 * outlive the page. NULL with *why when it is not of the format or beyond the bounds. */
struct engine_page *engine_page_parse(struct str addr, struct buf *text, const char **why);
void engine_page_free(struct engine_page *page);
/* Bytes that it holds. */
size_t engine_page_cost(const struct engine_page *page);
struct str engine_page_addr(const struct engine_page *page);

struct engine_merge {
    bool keep_colons; /* else ':' in names becomes '_' */
    /* Told of each part of a family that is left out. */
    void (*dropped)(void *arg, struct str addr, struct str family, const char *why);
    void *arg;
};
/* Appends the merged page to `out`, families in the order of their first appearance; what would
 * pass the maximum of `out` is dropped part by part. */
void engine_merge(const struct engine_merge *merge, struct engine_page *const *pages, size_t count,
                  struct buf *out);
