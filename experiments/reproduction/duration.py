"""Seconds in words."""


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 days 5 h`; rounded to the smaller unit."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h"
