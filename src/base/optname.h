/* Names of option rows: exact look-up, the nearest spelling of an unknown one, words of lists. The
 * public functions are declared in optparse.h; this header only pairs with optname.c. */
#pragma once

#include "base/optparse.h"

/* Edits (insert, delete, replace, swap neighbours) from `a` to `b`; more than `limit` counts as
 * limit + 1. Names over 64 bytes are never near. */
size_t opt_edit_distance(struct str a, struct str b, size_t limit);
