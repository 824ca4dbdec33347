"""`freehold` and `python -m freehold`: where the command begins."""

import sys


def run() -> int:
    """Run the command and return its exit code; 130 if Ctrl-C comes while its modules are still being loaded."""
    try:
        from freehold.cli.main import main  # noqa: PLC0415 - Ctrl-C can come during this import

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
