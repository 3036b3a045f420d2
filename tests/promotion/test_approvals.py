from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.errors import ApprovalPending, GateRefused, InputError, IntegrityError, RecompressError, StorageError
from recompress.integrity.signing import public_pem
from recompress.ledger import Ledger
from recompress.promotion import Progress, Promoter, approve, present_champion, progress_of, propose, reject, waiting
from recompress.promotion.approvals import check_reason
from recompress.records import ApprovalRule
from tests.promotion.conftest import Clock
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory

BOB, EVE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ASKED = ApprovalRule(required=True, expires_after_hours=24, not_the_author=True)
SIGNED = ASKED.model_copy(update={"signed": True, "signers": {"bob": public_pem(BOB)}})
Propose = Callable[..., Progress]


@pytest.fixture
def proposed(promoter: Promoter, tmp_path: Path) -> Propose:
    def new(rule: ApprovalRule = ASKED, seed: int = 1) -> Progress:
        plan, verdict = make_plan(model_directory(tmp_path / f"model {seed}", seed), present_champion(promoter.registry, MODEL), rule=rule)
        return promoter.propose(plan, verdict)

    return new


def carry_out(promoter: Promoter, tmp_path: Path, progress: Progress, seed: int = 1) -> str:
    return promoter.promote(progress.digest, tmp_path / f"model {seed}").version


