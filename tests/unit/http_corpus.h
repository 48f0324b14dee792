/* The shared corpus of HTTP/1.1 requests (one JSON object a line), when this checkout has it beside it:
 * data/http/requests.jsonl under $SLUICE_TESTDATA, or under ../shared. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "proto/json.h"

enum corpus_expect { CORPUS_ACCEPT, CORPUS_REFUSE, CORPUS_CLOSE };

struct corpus_case {
    struct str name, raw;
    enum corpus_expect expect;
    size_t requests;      /* complete ones of an accept case */
    bool may_be_accepted; /* a refusal is asked for, but an ordinary answer is tolerated */
    bool may_be_refused;
    bool truncated;
};

struct corpus {
    struct arena *arena;
    struct corpus_case *cases;
    size_t len;
};

static inline FILE *corpus_open(void) {
    static const char *const places[] = {"../shared", "../../shared", "../../../shared"};
    const char *told = getenv("SLUICE_TESTDATA");
    char path[512];
    FILE *file = NULL;
    for (size_t i = 0; i < (told ? 1 : 3) && file == NULL; i++) {
        snprintf(path, sizeof path, "%s/data/http/requests.jsonl", told ? told : places[i]);
        file = fopen(path, "re");
    }
    return file;
}

static inline void corpus_statuses(struct corpus_case *one, yyjson_val *row) {
    yyjson_val *statuses = json_get(row, "statuses"), *status;
    size_t i, max;
    yyjson_arr_foreach(statuses, i, max, status) {
        one->may_be_accepted = one->may_be_accepted || yyjson_get_int(status) == 200;
        one->may_be_refused = one->may_be_refused || yyjson_get_int(status) == 400;
    }
}

static inline struct corpus_case corpus_case_of(struct arena *arena, struct str line) {
    yyjson_doc *doc = json_parse(arena, line, NULL);
    yyjson_val *row = yyjson_doc_get_root(doc);
    struct str coded = json_get_str(row, "raw_base64", STR("")),
               expect = json_get_str(row, "expect", STR(""));
    char *raw = arena_alloc(arena, base64_decoded_max(coded.len) + 1);
    ptrdiff_t len = base64_decode(coded, raw);
    struct corpus_case one = {.name = json_get_str(row, "name", STR("?")),
                              .raw = str_make(raw, len > 0 ? (size_t)len : 0),
                              .requests = (size_t)json_get_int(row, "requests", 0),
                              .expect = str_eq(expect, STR("accept"))  ? CORPUS_ACCEPT
                                        : str_eq(expect, STR("close")) ? CORPUS_CLOSE
                                                                       : CORPUS_REFUSE};
    one.truncated = str_find(one.name, STR("truncated")) >= 0;
    corpus_statuses(&one, row);
    return one;
}

/* False when there is none. arena_free(corpus->arena) at the end. */
static inline bool corpus_load(struct corpus *corpus) {
    FILE *file = corpus_open();
    if (file == NULL)
        return false;
    char *line = NULL;
    size_t room = 0, cap = 0;
    ssize_t len;
    *corpus = (struct corpus){.arena = arena_new()};
    while ((len = getline(&line, &room, file)) > 0) {
        if (corpus->len == cap) {
            struct corpus_case *more = arena_alloc(corpus->arena, (cap * 2 + 64) * sizeof *more);
            if (corpus->len > 0)
                memcpy(more, corpus->cases, corpus->len * sizeof *more);
            corpus->cases = more;
            cap = cap * 2 + 64;
        }
        corpus->cases[corpus->len++] = corpus_case_of(corpus->arena, str_make(line, (size_t)len));
    }
    (free)(line);
    fclose(file);
    return true;
}
