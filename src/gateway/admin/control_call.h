/* Work of a request that belongs on the control loop: whatever touches every worker runs there, so
 * that data loops never do (the fan-outs of admin/ reuse its connections to the workers, too). */
#pragma once

#include "io/loop.h"

/* Runs `fn(arg)` on a fiber of the control loop and waits for it; what fn returned. When the caller
 * is cancelled meanwhile (its client has gone), so is that fiber, and it is still waited for: arg
 * may live on the caller's stack and in its arena. On the control loop it is a plain call. */
FIBER_FN int control_call(int (*fn)(void *arg), void *arg);
