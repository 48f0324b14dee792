/* See prom_text.h. Grammar: name [ "{" label "=" quoted { "," ... } "}" ] value [ time ]. */
#include "gateway/admin/prom_text.h"

#include <errno.h>
#include <math.h>

#include "base/utf8.h"

static const struct {
    struct str name;
    enum prom_type type;
} types[] = {
    {STR_INIT("untyped"), PROM_UNTYPED},
    {STR_INIT("counter"), PROM_COUNTER},
    {STR_INIT("gauge"), PROM_GAUGE},
    {STR_INIT("histogram"), PROM_HISTOGRAM},
    {STR_INIT("summary"), PROM_SUMMARY},
    {STR_INIT("unknown"), PROM_UNTYPED},
    /* kinds of the younger format that some exporters write into this one */
    {STR_INIT("info"), PROM_UNTYPED},
    {STR_INIT("stateset"), PROM_UNTYPED},
    {STR_INIT("gaugehistogram"), PROM_UNTYPED},
};

const char *prom_type_name(enum prom_type type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].type == type)
            return types[i].name.ptr;
    }
    return "untyped";
}

/* --- pieces of a line --- */

static bool name_byte(char c, bool first, bool colons) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    return letter || (c == ':' && colons) || (!first && c >= '0' && c <= '9');
}

static void skip_blanks(struct str *rest) {
    while (rest->len > 0 && (rest->ptr[0] == ' ' || rest->ptr[0] == '\t'))
        *rest = str_skip(*rest, 1);
}

/* The name at the start; empty when there is none, or it is too long. */
static struct str take_name(struct str *rest, bool colons) {
    size_t len = 0;
    while (len < rest->len && name_byte(rest->ptr[len], len == 0, colons))
        len++;
    if (len > PROM_NAME_MAX)
        return STR("");
    struct str name = str_head(*rest, len);
    *rest = str_skip(*rest, len);
    return name;
}

/* Up to the next blank. */
static struct str take_word(struct str *rest) {
    size_t len = 0;
    while (len < rest->len && rest->ptr[len] != ' ' && rest->ptr[len] != '\t')
        len++;
    struct str word = str_head(*rest, len);
    *rest = str_skip(*rest, len);
    skip_blanks(rest);
    return word;
}

/* Bytes of a quoted text up to its closing quote, or -1. Only \\, \" and \n are escapes. */
static ptrdiff_t quoted_len(struct str text) {
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '"')
            return (ptrdiff_t)i;
        if (text.ptr[i] != '\\')
            continue;
        if (++i == text.len || !strchr("\\\"n", text.ptr[i]) || text.ptr[i] == 0)
            return -1;
    }
    return -1;
}

static int take_label(struct str *rest, struct prom_label *label) {
    skip_blanks(rest);
    label->name = take_name(rest, false);
    skip_blanks(rest);
    if (label->name.len == 0 || !str_starts(*rest, STR("=")))
        return -EINVAL;
    *rest = str_skip(*rest, 1);
    skip_blanks(rest);
    if (!str_starts(*rest, STR("\"")))
        return -EINVAL;
    *rest = str_skip(*rest, 1);
    ptrdiff_t len = quoted_len(*rest);
    if (len < 0)
        return -EINVAL;
    label->value = str_head(*rest, (size_t)len);
    *rest = str_skip(*rest, (size_t)len + 1);
    skip_blanks(rest);
    return 0;
}

/* What stands between the braces; `rest` begins behind the opening one. */
static int take_labels(struct str *rest, struct str *labels) {
    const char *start = rest->ptr;
    struct prom_label label;
    size_t count = 0;
    skip_blanks(rest);
    while (rest->len > 0 && rest->ptr[0] != '}') {
        if (take_label(rest, &label) < 0 || ++count > PROM_LABELS_MAX)
            return -EINVAL;
        if (str_starts(*rest, STR(",")))
            *rest = str_skip(*rest, 1);
        else if (!str_starts(*rest, STR("}")))
            return -EINVAL;
        skip_blanks(rest);
    }
    if (rest->len == 0)
        return -EINVAL;
    *labels = str_make(start, (size_t)(rest->ptr - start));
    *rest = str_skip(*rest, 1);
    return 0;
}

