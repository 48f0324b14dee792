/* What cannot be seen from one option alone, and what is no number: refusals of spec 01 section
 * 1.19. Runs over the merged values before they become settings. */
#pragma once

#include "app/config_file.h"
#include "app/option_table.h"

struct config_check {
    const struct optparse *parser;
    const struct config_file *file; /* to name the line of a value that came from there */
    const struct option_values *values;
    char *error;
    size_t error_size;
};

/* 0, or -EINVAL with the first refusal in `error`. */
int config_check(const struct config_check *check) MUST_CHECK;
/* A host as a socket wants it: without the brackets of IPv6. False when it is neither an address nor
 * a host name. */
bool config_host(struct str text, struct str *host);
/* An origin as browsers send it: scheme://host[:port], or `null`. */
bool config_origin(struct str text);
