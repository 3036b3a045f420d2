from tests.tasks.data.projects import project  # noqa: F401
