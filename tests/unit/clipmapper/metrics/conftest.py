"""Environment of the metric tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def german_machine() -> Iterator[None]:
    """Run all programs under a locale with a decimal comma.

    ``JAVA_TOOL_OPTIONS`` works for Java even where the German locale is not installed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "de_DE.UTF-8")
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Duser.language.format=de")
        yield
