from tests.audit.checking import project  # noqa: F401
