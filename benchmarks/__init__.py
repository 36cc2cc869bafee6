"""Evidence that is too heavy for the tests."""

import elegan  # noqa: F401  before torch, whose threads it tells to sleep sooner
