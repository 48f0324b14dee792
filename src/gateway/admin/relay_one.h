/* A GET that the first ready worker answers: its status, its headers as spec 01 section 5.3 lets
 * them through, its body. Never tried again with another worker. */
#pragma once

#include "gateway/request.h"

/* Answers the request. When the worker knows no `route` (404) and `other` is not empty, that one is
 * asked for instead: engines renamed their info routes. 503 no_workers, or what 01 section 4.3 has
 * for a call that failed. */
FIBER_FN void relay_one(struct request *request, struct str route, struct str other);
