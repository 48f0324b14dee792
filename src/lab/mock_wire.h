/* Answers of a simulated worker on their way out, with the faults that lie in the sending: delay, slow
 * bodies, cuts at a byte, at an event border or inside an event, silence. */
#pragma once

#include "lab/mock_faults.h"
#include "proto/http_server.h"

struct mock_wire {
    struct exchange *exchange;
    struct mock_faults faults; /* mock_faults_none() when the request is out of scope */
    struct headers headers;    /* sent with every answer; Content-Type is added */
    uint64_t sent, events;
    bool begun;
};

/* Functions return 0, or a negative errno after which the exchange is over: -ECANCELED or what writing
 * gave (the client is gone), -ECONNABORTED (cut as told). */

/* The whole answer in one go. */
FIBER_FN int mock_wire_answer(struct mock_wire *wire, int status, const char *content_type,
                              struct str body);
/* A stream of events: head, events (text with its blank line), end. The head waits for the first event. */
void mock_wire_stream(struct mock_wire *wire);
FIBER_FN int mock_wire_event(struct mock_wire *wire, struct str event);
FIBER_FN int mock_wire_end(struct mock_wire *wire);

/* Instead of an answer: nothing until the client goes, an end, bytes that are no HTTP. */
FIBER_FN int mock_wire_hang(struct mock_wire *wire);
int mock_wire_drop(struct mock_wire *wire);
FIBER_FN int mock_wire_garbage(struct mock_wire *wire);
