"""What a user may set of vLLM, and with which of its flags: data for the engine file `vllm`.

Every flag of vLLM 0.32.0 is an option under its own name with `_` for `-`; the list was read from the program itself
(`programs/vllm_flags`). It does not say what becomes of them: that is the engine file.
"""

from types import MappingProxyType

from freehold.engines.base import Option
from freehold.engines.shared.flag_list import load_flags, to_options

FLAGS = load_flags("vllm-0.32.0.json").flags
"""Of the version that this file was written against."""

_HELP = MappingProxyType(
    {
        "max_num_seqs": "slots: requests worked on at once; Freehold's default 256, GPUs of 80 GB and more can take 1024",
        "max_model_len": "longest prompt plus answer of one request, tokens; default: what the model was made for",
        "max_num_batched_tokens": "tokens computed in one step, all requests together; more is faster for prompts and jerkier for answers",
        "max_num_queued_reqs": "requests beyond this many that wait are refused; the gateway's queue comes before it",
        "gpu_memory_utilization": "part of the GPU's memory that weights and KV cache may take, 0 to 1",
        "kv_cache_memory_bytes": "size of the KV cache in bytes, instead of gpu_memory_utilization",
        "tensor_parallel_size": "GPUs that each layer is spread over; they should be joined by NVLink, in one node",
        "pipeline_parallel_size": "groups of layers, each on its own GPUs; over several nodes with distributed_executor_backend: ray",
        "data_parallel_size": "copies of the model behind one address; replicas do the same and are watched one by one",
        "distributed_executor_backend": "mp in one node, ray over several: Ray must run, and this node be its head",
        "enable_expert_parallel": "spread a mixture's experts over the GPUs of tensor_parallel_size",
        "dtype": "kind of numbers; auto is what the weights have (float32 becomes float16)",
        "quantization": "how the weights are quantised; default: what their config.json says",
        "kv_cache_dtype": "kind of numbers in the KV cache; fp8 holds twice the tokens, at some loss of accuracy",
        "block_size": "tokens of one block of the KV cache",
        "num_gpu_blocks_override": "blocks of the KV cache, whatever fits; for tests of preemption",
        "enable_prefix_caching": "keep the KV cache of what prompts have in common; default: on where the model allows",
        "enable_chunked_prefill": "work on long prompts in parts between other requests' tokens",
        "enforce_eager": "no compilation and no CUDA graphs: starts faster, answers slower",
        "compilation_config": "what is compiled, and how",
        "cpu_offload_gb": "GiB of weights kept in main memory instead of on each GPU; slow",
        "kv_offloading_size": "GiB of main memory that take KV cache which the GPU has no room for",
        "enable_lora": "allow adapters beside the model; set where the model has `adapters`",
        "max_loras": "adapters in one batch; Freehold's default: all of the model's, at most 8",
        "max_lora_rank": "highest rank of an adapter; default: what the model's adapters need",
        "enable_auto_tool_choice": "let the model choose tools by itself; needs tool_call_parser",
        "tool_call_parser": "how this model writes tool calls, such as hermes or llama3_json",
        "reasoning_parser": "how this model marks its thoughts, such as deepseek_r1 or qwen3",
        "chat_template": "file of the chat template, instead of the weights' own",
        "generation_config": "auto takes the model's own sampling defaults, vllm takes none",
        "override_generation_config": "sampling defaults for requests that bring none",
        "structured_outputs_config": "which library holds answers to a JSON schema",
        "speculative_config": "speculative decoding: method, draft model, tokens",
        "runner": "generate, or pooling for embeddings and reranking",
        "convert": "make an embedding or classifying model of a generating one: embed, classify",
        "load_format": "how weights are read; auto takes safetensors",
        "tokenizer": "folder of another tokenizer than the weights' own",
        "seed": "seed of requests that bring none",
        "shutdown_timeout": "seconds that requests under way may take after SIGTERM; Freehold's default 5, must be below fleet.stop_grace",
        "trust_remote_code": "run Python that comes with the weights. Off: such code has all rights of this user",
        "hf_overrides": "entries of the model's config.json that are to be others",
        "enable_sleep_mode": "allow to free the GPU's memory and take it again (/sleep, /wake_up; with server_dev_mode)",
        "enable_log_requests": "write each request into the log; with enable_log_outputs answers as well. Off: they are people's words",
        "enable_log_outputs": "write answers into the log. Off: they are people's words",
        "scheduling_policy": "fcfs: in order of arrival; priority: by the request's `priority`",
        "stream_interval": "tokens per chunk of a stream",
        "otlp_traces_endpoint": "where traces go (OpenTelemetry); default: nowhere",
        "nnodes": "nodes of one replica, without Ray; the others are started by hand with --headless",
    }
)
"""What the usual options set, in our words; the others have a word of where to read."""

