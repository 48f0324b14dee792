/* Help text from option tables: sections in table order, wrapped at 100 columns, with choices,
 * default and environment variable. Values of secret rows are never shown. */
#pragma once

#include <stdio.h>

#include "base/optparse.h"

#define OPTHELP_COLUMNS 100

/* All groups. Rows that do not work yet are left out, with one line at the end that says so. */
void opthelp_write(const struct opt_schema *schema, FILE *out);
/* "30000", "unset", "[]" or what initial_help says: the default as help and docs show it. `out` of
 * `size` bytes is returned. */
const char *opthelp_default(const struct opt_row *row, char *out, size_t size);
/* "N", "NAME", "A|B|C", "" for presence flags. */
const char *opthelp_value(const struct opt_row *row, char *out, size_t size);
