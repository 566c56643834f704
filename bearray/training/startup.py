"""Workers that fail while they are started: Ray Train alone would start them again for ever."""

from __future__ import annotations

import logging
from typing import Any

from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState

from bearray.errors import BearrayError
from bearray.runs import Storage
from bearray.training.events import tell
from bearray.training.failures import WorkersFailedError, how_it_ended, last_line

logger = logging.getLogger(__name__)


class StartLimit(ControllerCallback):
    """Ends a run whose workers fail again and again while they are started.

    Ray Train counts failed starts together with waits for room that time out, and has no limit for them
    unless `FailureConfig.controller_failure_limit` sets one for both. Room is waited for however long it
    takes, so only failures are counted here, and those in a row: a start that succeeds shows that nothing is
    wrong for good. It lives in Ray Train's controller, where an exception of a callback ends the run.

    Args:
        restarts: how often in a row a failed start is followed by another one.
        folder: the run folder, whose events tell of each; None: they are not recorded.
        setting: what sets `restarts`, for the message.
    """

    def __init__(self, restarts: int, folder: str | None = None, setting: str | None = None) -> None:
        self.restarts, self.folder, self.setting = restarts, folder, setting
        self.failed = 0

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Called by Ray Train whenever its controller's state changes.

        Raises:
            WorkersFailedError: more than `restarts` starts in a row have failed.
        """
        if isinstance(current_state, RunningState):
            self.failed = 0
        if not isinstance(current_state, ReschedulingState):
            return
        error = getattr(current_state.training_failed_error, "controller_failure", None)
        if not isinstance(error, WorkerGroupStartupFailedError):
            return
        self.failed += 1
        message = f"workers could not be started: {_cause(error)}"
        end = self.failed > self.restarts
        if self.folder is not None:
            try:
                tell(Storage(self.folder), message, why="start", ranks=[], ended_the_run=end)
            except BearrayError as unwritten:  # a record that cannot be kept is no reason to end the run
                logger.error("%s; not recorded: %s", message, unwritten)
        if end:
            by = f" ({self.setting})" if self.setting else ""
            raise WorkersFailedError(
                f"{message}; it failed {self.failed} times in a row and is tried again {self.restarts} times"
                f"{by}; BEARRAY_WORKER_LOGS=1 shows what workers print; run the same again to continue"
            )


def _cause(error: WorkerGroupStartupFailedError) -> str:
    """In one line: the exception of a worker's start, or what has become of its process."""
    cause = error.__cause__ or error
    if isinstance(cause, RayActorError) and cause.actor_init_failed:
        return last_line(cause)
    return how_it_ended(cause)
