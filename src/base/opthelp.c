/* Two columns: flag with its value's name, then text. Words are wrapped one by one, so nothing has
 * to be measured beforehand. Bracketed facts are built as text of their own and wrapped like it. */
#include "base/opthelp.h"

#include "base/optvalue.h"

#define TEXT_COLUMN 36

/* Where the next word goes. */
struct wrap {
    FILE *out;
    size_t column, indent;
};

static void wrap_word(struct wrap *wrap, struct str word) {
    bool first = wrap->column <= wrap->indent;
    if (!first && wrap->column + 1 + word.len > OPTHELP_COLUMNS) {
        fputc('\n', wrap->out);
        wrap->column = 0;
        first = true;
    }
    if (first && wrap->column < wrap->indent) {
        fprintf(wrap->out, "%*s", (int)(wrap->indent - wrap->column), "");
        wrap->column = wrap->indent;
    }
    wrap->column += word.len + !first;
    fprintf(wrap->out, "%s%.*s", first ? "" : " ", STR_ARG(word));
}

static void wrap_text(struct wrap *wrap, const char *text) {
    struct str word;
    while (opt_next_word(&text, &word))
        wrap_word(wrap, word);
}

/* A bracketed fact stays in one piece unless it is long. */
static void wrap_fact(struct wrap *wrap, const char *text) {
    struct str fact = str_from(text);
    if (fact.len < 40)
        wrap_word(wrap, fact);
    else
        wrap_text(wrap, text);
}

static const char *const type_values[] = {
    [OPT_BOOL] = "",       [OPT_INT] = "N",
    [OPT_FLOAT] = "X",     [OPT_STR] = "TEXT",
    [OPT_CHOICE] = "NAME", [OPT_LIST] = "ITEM...",
    [OPT_REPEAT] = "ITEM", [OPT_PAIRS] = "KEY=VALUE...",
    [OPT_FLOATS] = "X...", [OPT_URL_PORT] = "URL [PORT|none]",
};

const char *opthelp_value(const struct opt_row *row, char *out, size_t size) {
    if (row->value == NULL && row->type == OPT_CHOICE && strlen(row->choices) < 34) {
        snprintf(out, size, "%s", row->choices);
        for (char *c = out; *c != '\0'; c++)
            if (*c == ' ')
                *c = '|';
        return out;
    }
    snprintf(out, size, "%s", row->value != NULL ? row->value : type_values[row->type]);
    return out;
}

const char *opthelp_default(const struct opt_row *row, char *out, size_t size) {
    const char *text = row->initial_help != NULL ? row->initial_help : row->initial;
    if (text == NULL || row->secret)
        text = row->type == OPT_BOOL ? "false" : opt_type_is_list(row->type) ? "[]" : "unset";
    snprintf(out, size, "%s", text);
    return out;
}

static void write_facts(struct wrap *wrap, const struct opt_row *row) {
    char text[640], value[400];
    opthelp_value(row, value, sizeof value);
    if (row->type == OPT_CHOICE && strchr(value, '|') == NULL) {
        snprintf(text, sizeof text, "[one of: %s]", row->choices);
        wrap_fact(wrap, text);
    }
    if (row->type != OPT_BOOL) {
        snprintf(text, sizeof text, "[default: %s]", opthelp_default(row, value, sizeof value));
        wrap_fact(wrap, text);
    }
    if (row->env != NULL) {
        snprintf(text, sizeof text, "[env: %s]", row->env);
        wrap_fact(wrap, text);
    }
    if (row->aliases != NULL) {
        snprintf(text, sizeof text, "[also: --%s]", row->aliases);
        wrap_fact(wrap, text);
    }
}

static void write_row(const struct opt_row *row, FILE *out) {
    char value[120];
    int len = fprintf(out, "  --%s %s", row->name, opthelp_value(row, value, sizeof value));
    struct wrap wrap = {out, len > 0 ? (size_t)len : 0, TEXT_COLUMN};
    if (wrap.column >= TEXT_COLUMN) {
        fputc('\n', out);
        wrap.column = 0;
    }
    wrap_text(&wrap, row->help);
    if (row->status == OPT_NO_OP && row->note != NULL) {
        wrap_text(&wrap, "No effect:");
        wrap_text(&wrap, row->note);
    }
    write_facts(&wrap, row);
    fputc('\n', out);
}

static bool row_usable(const struct opt_row *row) {
    return !row->hidden && (row->status == OPT_WORKS || row->status == OPT_NO_OP);
}

static void write_group(const struct opt_group *group, FILE *out) {
    bool titled = false;
    for (size_t i = 0; i < group->count; i++) {
        if (!row_usable(&group->rows[i]))
            continue;
        if (!titled)
            fprintf(out, "\n%s:\n", group->title);
        titled = true;
        write_row(&group->rows[i], out);
    }
}

/* The names of the rows that a later version brings. */
static void write_not_yet(const struct opt_schema *schema, FILE *out) {
    struct wrap wrap = {out, 0, 2};
    char name[100];
    for (size_t i = 0; i < schema->count; i++) {
        for (size_t j = 0; j < schema->groups[i].count; j++) {
            const struct opt_row *row = &schema->groups[i].rows[j];
            if (row->status != OPT_NOT_YET || row->hidden)
                continue;
            if (wrap.column == 0)
                fprintf(out, "\nKnown, but not available in this version yet (refused):\n");
            snprintf(name, sizeof name, "--%s", row->name);
            wrap_word(&wrap, str_from(name));
        }
    }
    if (wrap.column != 0)
        fputc('\n', out);
}

void opthelp_write(const struct opt_schema *schema, FILE *out) {
    for (size_t i = 0; i < schema->count; i++)
        write_group(&schema->groups[i], out);
    write_not_yet(schema, out);
}
