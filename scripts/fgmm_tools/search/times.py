"""Times as people and editing programs write them."""


def format_time(seconds: float) -> str:
    """Seconds as 1:02:03.4 or 2:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{rest // 10:02d}.{rest % 10}"


def to_timecode(seconds: float, rate: int) -> str:
    """Seconds as HH:MM:SS:FF, without dropped frames, at a whole number of frames a second."""
    frames = round(seconds * rate)
    return (
        f"{frames // (3600 * rate):02d}:{frames // (60 * rate) % 60:02d}:{frames // rate % 60:02d}:{frames % rate:02d}"
    )
