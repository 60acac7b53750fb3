"""How numbers are written in tables and pages; a missing one is a dash."""

MISSING = "\N{EN DASH}"


def fixed(value: float | None, digits: int) -> str:
    """Return a number with so many digits after the point."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with three significant digits, but with no digit of its integer part lost."""
    if value is None:
        return MISSING
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}"


def count(value: float | None) -> str:
    """Return a number without a fraction, its thousands marked."""
    return MISSING if value is None else f"{value:,.0f}"
