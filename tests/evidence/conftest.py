from tests.evidence.bundles import made  # noqa: F401
