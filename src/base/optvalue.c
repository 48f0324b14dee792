/* Reading and storing of option values. One reader for each type, picked from a table; ranges are
 * checked here so that the command line, the environment and files refuse alike. */
#include "base/optvalue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/panic.h"

typedef enum opt_verdict value_reader(const struct opt_row *row, const char *text,
                                      struct opt_value *out, char *reason, size_t size);

static enum opt_verdict malformed(char *reason, size_t size, const char *text) {
    snprintf(reason, size, "%s", text);
    return OPT_VALUE_MALFORMED;
}

static enum opt_verdict read_bool(const struct opt_row *row, const char *text,
                                  struct opt_value *out, char *reason, size_t size) {
    (void)row;
    static const char *const yes[] = {"true", "1", "yes"};
    static const char *const no[] = {"false", "0", "no"};
    for (size_t i = 0; i < OPT_COUNT(yes); i++) {
        out->bits = str_ieq(str_from(text), str_from(yes[i]));
        if (out->bits != 0 || str_ieq(str_from(text), str_from(no[i])))
            return OPT_VALUE_OK;
    }
    return malformed(reason, size, "expected true or false");
}

/* The integers that the row takes: its range, and what fits its field after scaling. */
struct bounds {
    int64_t low;
    uint64_t high;
};

static struct bounds field_bounds(const struct opt_row *row) {
    unsigned bits = row->has_dest ? row->size * 8u : 64;
    uint64_t all = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    if (row->dest_signed || !row->has_dest)
        return (struct bounds){-(int64_t)(all / 2) - 1, all / 2};
    return (struct bounds){0, all};
}

static struct bounds row_bounds(const struct opt_row *row) {
    struct bounds bounds = field_bounds(row);
    if (row->scale > 1) {
        bounds.low /= row->scale;
        bounds.high /= (uint64_t)row->scale;
    }
    if (!row->ranged)
        return bounds;
    if (row->min > bounds.low)
        bounds.low = row->min;
    if (row->max < INT64_MAX && (uint64_t)row->max < bounds.high)
        bounds.high = (uint64_t)row->max;
    return bounds;
}

/* A row that names only a minimum is not bothered with the width of its field, unless that is it. */
static enum opt_verdict refuse_int(const struct opt_row *row, struct bounds bounds, bool below,
                                   char *reason, size_t size) {
    if (row->ranged && row->max == INT64_MAX && below)
        snprintf(reason, size, "must be at least %" PRId64, bounds.low);
    else
        snprintf(reason, size, "must be %" PRId64 " to %" PRIu64, bounds.low, bounds.high);
    return OPT_VALUE_REFUSED;
}

/* Compares sign and magnitude with the bounds: <0 too small, 0 inside, >0 too large. */
static int compare_bounds(struct bounds bounds, bool negative, uint64_t magnitude) {
    uint64_t floor = bounds.low < 0 ? 0 - (uint64_t)bounds.low : (uint64_t)bounds.low;
    if (negative && magnitude != 0)
        return bounds.low >= 0 || magnitude > floor ? -1 : 0;
    if (bounds.low > 0 && magnitude < floor)
        return -1;
    return magnitude > bounds.high;
}

static enum opt_verdict read_int(const struct opt_row *row, const char *text, struct opt_value *out,
                                 char *reason, size_t size) {
    bool negative = text[0] == '-';
    uint64_t magnitude = UINT64_MAX;
    struct bounds bounds = row_bounds(row);
    int error = str_to_u64(str_from(text + negative), &magnitude);
    if (error == -EINVAL)
        return malformed(reason, size, "expected an integer");
    int side = error != 0 ? 1 - 2 * negative : compare_bounds(bounds, negative, magnitude);
    if (side != 0)
        return refuse_int(row, bounds, side < 0, reason, size);
    out->bits =
        (negative ? 0 - magnitude : magnitude) * (uint64_t)(row->scale > 1 ? row->scale : 1);
    return OPT_VALUE_OK;
}

static enum opt_verdict read_float(const struct opt_row *row, const char *text,
                                   struct opt_value *out, char *reason, size_t size) {
    int error = str_to_double(str_from(text), &out->real);
    if (error != 0)
        return malformed(reason, size, "expected a number");
    if (!row->ranged)
        return OPT_VALUE_OK;
    bool low = row->above_min ? out->real <= row->fmin : out->real < row->fmin;
    if (!low && out->real <= row->fmax)
        return OPT_VALUE_OK;
    if (row->above_min)
        snprintf(reason, size, "must be over %g", row->fmin);
    else if (row->fmax == __DBL_MAX__)
        snprintf(reason, size, "must be at least %g", row->fmin);
    else
        snprintf(reason, size, "must be %g to %g", row->fmin, row->fmax);
    return OPT_VALUE_REFUSED;
}

