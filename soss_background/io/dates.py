"""Dates in headers, tables and options."""

from datetime import UTC, datetime

__all__ = ["parse_date"]


def parse_date(text):
    """Parse an ISO 8601 date; return it in UTC, without a time zone."""
    date = datetime.fromisoformat(text)
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date
