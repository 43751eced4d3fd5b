"""What every test relies on."""
import os
import sys

import pytest
from hypothesis import settings

# The same examples in every run, so that what passed here passes in CI; HYPOTHESIS_SEARCH=1 looks for new ones.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("HYPOTHESIS_SEARCH"):
    settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _registries_as_before():
    """What a test registers is gone after it: tests share processes, and which ones differs from run to run."""
    registry = getattr(sys.modules.get("nnlearn.core"), "Registry", None)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("nnlearn.")] if registry else []
    found = {id(value): value for module in modules for value in list(vars(module).values()) if isinstance(value, registry)}
    before = [(entry, dict(entry.data)) for entry in found.values()]
    yield
    for entry, data in before:
        entry.data.clear()
        entry.data.update(data)
