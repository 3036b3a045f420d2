from tests.ledger.stores import where  # noqa: F401
from tests.tasks.watch.watching import project, repository  # noqa: F401
