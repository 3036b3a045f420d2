from tests.evidence.people import people  # noqa: F401
