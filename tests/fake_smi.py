"""An `nvidia-smi` for PATH: a small program that tells of as many GPUs as a test wants, in the words of the real one."""

from pathlib import Path

_ROW = "{index}, {uuid}, {mig}, 81559, NVIDIA H100 80GB HBM3"


def uuid(index: int) -> str:
    """Return the made-up UUID of a GPU, as `nvml_shim` has it."""
    return f"GPU-00000000-0000-0000-0000-{index + 1:012d}"


def instance(index: int, number: int) -> str:
    return f"MIG-{index}0000000-0000-0000-0000-{number + 1:012d}"


def fake_smi(
    folder: Path, gpus: int, *, divided: int | None = None, exit_code: int = 0, hangs: bool = False
) -> Path:
    """Write the program into a folder, which is returned; `divided` is a GPU in MIG mode, with two instances."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        _ROW.format(index=index, uuid=uuid(index), mig="Enabled" if index == divided else "Disabled")
        for index in range(gpus)
    ]
    listed = []
    for index in range(gpus):
        listed.append(f"GPU {index}: NVIDIA H100 80GB HBM3 (UUID: {uuid(index)})")
        if index == divided:
            listed += [f"  MIG 3g.40gb     Device  {n}: (UUID: {instance(index, n)})" for n in range(2)]
    query, listing = "\n".join(rows), "\n".join(listed)
    path = folder / "nvidia-smi"
    path.write_text(
        "#!/bin/sh\n" + ("exec sleep 600\n" * hangs) + 'case "$1" in\n'
        f"--query-gpu=index*) cat <<'END'\n{query}\nEND\n;;\n-L) cat <<'END'\n{listing}\nEND\n;;\nesac\nexit {exit_code}\n"
    )
    path.chmod(0o755)
    return folder