bool prom_label(struct str *labels, struct prom_label *label) {
    skip_blanks(labels);
    if (labels->len == 0 || take_label(labels, label) < 0)
        return false;
    if (labels->len > 0)
        *labels = str_skip(*labels, 1);
    return true;
}

int prom_number(struct str text, double *out) {
    struct str digits = text;
    bool minus = str_starts(text, STR("-"));
    if (minus || str_starts(text, STR("+")))
        digits = str_skip(text, 1);
    if (str_ieq(digits, STR("inf")) || str_ieq(digits, STR("infinity"))) {
        *out = minus ? -INFINITY : INFINITY;
        return 0;
    }
    if (str_ieq(text, STR("nan"))) {
        *out = NAN;
        return 0;
    }
    if (digits.len == 0 || digits.ptr[0] == '-' || digits.ptr[0] == '+')
        return -EINVAL;
    int err = str_to_double(minus ? text : digits, out);
    if (err == -ERANGE) {
        *out = minus ? -INFINITY : INFINITY;
        return 0;
    }
    return err;
}

/* --- lines --- */

static int read_sample(struct str text, struct prom_line *line) {
    int64_t when;
    line->kind = PROM_SAMPLE;
    line->labels = line->time = STR("");
    line->name = take_name(&text, true);
    if (line->name.len == 0)
        return -EINVAL;
    bool braces = str_starts(text, STR("{"));
    bool blank = str_starts(text, STR(" ")) || str_starts(text, STR("\t"));
    skip_blanks(&text);
    if (!braces && !blank)
        return -EINVAL;
    if (str_starts(text, STR("{"))) {
        text = str_skip(text, 1);
        if (take_labels(&text, &line->labels) < 0)
            return -EINVAL;
        skip_blanks(&text);
    }
    line->value = take_word(&text);
    if (line->value.len > PROM_VALUE_MAX || prom_number(line->value, &line->number) < 0)
        return -EINVAL;
    line->time = take_word(&text);
    bool timed = line->time.len == 0 || str_to_i64(line->time, &when) == 0;
    return timed && text.len == 0 ? 0 : -EINVAL;
}

static int read_type(struct str word, struct prom_line *line) {
    line->kind = PROM_TYPE;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (str_eq(word, types[i].name)) {
            line->type = types[i].type;
            return 0;
        }
    }
    return -EINVAL;
}

/* "HELP name text", "TYPE name word", or any other remark. */
static int read_comment(struct str text, struct prom_line *line) {
    skip_blanks(&text);
    struct str word = take_word(&text);
    bool help = str_eq(word, STR("HELP"));
    line->kind = PROM_BLANK;
    if (!help && !str_eq(word, STR("TYPE")))
        return 0;
    line->name = take_name(&text, true);
    bool ends = text.len == 0 || text.ptr[0] == ' ' || text.ptr[0] == '\t';
    if (line->name.len == 0 || !ends)
        return -EINVAL;
    skip_blanks(&text);
    if (!help)
        return read_type(str_trim(text), line);
    line->kind = PROM_HELP;
    line->help = text;
    return 0;
}

static struct str take_line(struct str *rest) {
    const char *end = memchr(rest->ptr, '\n', rest->len);
    size_t len = end ? (size_t)(end - rest->ptr) : rest->len;
    struct str text = str_head(*rest, len);
    *rest = str_skip(*rest, end ? len + 1 : len);
    if (str_ends(text, STR("\r")))
        text.len--;
    return text;
}

int prom_next(struct str *rest, struct prom_line *line) {
    if (rest->len == 0)
        return 0;
    struct str text = take_line(rest);
    if (!utf8_valid(text) || memchr(text.ptr, 0, text.len) || memchr(text.ptr, '\r', text.len))
        return -EINVAL;
    *line = (struct prom_line){.kind = PROM_BLANK};
    skip_blanks(&text);
    if (text.len == 0)
        return 1;
    bool comment = text.ptr[0] == '#';
    int err = comment ? read_comment(str_skip(text, 1), line) : read_sample(text, line);
    return err ? err : 1;
}
