"""Numbers with the name of what they count, for people to read."""


def quantity(number: int, one: str, several: str = "") -> str:
    """`1 row`, `1,200 rows`.

    Args:
        number: how many.
        one: what one of them is called.
        several: what several are called, where that isn't `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
