"""What requests to a served search may take; imports nothing heavy, as a command's --help gives these defaults."""

from dataclasses import dataclass

from ..cli import UserError


@dataclass(frozen=True)
class ServingLimits:
    """What one request, and all together, may take.

    Args:
        max_upload: bytes of the sound, picture or clip of a query.
        timeout: seconds in which the body of a request must arrive, and in which a search must be done.
        max_searches: searches at work at once, each in a thread.
        max_waiting: searches that wait for one of these threads; the next one is turned away.
        max_connections: open at once.
    """

    max_upload: int = 64 * 2**20
    timeout: float = 30.0
    max_searches: int = 2
    max_waiting: int = 64
    max_connections: int = 256

    def __post_init__(self):
        for name, least in (("max_upload", 1), ("max_searches", 1), ("max_waiting", 0), ("max_connections", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)} must be at least {least}.")
        if not self.timeout > 0:
            raise UserError(f"--timeout {self.timeout:g} must be more than 0.")
