"""Keeps third parties' notices about their own future out of logs that people read at night."""

from __future__ import annotations

import os
import sys
import warnings


def quiet_libraries() -> None:
    """Silence progress bars and deprecation notices of libraries in this process; errors and our own stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers|deepspeed)\b.*")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def show_downloads() -> None:
    """After `quiet_libraries`: files that come from the hub get their bars back, where somebody looks."""
    from huggingface_hub.utils import enable_progress_bars

    if sys.stderr.isatty():
        enable_progress_bars()