static enum opt_verdict read_str(const struct opt_row *row, const char *text, struct opt_value *out,
                                 char *reason, size_t size) {
    (void)out;
    if (!row->ranged || row->min <= 0 || strlen(text) >= (size_t)row->min)
        return OPT_VALUE_OK;
    snprintf(reason, size, "must not be empty");
    return OPT_VALUE_REFUSED;
}

static enum opt_verdict read_choice(const struct opt_row *row, const char *text,
                                    struct opt_value *out, char *reason, size_t size) {
    (void)out;
    const char *cursor = row->choices;
    struct str word;
    while (opt_next_word(&cursor, &word))
        if (str_eq(word, str_from(text)))
            return OPT_VALUE_OK;
    snprintf(reason, size, "expected one of: %s", row->choices);
    return OPT_VALUE_MALFORMED;
}

static enum opt_verdict read_pair(const struct opt_row *row, const char *text,
                                  struct opt_value *out, char *reason, size_t size) {
    (void)row, (void)out;
    if (str_find_char(str_from(text), '=') > 0)
        return OPT_VALUE_OK;
    return malformed(reason, size, "expected key=value");
}

static enum opt_verdict read_url_port(const struct opt_row *row, const char *text,
                                      struct opt_value *out, char *reason, size_t size) {
    (void)row, (void)out;
    ptrdiff_t blank = str_find_char(str_from(text), ' ');
    if (blank < 0 || opt_value_is_port(text + blank + 1))
        return OPT_VALUE_OK;
    return malformed(reason, size, "expected a URL, then a port 1 to 65535 or none");
}

static value_reader *const readers[] = {
    [OPT_BOOL] = read_bool,         [OPT_INT] = read_int,       [OPT_FLOAT] = read_float,
    [OPT_STR] = read_str,           [OPT_CHOICE] = read_choice, [OPT_LIST] = read_str,
    [OPT_REPEAT] = read_str,        [OPT_PAIRS] = read_pair,    [OPT_FLOATS] = read_float,
    [OPT_URL_PORT] = read_url_port,
};

enum opt_verdict opt_value_read(const struct opt_row *row, const char *text, struct opt_value *out,
                                char *reason, size_t reason_size) {
    *out = (struct opt_value){.text = text};
    reason[0] = '\0';
    return readers[row->type](row, text, out, reason, reason_size);
}

static void store_int(char *field, unsigned size, uint64_t bits) {
    const uint8_t byte = (uint8_t)bits;
    const uint16_t half = (uint16_t)bits;
    const uint32_t word = (uint32_t)bits;
    const void *const source[] = {[1] = &byte, [2] = &half, [4] = &word, [8] = &bits};
    assert_always(size < OPT_COUNT(source) && source[size] != NULL);
    memcpy(field, source[size], size);
}

void opt_value_store(const struct opt_row *row, const struct opt_value *value, char *dest) {
    if (!row->has_dest)
        return;
    char *field = dest + row->offset;
    switch (row->type) {
    case OPT_BOOL: *(bool *)field = value->bits != 0; break;
    case OPT_INT: store_int(field, row->size, value->bits); break;
    case OPT_FLOAT: *(double *)field = value->real; break;
    case OPT_STR:
    case OPT_CHOICE: *(const char **)field = value->text; break;
    default: panic_here("--%s is no scalar", row->name);
    }
}

bool opt_value_negative_number(const char *text) {
    double number;
    return text[0] == '-' && str_to_double(str_from(text), &number) == 0;
}

bool opt_value_is_port(const char *text) {
    uint64_t port = 0;
    if (str_ieq(str_from(text), STR("none")))
        return true;
    return str_to_u64(str_from(text), &port) == 0 && port >= 1 && port <= 65535;
}

bool opt_type_is_list(enum opt_type type) {
    return type == OPT_LIST || type == OPT_REPEAT || type == OPT_PAIRS || type == OPT_FLOATS ||
           type == OPT_URL_PORT;
}

bool opt_type_is_numeric(enum opt_type type) {
    return type == OPT_INT || type == OPT_FLOAT || type == OPT_FLOATS;
}