def test_a_plan_waits_until_somebody_else_approves_it(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    for _ in range(2):
        with pytest.raises(ApprovalPending, match=f"recompress approve {progress.digest}") as pending:
            carry_out(promoter, tmp_path, progress)
        assert pending.value.exit_code == 6
        assert proposed().digest == progress.digest
    assert [p.digest for p in waiting(ledger)] == [progress.digest]
    entry = approve(ledger, progress.digest, actor="bob")
    assert (entry.actor, entry.body["expires"]) == ("bob", "2026-11-21T12:00:00.000000Z")
    assert waiting(ledger) == []
    assert carry_out(promoter, tmp_path, progress) == "1"
    assert progress_of(ledger, progress.digest).said("promotion-intent")["approval"] == entry.hash


def test_a_plan_that_has_waited_too_long_is_shown_to_nobody(ledger: Ledger, clock: Clock, proposed: Propose) -> None:
    """Nothing was written yet of its expiry: nobody has tried."""
    progress = proposed()
    clock.wait(23.9)
    assert [p.digest for p in waiting(ledger)] == [progress.digest]
    clock.wait(0.1)
    assert waiting(ledger) == []
    assert progress_of(ledger, progress.digest).state == "judged"


@pytest.mark.parametrize("author", ["ada", " Ada", "ADA", "\uff41da"])
def test_the_author_may_not_approve_under_any_spelling(ledger: Ledger, proposed: Propose, author: str) -> None:
    with pytest.raises(GateRefused, match="asks for the approval of somebody else"):
        approve(ledger, proposed().digest, actor=author)


def test_whoever_has_a_key_that_is_known_signs_also_where_others_need_not(ledger: Ledger, proposed: Propose) -> None:
    """Otherwise anybody could approve in bob's name where bob's key is known."""
    progress = proposed(ASKED.model_copy(update={"signers": {"bob": public_pem(BOB)}}))
    with pytest.raises(GateRefused, match="an approval by bob must be signed; give the private key"):
        approve(ledger, progress.digest, actor="bob")
    with pytest.raises(IntegrityError, match="which is not bob's"):
        approve(ledger, progress.digest, actor="bob", key=EVE)
    assert approve(ledger, progress.digest, actor="bob", key=BOB).actor == "bob"
    assert approve(ledger, proposed(ASKED.model_copy(update={"signers": {"bob": public_pem(BOB)}}), seed=2).digest, actor="eve").actor == "eve"


def test_the_author_may_approve_where_the_rule_allows_it(ledger: Ledger, proposed: Propose) -> None:
    progress = proposed(ASKED.model_copy(update={"not_the_author": False}))
    assert approve(ledger, progress.digest, actor="ada").actor == "ada"


@pytest.mark.parametrize("place", [0, 31, 63])
def test_a_digest_that_differs_by_one_character_approves_nothing(ledger: Ledger, proposed: Propose, place: int) -> None:
    digest = proposed().digest
    wrong = digest[:place] + ("0" if digest[place] != "0" else "1") + digest[place + 1 :]
    before = ledger.head()
    for act in (lambda d: approve(ledger, d, actor="bob"), lambda d: reject(ledger, d, actor="bob", reason="x")):
        with pytest.raises(InputError, match=f"no plan has the digest '{wrong}'; is {digest} meant"):
            act(wrong)
        for other in (digest[:12], digest + "0", digest.upper(), f" {digest}", "%", "", "0" * 64):
            with pytest.raises(InputError, match="no plan has the digest"):
                act(other)
    assert ledger.head() == before


def test_an_approval_is_used_once(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    first = proposed()
    approve(ledger, first.digest, actor="bob")
    with pytest.raises(GateRefused, match="was approved by bob already"):
        approve(ledger, first.digest, actor="carol")
    carry_out(promoter, tmp_path, first)
    with pytest.raises(GateRefused, match="is committed .* nothing is left to decide"):
        approve(ledger, first.digest, actor="bob")
    second = proposed(seed=2)
    carry_out_again = carry_out(promoter, tmp_path, first)
    assert carry_out_again == "1"
    with pytest.raises(ApprovalPending):
        carry_out(promoter, tmp_path, second, 2)


def test_an_approval_expires(promoter: Promoter, ledger: Ledger, clock: Clock, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    clock.wait(23.9)
    approve(ledger, progress.digest, actor="bob")
    clock.wait(23.9)
    clock.wait(0.2)
    with pytest.raises(GateRefused, match=r"by bob expired at 2026-11-22T11:54:00\.000000Z"):
        carry_out(promoter, tmp_path, progress)
    assert progress_of(ledger, progress.digest).state == "expired"
    assert promoter.registry.champion(MODEL) is None
    again = proposed()
    assert (again.plan.attempt, again.state) == (2, "judged")
    with pytest.raises(ApprovalPending):
        carry_out(promoter, tmp_path, again)
    with pytest.raises(GateRefused, match="is expired"):
        approve(ledger, progress.digest, actor="bob")


def test_an_approval_holds_until_the_moment_at_which_it_expires_and_no_longer(promoter, ledger, clock, tmp_path, proposed) -> None:  # type: ignore[no-untyped-def]
    progress = proposed()
    approve(ledger, progress.digest, actor="bob")
    clock.wait(24)
    with pytest.raises(GateRefused, match="by bob expired"):
        carry_out(promoter, tmp_path, progress)


def test_a_plan_does_not_wait_for_ever(promoter: Promoter, ledger: Ledger, clock: Clock, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    clock.wait(24)
    with pytest.raises(GateRefused, match="has waited since"):
        approve(ledger, progress.digest, actor="bob")
    assert progress_of(ledger, progress.digest).state == "expired"
    with pytest.raises(GateRefused, match="is expired"):
        carry_out(promoter, tmp_path, progress)


def test_an_approval_from_the_future_lets_nothing_go_on(promoter: Promoter, ledger: Ledger, clock: Clock, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    clock.wait(5)
    approve(ledger, progress.digest, actor="bob")
    clock.wait(-5)
    with pytest.raises(GateRefused, match="still to come; set the clocks right"):
        carry_out(promoter, tmp_path, progress)
    assert progress_of(ledger, progress.digest).state == "approved"


def test_a_rejection_is_the_end(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    with pytest.raises(InputError, match="needs a reason"):
        reject(ledger, progress.digest, actor="bob", reason="  ")
    approve(ledger, progress.digest, actor="bob")
    reject(ledger, progress.digest, actor="carol", reason="not before Monday")
    for act in (lambda: carry_out(promoter, tmp_path, progress), lambda: approve(ledger, progress.digest, actor="dan")):
        with pytest.raises(GateRefused, match=r"is rejected by carol at .*: not before Monday"):
            act()
    assert proposed().digest == progress.digest
    assert proposed().state == "rejected"
    again = propose(ledger, progress.plan, again=True)
    assert again.plan.attempt == 2
    assert promoter.registry.champion(MODEL) is None


@pytest.mark.parametrize("reason", ["slow\x1b[2J", "slow \u202etsaf", "slow\x00"])
def test_a_reason_steers_no_terminal(reason: str) -> None:
    with pytest.raises(InputError, match="steers how a terminal shows it"):
        check_reason(reason, "a reason is needed")
    assert check_reason(" misses Yorùbá\nand Hausa ", "a reason is needed") == "misses Yorùbá\nand Hausa"


def test_a_signed_approval(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed(SIGNED)
    for actor, key, error, message in [
        ("bob", None, GateRefused, "an approval by bob must be signed"),
        ("bob", EVE, IntegrityError, r"signed with the key .* which is not bob's"),
        ("eve", EVE, GateRefused, "eve may not approve .* signatures of bob are known"),
        ("eve", None, GateRefused, "eve may not approve"),
    ]:
        with pytest.raises(error, match=message):
            approve(ledger, progress.digest, actor=actor, key=key)
    assert progress_of(ledger, progress.digest).state == "judged"
    approve(ledger, progress.digest, actor="bob", key=BOB)
    assert carry_out(promoter, tmp_path, progress) == "1"


def test_a_rule_that_asks_for_signatures_must_know_a_key(proposed: Propose) -> None:
    with pytest.raises(InputError, match="no approver's public key is known"):
        proposed(SIGNED.model_copy(update={"signers": {}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signature": "AAAA"}, "does not come from the key"),
        ({"expires": "2036-01-01T00:00:00.000000Z"}, "does not come from the key"),
        ({"approver": "ada"}, "names 'ada' as approver"),
        ({"key": public_pem(EVE)}, "which is not bob's"),
        ({"key": "no key"}, "a key for the approval of bob that is none: not a public key in PEM: 'no key'"),
        ({"signature": None}, "must be signed"),
    ],
)
def test_an_approval_that_was_written_by_hand_is_checked_where_it_is_used(promoter, ledger, tmp_path, proposed, change, message) -> None:  # type: ignore[no-untyped-def]
    """Whoever can append to the ledger can write an approval; without the approver's key it lets nothing go on."""
    template = proposed(SIGNED, seed=2)
    body = {**approve(ledger, template.digest, actor="bob", key=BOB).body}
    progress = proposed(SIGNED)
    forged = {key: value for key, value in (body | {"plan": progress.digest} | change).items() if value is not None}
    ledger.append("approval", forged, actor="bob")
    with pytest.raises(RecompressError, match=message) as refusal:
        carry_out(promoter, tmp_path, progress)
    assert isinstance(refusal.value, IntegrityError) or message == "must be signed"
    assert promoter.registry.champion(MODEL) is None


def test_a_signature_for_one_plan_does_not_hold_for_another(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    body = approve(ledger, proposed(SIGNED, seed=2).digest, actor="bob", key=BOB).body
    progress = proposed(SIGNED)
    ledger.append("approval", body | {"plan": progress.digest}, actor="bob")
    with pytest.raises(IntegrityError, match="does not come from the key"):
        carry_out(promoter, tmp_path, progress)


def test_deciding_what_needs_no_decision(promoter: Promoter, ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed(ApprovalRule())
    with pytest.raises(InputError, match="asks for no approval"):
        approve(ledger, progress.digest, actor="bob")
    unjudged = propose(ledger, make_plan(model_directory(tmp_path / "other", 7), None, rule=ASKED)[0])
    with pytest.raises(GateRefused, match="is proposed, so nobody can approve it yet"):
        approve(ledger, unjudged.digest, actor="bob")


def test_a_ledger_that_is_held_takes_no_approval(ledger: Ledger, tmp_path: Path, proposed: Propose) -> None:
    progress = proposed()
    impatient = Ledger(tmp_path / "ledger.db", timeout=0.2, clock=ledger.clock)
    with ledger.transaction(), pytest.raises(StorageError, match="another process is writing"):
        approve(impatient, progress.digest, actor="bob")
    assert progress_of(ledger, progress.digest).state == "judged"


def test_a_rollback_can_ask_for_an_approval_too(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path, proposed: Propose) -> None:
    for seed in (1, 2):
        carry_out(promoter, tmp_path, proposed(ApprovalRule(), seed), seed)
    for _ in range(2):
        with pytest.raises(ApprovalPending, match="version 1 waits for an approval"):
            promoter.rollback(MODEL, reason="slow", rule=ASKED)
    [progress] = waiting(ledger)
    approve(ledger, progress.digest, actor="bob")
    assert promoter.rollback(MODEL, reason="slow", rule=ASKED).version == registry.champion(MODEL) == "1"
