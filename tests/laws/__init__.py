"""What the helper promises, as tests that run against the fake and against the real one."""

import pytest

pytest.register_assert_rewrite("tests.laws.images", "tests.laws.instances")
