"""The answers in these tests match the OpenAPI document."""

from tests.answers import described

__all__ = ["described"]
