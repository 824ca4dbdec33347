"""Words in engines' logs that mean a setting, a file or a package is wrong: nothing that another machine would mend.

Tables only; `words` searches them, and only where a log names no fault of GPU, disk or network, since a program that
lost its GPU complains of much besides. Nothing here says what a sign weighs.
"""

_SETTINGS = (
    r"[Aa]ddress already in use|EADDRINUSE|Errno 98\b|couldn't bind|[Pp]ort \d+ .{0,40}already (in use|allocated|taken)",
    r"error: (unrecognized arguments|argument |the following arguments|invalid choice)|invalid argument: |error while handling argument",
    r"\b(unknown|unrecognized|unexpected) (option|flag|argument|parameter)s?\b|No such option|unexpected extra argument",
    r"validation errors? for \w*(Config|Args|Params|Options)\b",
    r"max_model_len.{0,80}(greater|larger) than the derived|crease (--)?mem[-_]fraction[-_]static",
    r"(must be|not|be) (evenly )?divisible by",
    r"compute capability of at least|only supported on GPUs with compute capability",
    r"[Qq]uantization .{0,80}(not supported|is not|does not match|unknown|invalid)|[Uu]nknown quantization",
    r"[Mm]odel architectures? .{0,120}(not supported|failed to be inspected)|unknown (model|pre-tokenizer) (architecture|type)",
    r"[Uu]nrecognized (model|configuration class)|does not recognize this architecture|trust_remote_code=True. to",
    r"not a (valid model identifier|local folder)|No supported config format|[Rr]epositoryNotFound|[Rr]evisionNotFound",
    r"GatedRepo|Access to model .{0,120}restricted|\b40[13] Client Error|Invalid user token|Invalid credentials",
    r"invalid device ordinal|[Ww]orld size .{0,80}(larger|greater|than)|(not enough|available) GPUs? .{0,40}(requested|required|needed|available)",
    r"\bMIG\b.{0,100}(not found|does not exist|invalid|disabled|no longer|not name)|invalid MIG",
    r"(Local|Remote|)EntryNotFound|outgoing traffic has been disabled|couldn't connect to .{0,60}huggingface|HF_HUB_OFFLINE",
    r"[Cc]an't load (the )?(config\w*|tokenizer\w*|model|image|feature)|does not appear to have a file named|[Cc]annot find any|[Nn]o (model )?weights",
    r"peer access is not supported|Duplicate GPU detected|exec format error|executable file not found",
    r"FileNotFoundError|No such file or directory|PermissionError|Permission denied|Errno (2|13)\b",
    r"insufficient shared memory|/dev/shm.{0,60}(full|space|small)|\bshm\b.{0,40}(too small|insufficient)",
    r"Too many open files|Errno 24\b|can't start new thread|RLIMIT_\w+|memlock.{0,40}(limit|too)",
)
"""Source: what vLLM, SGLang, TensorRT-LLM, llama.cpp, torch, transformers, huggingface_hub and argparse print, as quoted in their issues:
vLLM 9763, 16307; SGLang 4330; TensorRT-LLM 1556."""
_WEIGHTS = (
    r"SafetensorError|MetadataIncompleteBuffer|InvalidHeader|HeaderTooLarge|PytorchStreamReader failed|invalid load key",
    r"(model|file|checkpoint|weights?) (is|are|may be|seems to be|appears to be) (corrupt\w*|incomplete|truncated)",
    r"not within the file bounds|invalid magic|failed to read (magic|tensor|key-value)|failed to open GGUF|Consistency check failed",
    r"error loading model|[Ff]ailed to load model (weights|from)|unexpected (end of file|EOF)",
)
"""Source: safetensors' and llama.cpp's own messages (vLLM issue 15445, llama.cpp pull request 6885: a partial download or a bad copy)."""
_BUILD = (
    r"[Dd]eserialize (the )?(cuda|TensorRT) engine|Version tag does not match|kSERIALIZATION_VERSION|engine plan file .{0,60}(incompatible|not compatible)",
    r"no kernel image is available|undefined symbol|cannot open shared object file|GLIBC(XX)?_[\d.]+['`]? not found",
    r"ptxas fatal|nvcc fatal|\bsm_\d+a?\b.{0,40}not (defined|compatible|supported)|CUDA_HOME|[Cc]ould not find nvcc|nvcc.{0,20}not found|ninja: (error|build stopped)",
    r"ModuleNotFoundError|ImportError|\bIllegal instruction|incompatible (function arguments|with the (current|installed))",
)
"""Source: TensorRT-LLM issue 660, vLLM issues 4604 and 18835, the dynamic loader: built for other versions, another card or processor."""
_NO_GPU = (
    r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver|Failed to infer device type",
    r"NVML: (Insufficient Permissions|Not Found|Unknown Error)|NVML_ERROR_NO_PERMISSION|could not select device driver",
    r"CUDA driver initialization failed|CUDA unknown error|incorrectly set up environment|libcuda\.so\S* .{0,40}(cannot|not found|No such)",
)
"""Source: torch, NVML and Docker where a container was given no GPU."""
_NO_DRIVER = (
    r"couldn't communicate with the NVIDIA driver|NVIDIA driver is not (loaded|running)|[Dd]river [Nn]ot [Ll]oaded",
)
"""Source: nvidia-smi and nvidia-container-cli where the kernel module is not loaded."""
_BUSY = (r"(busy or unavailable|DEVICE_UNAVAILABLE|DevicesUnavailable)",)
"""Source: CUDA error 46: exclusive mode, another process, or a GPU that waits for its reset (scitix/sichek issue 51)."""
_HOST_MEMORY = (
    r"std::bad_alloc|Cannot allocate memory|Errno 12\b|\bMemoryError\b|DefaultCPUAllocator: (not enough|can't allocate)",
)
"""Source: errno 12 (ENOMEM) in C++, Python and torch."""

_ADVICE = (
    (
        r"(\[TensorRT-LLM\]\[ERROR\]|^error|ValueError|AssertionError|NotImplementedError|OSError|EnvironmentError|(Config|Validation|Argument|Option)\w{0,40}(Error|Exception)):? "
        r".*\b(must|should|cannot be|can't be|not supported|[Uu]nsupported|[Nn]o \w+( \w+)? found|is required|invalid|unknown|exceeds?|(greater|less|larger|smaller|more|fewer) than"
        r"|does not (exist|support|match)|not found|missing|not allowed|incompatible)\b"
    ),
    r"(Error|Exception): .*\b([Pp]lease|[Tt]ry) (to )?(set|use|using|install|pass|specify|provide|check|upgrade|update|increas\w+|decreas\w+|reduc\w+|enabl\w+|disabl\w+)",
)
"""Source: our own reading of engines' issues: an exception that tells the user what to change is about what the user set."""

LOG = tuple(
    (pattern, sign)
    for patterns, sign in (
        (_NO_DRIVER, "driver_missing"),
        (_NO_GPU, "log_no_gpu"),
        (_BUSY, "log_device_busy"),
        (_WEIGHTS, "engine_weights"),
        (_BUILD, "log_build"),
        (_HOST_MEMORY, "engine_memory"),
        (_SETTINGS, "engine_configuration"),
        (_ADVICE, "log_advice"),
    )
    for pattern in patterns
)
"""Words and the sign that they are. What is more particular goes first; a line counts for one of them."""
