"""Counts in words: "1 actor", "2 actors"."""


def counted(count: int, noun: str) -> str:
    """The count and its noun, in the plural unless the count is 1."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
