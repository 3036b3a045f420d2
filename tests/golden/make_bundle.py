"""How ``bundle-1`` and ``bundle-2`` were made, the second when test result and verification summary came. Not run by any test: what it made once must verify for
ever, and is never made again.

python -m tests.golden.make_bundle FOLDER NAME
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from recompress.errors import ApprovalPending
from recompress.evidence import write_bundle
from recompress.evidence.model_signature import model_key
from recompress.integrity.signing import public_pem
from recompress.promotion import approve
from tests.evidence.bundles import BOB, SIGNED
from tests.evidence.stories import KEY, Project


def make(target: Path, name: str, work: Path) -> None:
    """Two promotions and a rollback, every one of them approved with a signature."""
    seconds = count(1_789_997_601)
    project = Project(work, lambda: datetime.fromtimestamp(next(seconds), UTC))
    project.promote(1, SIGNED, key=BOB)
    project.promote(2, SIGNED, key=BOB)
    with suppress(ApprovalPending):
        project.promoter.rollback("ner", reason="slow on phones", rule=SIGNED)
    opened = project.ledger.last("rollback")
    assert opened is not None
    plan = opened.body["plan"]
    approve(project.ledger, plan, actor="bob", key=BOB)
    project.promoter.promote(plan)
    bundle = write_bundle(target / name, project.story(plan), project.version("1"), KEY, model_key(work / "keys"))
    shutil.copytree(project.version("1"), bundle / "model")
    (target / f"{name}.pub.pem").write_text(public_pem(KEY))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(Path(sys.argv[1]), sys.argv[2], Path(folder))
