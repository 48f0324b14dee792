/* The configuration file: YAML with the names of the flags, given to the option parser as the
 * source that ranks above the defaults only. */
#pragma once

#include "base/optparse.h"
#include "base/vec.h"

/* On which line of the file an option was given. */
struct config_line {
    const struct opt_row *row;
    int line;
};

struct config_file {
    const char *path;
    VEC(struct config_line) lines;
};

/* Reads `path` whole and applies every key. 0, or -EINVAL with `error` in one of the layouts
 * `FILE:LINE: FIELD: reason`, `FILE:LINE: reason` (not YAML) or `Validation failed: ...` (cannot be
 * read). `file` remembers the lines; give it back with config_file_free. */
int config_file_apply(struct config_file *file, const char *path, const struct opt_schema *schema,
                      struct optparse *parser, char *error, size_t size) MUST_CHECK;
/* The line of an option, 0 when the file does not name it. */
int config_file_line(const struct config_file *file, const struct opt_row *row);
void config_file_free(struct config_file *file);
