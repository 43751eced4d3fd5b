"""What every test relies on."""
import os

from hypothesis import settings

# The same examples in every run, so that what passed here passes in CI; HYPOTHESIS_SEARCH=1 looks for new ones.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("HYPOTHESIS_SEARCH"):
    settings.load_profile("repeatable")
