from tests.tasks.projects import project  # noqa: F401
