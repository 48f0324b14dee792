/* YAML to a JSON document (yyjson), for configuration files: one document, plain scalars typed by the YAML 1.2
 * core schema, bounded depth and size; no aliases, no tags. */
#pragma once

#include "proto/json.h"

struct yaml_error {
    int line; /* from 1 */
    char reason[160];
};
/* JSON text of the document in `arena`; 0 or -EINVAL with *error. `line_of` (may be NULL) gets, for each
 * top-level key in order, its line. */
int yaml_to_json(struct arena *arena, struct str yaml, struct str *json, struct yaml_error *error)
    MUST_CHECK;
/* Line of a top-level key in the YAML text, or 0. */
int yaml_line_of(struct str yaml, struct str key);
