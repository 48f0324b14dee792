/* API keys: taking them out of a header and comparing them without telling by time how much was right. */
#pragma once

#include "base/str.h"

/* The token of "Bearer TOKEN" (scheme in any case); ptr NULL when it is something else. */
struct str keys_bearer(struct str authorization);
/* Constant-time for tokens of one length; false when either is empty or NULL. */
bool keys_equal(struct str a, struct str b);
