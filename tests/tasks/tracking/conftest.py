from tests.tasks.tracking.promoting import candidates  # noqa: F401
