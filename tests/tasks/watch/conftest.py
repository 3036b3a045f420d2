from tests.ledger.stores import where  # noqa: F401
