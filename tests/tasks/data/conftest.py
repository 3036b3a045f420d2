from tests.tasks.data.projects import pinned, project  # noqa: F401
