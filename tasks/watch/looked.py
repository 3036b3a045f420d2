"""What one look at one recipe came to: what was seen, what was run, what waits; as an exit code, as JSON and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from recompress.watch.decide import Decision, Due
from recompress.watch.sources import Sight
from tasks.watch.carry_out import Carried

NOT_VISIBLE = 7
"""The exit code of a look that could not see a source."""
WORST_FIRST = (1, 5, 3, 2, 4, NOT_VISIBLE, 6, 0)


@dataclass(frozen=True)
class Pending:
    """A change whose run failed or was refused, and that is not run now."""

    key: str
    exit_code: int
    text: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Looked:
    """What one look at one recipe came to."""

    recipe: str
    sights: list[Sight]
    decision: Decision
    runs: list[Carried] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Runs that another watcher is making."""
    pending: list[Pending] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        ends = [run.exit_code for run in self.runs] + [pending.exit_code for pending in self.pending]
        codes = {code if code in WORST_FIRST else 1 for code in ends}
        codes |= ({NOT_VISIBLE} if self.decision.away else set()) | ({6} if self.decision.waits else set())
        return next((code for code in WORST_FIRST if code in codes), 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "exit_code": self.exit_code,
            "sources": [sight.as_json() for sight in self.sights],
            "settling": [{"source": sight.source.name, "until": until.isoformat()} for sight, until in self.decision.settling],
            "runs": [run.as_json() for run in self.runs],
            "elsewhere": self.elsewhere,
            "pending": [pending.as_json() for pending in self.pending],
        }

    def text(self) -> str:
        lines = [f"{sight.source.name} ({sight.source.place}) is not visible: {sight.away}; the champion stays" for sight in self.decision.away]
        lines += [f"{sight.source.name} ({sight.source.place}) waits for a person: {sight.waits}" for sight in self.decision.waits]
        lines += [f"{sight.source.name} ({sight.source.place}) moved and rests until {until:%Y-%m-%d %H:%M:%S} UTC" for sight, until in self.decision.settling]
        lines += [run.text for run in self.runs] + [f"run {key[:12]}… waits: another watcher makes it, or somebody runs this recipe" for key in self.elsewhere]
        lines += [pending.text for pending in self.pending]
        return "\n".join(f"{self.recipe}: {line}" for line in lines or ["looked, nothing new"])


def named(due: Due) -> str:
    """Why a run is due, in words."""
    return "; ".join(due.why) if due.moved else "the project as it stands"


def resting(due: Due, end: dict[str, Any], rest: float) -> Pending:
    """A change whose run failed, and that rests for so many seconds."""
    code = end.get("exit_code")
    again = f"it is tried again in {rest:.0f} s, or as soon as a setting, the data or a decision is another"
    return Pending(due.key, code if isinstance(code, int) else 1, f"{named(due)} waits: {end['outcome']}: {end.get('summary') or 'no reason given'}; {again}")
