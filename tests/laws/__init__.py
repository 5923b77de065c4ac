"""The laws of the helper, as tests that run against the fake and the real one."""

import pytest

pytest.register_assert_rewrite("tests.laws.images", "tests.laws.instances")
