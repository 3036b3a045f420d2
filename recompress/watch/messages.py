"""What people are to be told, read from the ledger: each event once, in a message that says what changed, the verdict in a line, and where the page is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from recompress.ledger import Entry
from recompress.promotion.states import OPENERS, plan_in
from recompress.records import PromotionPlan
from recompress.watch.history import AWAY, ENDED, RUN, WAITS
from recompress.watch.silence import silences

REFUSED = ("refused", "data refused", "input refused", "integrity")


@dataclass(frozen=True)
class Message:
    """One message. ``about`` and ``event`` together are told once to everybody."""

    about: str
    """The hash of the record that it is about."""
    event: str
    title: str
    body: str


def messages(entries: Sequence[Entry], after: int, now: datetime, budget: float) -> list[Message]:
    """Every message that the records behind number ``after`` call for, in order. ``budget`` is the share of a loss budget from which people want to know."""
    story = _Story(entries)
    told = [message for entry in entries if entry.sequence > after for message in story.of(entry, budget)]
    silent = [gap for gap in silences(entries, now) if gap.record.sequence > after]
    return told + [Message(gap.record.hash, "watch silent", f"{gap.recipe}: the watch was silent", f"{gap.text}; see whether its timer runs") for gap in silent]


class _Story:
    """The ledger's records, with what belongs together."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.plans: dict[str, PromotionPlan] = {entry.body["plan"]: plan_in(entry) for entry in entries if entry.kind in OPENERS}
        self.judged = {entry.body["plan"]: entry.body for entry in entries if entry.kind == "promotion-judged"}
        self.budgets = {e.body["policy_sha256"]: (e.body.get("policy") or {}).get("loss_budget") for e in entries if e.kind == "policy-recorded"}
        ended = {entry.body["key"] for entry in entries if entry.kind == ENDED}
        self.watched = {entry.body.get("plan") for entry in entries if entry.kind == ENDED}
        self.running = {entry.body["recipe"] for entry in entries if entry.kind == RUN and entry.body["key"] not in ended}

    def of(self, entry: Entry, budget: float) -> Iterator[Message]:
        """The messages about one record."""
        body = entry.body
        if entry.kind == "promotion-committed":
            yield from self._promoted(entry, budget)
        elif entry.kind == "promotion-refused":
            yield Message(entry.hash, "refused", f"{body['model']}: a promotion was refused", f"{body['detail']} ({body['reason']}).{self._page(body['plan'])}")
        elif entry.kind == "promotion-judged" and body["plan"] not in self.watched:
            yield from self._waits(entry)
        elif entry.kind == WAITS:
            yield _message(entry, "waiting for approval", f"{body['source']} waits for a person", f"{body['place']}: {body['why']}")
        elif entry.kind == AWAY:
            yield _message(entry, "source not visible", f"{body['source']} is not visible", f"{body['place']}: {body['why']}. The champion stays.")
        elif entry.kind == ENDED:
            yield from _ended(entry)

    def _promoted(self, entry: Entry, budget: float) -> Iterator[Message]:
        plan, judged = self.plans[entry.body["plan"]], self.judged.get(entry.body["plan"], {})
        what = f"version {entry.body['version']} of {plan.model} is champion: {plan.candidate}"
        instead = f"instead of version {plan.expected.version}" if plan.expected else "the first"
        verdict = f"{judged['metric']} {judged['score']:.4g}" if isinstance(judged.get("score"), int | float) else plan.reason or "no verdict"
        text = f"{what}, {instead}.\nVerdict: passed, {verdict}.\nBase: {plan.facts.get('base_model', '–')} {plan.facts.get('base_revision', '')}".rstrip()
        yield Message(entry.hash, "champion changed", f"{plan.model}: the champion changed", f"{text}.{self._page(plan.digest)}")
        spent, limit = judged.get("spent_loss_after"), self.budgets.get(plan.policy_sha256 or "")
        if isinstance(spent, int | float) and limit and spent >= budget * limit - 1e-12:  # 0.8 * 0.1 is a little more than 0.08
            rest = f"{spent:.4g} of the loss budget of {limit:.4g} is spent ({100 * spent / limit:.0f} %); when all of it is, every promotion is refused"
            yield Message(entry.hash, "budget nearly spent", f"{plan.model}: the loss budget is nearly spent", rest)

    def _waits(self, entry: Entry) -> Iterator[Message]:
        """A plan of a run that no watch made."""
        plan = self.plans[entry.body["plan"]]
        if plan.approval.required and plan.facts.get("recipe") not in self.running:
            text = f"{plan.candidate} for {plan.model} waits: recompress approve {plan.digest}.{self._page(plan.digest)}"
            yield Message(entry.hash, "waiting for approval", f"{plan.model}: a plan waits for an approval", text)

    def _page(self, plan: str) -> str:
        recipe = self.plans[plan].facts.get("recipe") if plan in self.plans else None
        return f"\nPage: reports/{recipe}.html" if recipe else ""


def _ended(entry: Entry) -> Iterator[Message]:
    """How a run of a watch ended, where its promotion does not say so itself."""
    body = entry.body
    outcome, page = body["outcome"], f"\nPage: {body['page']}" if body.get("page") else ""
    summary = str(body.get("summary") or "")
    if outcome in ("proposed", "waiting for approval"):
        place = f"\nBranch: {body['branch']}" if body.get("branch") else ""
        request = f"\nPull request: {body['pull_request']}" if body.get("pull_request") else ""
        yield _message(entry, "waiting for approval", outcome, f"{summary}\nPlan: {body.get('plan', '')}{place}{request}{page}")
    elif outcome in REFUSED:
        yield _message(entry, "refused", f"the run was refused ({outcome})", f"{summary}{page}")
    elif not body.get("final"):
        yield _message(entry, "run failed", "the run failed and will be tried again", f"{summary}{page}")


def _message(entry: Entry, event: str, what: str, text: str) -> Message:
    return Message(entry.hash, event, f"{entry.body['recipe']}: {what}", text)
