"""Dates as headers, tables and users write them."""

from datetime import UTC, datetime

__all__ = ["parse_date"]


def parse_date(text):
    """
    Read a date of a header, a table or a user.

    Parameters
    ----------
    text : str
        Date or date and time, ISO 8601.

    Returns
    -------
    date : `datetime.datetime`
        Without a time zone, which is UTC.

    Raises
    ------
    ValueError
        If the text is no date.
    """
    date = datetime.fromisoformat(text)
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date
