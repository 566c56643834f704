"""Keeps third parties' notices about their own future out of logs that people read at night."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence progress bars and deprecation notices of libraries in this process; errors and our own stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers|deepspeed)\b.*")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
