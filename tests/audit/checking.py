"""A project with two promotions, and what a check of everything says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.audit import AuditReport, check_all
from recompress.records import ApprovalRule
from tests.evidence.stories import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.promote(1)
    project.promote(2, ApprovalRule(required=True))
    return project


def check(project: Project) -> AuditReport:
    """The report, after which the ledger is as it was."""
    before = project.ledger.head()
    report = check_all(project.ledger, project.registry)
    assert project.ledger.head() == before
    return report


def broken(project: Project) -> list[str]:
    return [f"{trouble.where}: {trouble.detail}" for trouble in check(project).broken]
