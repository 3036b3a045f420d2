from tests.evidence.bundles import bundled  # noqa: F401
