/* The inference endpoints of a simulated worker, in the shapes of SGLang, OpenAI and Anthropic. */
#pragma once

#include "lab/mock_call.h"

mock_handler mock_chat;        /* /v1/chat/completions */
mock_handler mock_completions; /* /v1/completions */
mock_handler mock_generate;    /* /generate */
mock_handler mock_responses;   /* /v1/responses */
mock_handler mock_messages;    /* /v1/messages */
mock_handler mock_embeddings;  /* /v1/embeddings */
mock_handler mock_rerank;      /* /v1/rerank, /rerank */
mock_handler mock_classify;    /* /v1/classify */
