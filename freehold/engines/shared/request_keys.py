"""Keys that the body of a request may have at its top in the APIs that the gateway speaks; not whether an engine heeds them.

An engine's own keys stand in its data file, as `request_keys`.
"""

_NAMES = """
access_programs audio background background_options best_of betas billing_policy cache_control client_metadata compaction
complexity container context_management conversation diagnostics dimensions documents echo encoding_format fallback_credit_token
fallbacks frame_count frame_duration_ms frequency_penalty function_call functions ignore_eos image include inference_geo input
instructions logit_bias logprobs max_chunks_per_doc max_completion_tokens max_output_tokens max_tokens max_tokens_per_doc
max_tool_calls mcp_servers messages metadata min_tokens modalities model moderation n output_compression output_config
output_format parallel_tool_calls partial_images personality prediction presence_penalty previous_response_id prompt
prompt_cache_key prompt_cache_options prompt_cache_retention quality query reasoning reasoning_effort response_format
return_documents return_text safety_identifier seed service_tier size speed stop stop_sequences store stream stream_format
stream_options style suffix svg system temperature text texts thinking thread tool_choice tools top_k top_logprobs top_n top_p
truncation user user_profile_id verbosity voice web_search_options workspace_id"""
API_KEYS = frozenset(_NAMES.split())
"""Source: the request types of OpenAI's SDK 3.57.0 (chat, completions, responses, embeddings, speech, images) and Anthropic's 2.14.0
(messages, and its beta); codex's `client_metadata` (openai/codex, `ResponsesApiRequest`); rerank as Cohere, Jina and TEI have it; and
`ignore_eos` and `min_tokens`, by which load tools, `freehold bench` too, ask any engine for an answer of one length."""
