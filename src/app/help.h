/* What the program says about itself: help, version, and the reference page of its options. */
#pragma once

#include <stdio.h>

/* `sluice --help`: usage, sub-commands, all options by section. */
void help_write(FILE *out);
/* "sluice 0.1.0". */
void help_version(FILE *out);
/* Version, build time and mode, commit, compiler, platform; one `name: value` a line. */
void help_version_verbose(FILE *out);
/* docs/configuration.md, whole. */
void help_markdown(FILE *out);
