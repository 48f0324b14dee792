/* Reading the Prometheus text format 0.0.4, line by line, out of pages that workers send: strict,
 * since one bad line would spoil the page that it is merged into. Slices point into the page;
 * nothing is copied, allocated or parked on. */
#pragma once

#include "base/str.h"

/* Longest metric or label name and number, most labels of one sample. */
#define PROM_NAME_MAX 256
#define PROM_VALUE_MAX 128
#define PROM_LABELS_MAX 64

enum prom_type {
    PROM_UNKNOWN, /* no TYPE line */
    PROM_UNTYPED,
    PROM_COUNTER,
    PROM_GAUGE,
    PROM_HISTOGRAM,
    PROM_SUMMARY,
};
const char *prom_type_name(enum prom_type type);

enum prom_kind { PROM_BLANK /* also other comments */, PROM_HELP, PROM_TYPE, PROM_SAMPLE };

struct prom_line {
    enum prom_kind kind;
    struct str name;
    struct str help; /* escaped as it came */
    enum prom_type type;
    struct str labels; /* between the braces; read with prom_label */
    struct str value;  /* a number, NaN or an infinity */
    double number;
    struct str time; /* milliseconds, or empty */
};
struct prom_label {
    struct str name, value; /* the value escaped as it came */
};

/* Takes the next line off `rest`: 1 with *line, 0 at the end, -EINVAL: not of the format. */
int prom_next(struct str *rest, struct prom_line *line) MUST_CHECK;
/* Takes the next label off a sample's `labels` (which prom_next has checked). */
bool prom_label(struct str *labels, struct prom_label *label);
/* A number of the format: decimal, NaN, Inf, +Inf, -Inf (any case). 0 or -EINVAL. */
int prom_number(struct str text, double *out) MUST_CHECK;