_ADDRESS = "gateway.listen says where clients come; an engine listens on this machine only"
_KEYS = "gateway.auth: keys asks clients for keys; nobody else reaches the engine"
_WEB = "no web page reaches the engine"
RESERVED = MappingProxyType(
    {
        **dict.fromkeys(("host", "port", "uds", "root_path", "grpc", "grpc_port", "headless"), _ADDRESS),
        **dict.fromkeys(("model", "served_model_name"), "write name and source of the model"),
        "config": "write the flags here, one option each",
        "device_ids": "write the model's `gpus`, so that no other replica takes the same",
        "lora_modules": "write `adapters` beside `engine_options`: they are fetched, verified, and clients reach them by name",
        **dict.fromkeys(("api_key", "hf_token"), _KEYS),
        **dict.fromkeys(
            (
                "ssl_keyfile",
                "ssl_certfile",
                "ssl_ca_certs",
                "ssl_cert_reqs",
                "ssl_ciphers",
                "enable_ssl_refresh",
            ),
            "traffic to the engine does not leave this machine",
        ),
        **dict.fromkeys(("allowed_origins", "allowed_methods", "allowed_headers", "allow_credentials"), _WEB),
        **dict.fromkeys(("disable_fastapi_docs", "enable_offline_docs"), _WEB),
        **dict.fromkeys(
            ("disable_uvicorn_access_log", "disable_access_log_for_endpoints"),
            "gateway.access_log has each request",
        ),
        "enable_request_id_headers": "always on: the gateway sends an id with each request",
        "enable_server_load_tracking": "always on: /load tells how much is under way",
        "disable_log_stats": "without its counters nobody could tell whether it works",
        "tokens_only": "the gateway's paths need the whole server",
        **dict.fromkeys(
            (
                "data_parallel_supervisor_port",
                "dp_supervisor_probe_interval_s",
                "dp_supervisor_probe_timeout_s",
                "dp_supervisor_probe_failure_threshold",
                "data_parallel_multi_port_external_lb",
            ),
            "the gateway balances between replicas: write replicas",
        ),
    }
)
"""Flags that are no options, and what is written instead."""

_OWN_OPTIONS = (
    Option(
        name="program",
        type="str",
        program=True,
        help="path of a vllm program to run; default: the one of the environment that `freehold engine install` made",
    ),
    Option(
        name="cpu_kv_cache_gib",
        type="int",
        minimum=1,
        maximum=65_536,
        help="main memory for the KV cache on a CPU, GiB (VLLM_CPU_KVCACHE_SPACE); default in the CPU environment 2",
    ),
    Option(
        name="cpu_threads",
        type="int",
        minimum=1,
        maximum=4096,
        help="compute threads on a CPU; default in the CPU environment: this replica's share of the machine",
    ),
    Option(
        name="hub_online",
        type="bool",
        default=False,
        help="let it ask Hugging Face for files. Off: the weights are here and verified, what comes from there is not",
    ),
    Option(
        name="server_dev_mode",
        type="bool",
        default=False,
        help="serve /sleep, /wake_up and other paths that run anything: who reaches its port can run code as this user",
    ),
    Option(
        name="runtime_lora",
        type="bool",
        default=False,
        help="let adapters be loaded while it runs (/v1/load_lora_adapter): who reaches its port can have it read any folder",
    ),
)
OPTIONS = (*_OWN_OPTIONS, *to_options(FLAGS, helps=_HELP, reserved=RESERVED))
