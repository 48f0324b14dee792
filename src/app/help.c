/* Everything here is printed from the tables, so it cannot say what the program does not do. The
 * reference page is checked against this output by a test. */
#include "app/help.h"

#include <sys/utsname.h>

#include "app/option_table.h"
#include "app/options.h"
#include "base/opthelp.h"
#include "version.h"

void help_version(FILE *out) { fprintf(out, "sluice %s\n", SLUICE_VERSION); }

void help_version_verbose(FILE *out) {
    struct utsname system;
    bool known = uname(&system) == 0;
    help_version(out);
    fprintf(out, "built: %s, %s\n", SLUICE_BUILD_TIME, SLUICE_BUILD_MODE);
    fprintf(out, "git: %s %s (%s)\n", SLUICE_BRANCH, SLUICE_COMMIT, SLUICE_TREE);
    fprintf(out, "compiler: %s\n", __VERSION__);
    fprintf(out, "platform: %s %s\n", known ? system.sysname : "unknown",
            known ? system.machine : "unknown");
}

void help_write(FILE *out) {
    const char *name, *help;
    unsigned cursor = 0;
    fprintf(out, "sluice: a gateway that routes requests to a fleet of model servers\n\n"
                 "Usage: sluice [COMMAND] [FLAGS]\n\nCommands:\n");
    while (command_next(&cursor, &name, &help))
        fprintf(out, "  %-14s %s\n", name, help);
    fprintf(out, "\nGeneral:\n"
                 "  -h, --help                        This text; after a command, its own.\n"
                 "  -V, --version                     The version.\n"
                 "  --version-verbose                 The version, and how it was built.\n");
    opthelp_write(option_schema(), out);
}

/* --- the reference page ---------------------------------------------------------------------- */

/* A table cell: '|' would end it. */
static void write_cell(FILE *out, const char *text) {
    for (; *text != '\0'; text++)
        fprintf(out, *text == '|' ? "\\|" : "%c", *text);
}

static const char *status_text(const struct opt_row *row) {
    static const char *const texts[] = {
        [OPT_WORKS] = "works",
        [OPT_NOT_YET] = "not yet: refused",
        [OPT_NO_OP] = "accepted, no effect",
        [OPT_ABSENT] = "refused",
    };
    return texts[row->status];
}

static void write_names(const struct opt_row *row, FILE *out) {
    const char *cursor = row->aliases;
    struct str alias;
    fprintf(out, "`--%s`", row->name);
    while (opt_next_word(&cursor, &alias))
        fprintf(out, "<br>`--%.*s`", STR_ARG(alias));
}

static void write_meaning(const struct opt_row *row, FILE *out) {
    write_cell(out, row->help);
    if (row->type == OPT_CHOICE) {
        fprintf(out, " One of: ");
        write_cell(out, row->choices);
        fprintf(out, ".");
    }
    if (row->note != NULL) {
        fprintf(out, " Reason: ");
        write_cell(out, row->note);
        fprintf(out, ".");
    }
}

static void write_doc_row(const struct opt_row *row, FILE *out) {
    char text[200];
    fprintf(out, "| ");
    write_names(row, out);
    fprintf(out, " | ");
    if (row->type == OPT_CHOICE)
        snprintf(text, sizeof text, "name");
    else
        opthelp_value(row, text, sizeof text);
    write_cell(out, row->type == OPT_BOOL ? "flag" : text);
    fprintf(out, " | ");
    write_cell(out, opthelp_default(row, text, sizeof text));
    fprintf(out, " | %s | %s | %s | ", row->env != NULL ? row->env : "", row->tag,
            status_text(row));
    write_meaning(row, out);
    fprintf(out, " |\n");
}

static void write_doc_group(const struct opt_group *group, FILE *out) {
    fprintf(out, "\n## %s\n\n", group->title);
    fprintf(out, "| Flag | Value | Default | Environment | From | Status | Meaning |\n"
                 "|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < group->count; i++)
        if (!group->rows[i].hidden)
            write_doc_row(&group->rows[i], out);
}

static const char *const page_head =
    "# Configuration\n"
    "\n"
    "<!-- Written by `sluice --help-markdown`; a test compares this file with the program. -->\n"
    "\n"
    "Every option is a flag of `sluice` (`sluice launch`). Most of them can also stand in the "
    "YAML\n"
    "file that `--config` names, and some in environment variables. The command line goes before\n"
    "the environment, the environment before the file, the file before the default.\n"
    "\n"
    "On the command line: `--flag value` and `--flag=value` both work. A flag that takes a list\n"
    "takes all words up to the next one that starts with `-`; given again, it adds to the list.\n"
    "Names are exact.\n"
    "\n"
    "In the file: one mapping, the flags' names without the dashes in front; `_` may stand for "
    "`-`.\n"
    "A flag without a value is `true` or `false`, a list is a YAML list (or one item), key=value\n"
    "lists may be mappings. Text must be text: put it in quotes if it looks like a number or a\n"
    "boolean. A key without a value (null) counts as not given. An unknown key is an error, and "
    "so\n"
    "are YAML aliases and tags. What is wrong is reported as `FILE:LINE: FIELD: reason`.\n"
    "\n"
    "```yaml\n"
    "host: 0.0.0.0\n"
    "port: 30000\n"
    "worker_urls:\n"
    "  - http://10.0.0.1:8000\n"
    "  - http://10.0.0.2:8000\n"
    "policy: round_robin\n"
    "log-json: true\n"
    "```\n"
    "\n"
    "A mistake on the command line ends the program with status 2, a refused value with status 1.\n"
    "\n"
    "Column *From*: SEED and 0.3.2 are flags of SGLang Model Gateway, SMG of its successor, OURS\n"
    "of sluice alone. Flags that are *not yet* available are known and refused when they are\n"
    "given.\n";

void help_markdown(FILE *out) {
    const struct opt_schema *schema = option_schema();
    fputs(page_head, out);
    for (size_t i = 0; i < schema->count; i++)
        write_doc_group(&schema->groups[i], out);
}
