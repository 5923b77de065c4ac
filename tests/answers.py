"""Validates every answer in these tests against the OpenAPI document, if jsonschema is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette


@pytest.fixture(autouse=True, scope="module")
def described() -> Any:
    if find_spec("jsonschema") is None:
        yield
        return
    from starlette import testclient

    from tests.described import check_answer

    transport = testclient._TestClientTransport
    handle = transport.handle_request

    def handle_and_check(self: Any, request: httpx.Request) -> httpx.Response:
        answer = handle(self, request)
        if isinstance(self.app, Starlette) and hasattr(self.app.state, "context"):
            answer.request = request
            answer.read()
            check_answer(answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "handle_request", handle_and_check)
        yield
