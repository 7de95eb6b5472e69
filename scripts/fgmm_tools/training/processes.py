"""What one of the processes that train together does for all."""

import sys
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..cli import USER_ERROR


def on_main_process(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """What a function returns that the main process calls, in all processes; where it fails, all of them end.

    Raises:
        what the function raises, in the main process.
        SystemExit: in the others.
    """
    result = failure = None
    if accelerator.is_main_process:
        try:
            result = function()
        except BaseException as error:
            failure = error
    outcome = broadcast_object_list([result, failure is not None])
    if failure:
        raise failure
    if outcome[1]:
        sys.exit(USER_ERROR)
    return outcome[0]
