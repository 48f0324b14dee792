/* One text into one value by its row: syntax, type and range. Used by optparse.c only. */
#pragma once

#include "base/optparse.h"

enum opt_verdict {
    OPT_VALUE_OK,
    OPT_VALUE_MALFORMED, /* not of the type at all */
    OPT_VALUE_REFUSED,   /* of the type, but out of range */
};

struct opt_value {
    uint64_t bits; /* OPT_BOOL, OPT_INT: scaled, two's complement */
    double real;
    const char *text; /* the text as given; for OPT_CHOICE too */
};

/* Reads `text` as one value (one item of a list). `reason` says what is wrong otherwise; it never
 * holds the value itself. */
enum opt_verdict opt_value_read(const struct opt_row *row, const char *text, struct opt_value *out,
                                char *reason, size_t reason_size);
/* Writes a scalar value into the row's field at `dest`; strings are stored as `value->text`. */
void opt_value_store(const struct opt_row *row, const struct opt_value *value, char *dest);
/* True for text like -1 or -.5: a value, not a flag. */
bool opt_value_negative_number(const char *text);
/* True when the token is a bootstrap port: 1..65535 or `none` in any case. */
bool opt_value_is_port(const char *text);
bool opt_type_is_list(enum opt_type type);
bool opt_type_is_numeric(enum opt_type type);
