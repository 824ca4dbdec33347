"""Requests of coding agents, made by hand from their public documentation, for the gateway's contract tests and for real engines."""

from typing import Any

_SHELL = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
CLAUDE_CODE_HEAD = (
    "anthropic-version: 2023-06-01\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\n"
    "x-app: cli\r\nuser-agent: claude-cli/2.1.69 (external, cli)\r\nx-stainless-retry-count: 0\r\n"
    "content-type: application/json\r\naccept: application/json\r\n"
)
CLAUDE_CODE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 32000,
    "stream": True,
    "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
    "metadata": {"user_id": "user_1_account_2_session_3"},
    "thinking": {"type": "adaptive"},
    "tools": [{"name": "Bash", "description": "Run a command", "input_schema": _SHELL}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "List the files."}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a.py"}]},
    ],
}  # fmt: skip
"""Source: code.claude.com, "Gateway protocol reference"; Anthropic API reference, "Messages"."""
CODEX: dict[str, Any] = {
    "model": "m",
    "instructions": "You are an agent.",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]},
        {"type": "function_call", "name": "shell", "arguments": '{"command":"ls"}', "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
    ],
    "tools": [{"type": "function", "name": "shell", "description": "Run it", "strict": False, "parameters": _SHELL}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "7b0c9a5e",
}  # fmt: skip
"""Source: openai/codex, codex-rs/codex-api/src/common.rs, `ResponsesApiRequest`; OpenAI API reference, "Responses"."""
CODEX_OWN: dict[str, Any] = {"client_metadata": {"x-codex-installation-id": "3f1c"}}
"""What it sends besides, which is no key of OpenAI's API. Source: the same."""
