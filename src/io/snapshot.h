/* Immutable data that every loop sees: the control loop publishes a new version, each loop swaps its own
 * pointer between two callbacks (coalesced: at most one swap per 10 ms and kind). Reading is a plain load;
 * a version stays alive while a loop shows it or a holder keeps it. */
#pragma once

#include "io/loop.h"

enum snapshot_kind { SNAPSHOT_FLEET, SNAPSHOT_CONFIG, SNAPSHOT_KINDS };

/* Hands `data` over: `destroy(data)` is called on some loop when nobody shows or holds it any more.
 * Control loop only. The control loop itself sees it at once, the others within 10 ms or so. */
void snapshot_publish(enum snapshot_kind kind, void *data, void (*destroy)(void *data));
/* What this loop shows now, or NULL before the first publication. Valid until the next park. */
void *snapshot_get(enum snapshot_kind kind);
/* Keeps the version that this loop shows now across parks; give it back on the same loop. */
struct snapshot_hold;
struct snapshot_hold *snapshot_keep(enum snapshot_kind kind);
void *snapshot_held(const struct snapshot_hold *hold);
void snapshot_release(struct snapshot_hold *hold);
/* Waits until every loop shows what was published last, or the fiber is cancelled. Control loop fibers only. */
FIBER_FN void snapshot_settle(enum snapshot_kind kind);
