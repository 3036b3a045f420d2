"""Rules that no recipe can soften, on real DVC, Prefect and MLflow: what is pinned is held before work begins, and a weak baseline lets nothing pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.toy_project import ask, make_project, run


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_laxer_policy_is_refused_before_work_and_a_weak_baseline_by_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project = make_project(tmp_path / "project")
    recipe, policy = project / "recipe.yaml", project / "policies" / "toy.yaml"
    text, rules = recipe.read_text(), policy.read_text()
    text = text[: text.index("  small:\n")] + text[text.index("policy:") :]
    recipe.write_text(text)
    # a champion that anything may replace, so that what is refused is refused for its baseline alone
    rules = rules.replace("champion: {margin: 0.2}", "champion: {margin: 0.99}").replace("loss_budget: 0.4", "loss_budget: 0.99")
    policy.write_text(rules)
    first = run(project, "run", "recipe.yaml")
    assert first["promotion"]["version"] == "1"

    pin = ask(project, "policy", "pin", "toy", "policies/toy.yaml", "--reason", "what was agreed on")
    assert [row["pin"] for row in ask(project, "policy", "pinned")] == [pin["pin"]]
    assert [trouble for trouble in ask(project, "audit", "verify")["troubles"] if trouble["kind"] == "broken"] == []
    policy.write_text(rules.replace("baseline: {margin: 0.2}", "baseline: {margin: 0.25}"))
    refused = run(project, "run", "recipe.yaml", code=2)
    assert "baseline.margin is 0.25, pinned is 0.2 (at most as wide)" in refused["error"]
    policy.write_text(rules)

    # half of the test split, so that the accepted baseline has to answer anew, and a baseline that learns next to nothing
    text = text.replace("{name: toy,", "{name: toy, slices: [east],").replace("epochs: 3, learning_rate: 3.0e-3", "epochs: 1, learning_rate: 1.0e-7")
    recipe.write_text(text.replace("int8:\n    - dynamic_int8: {}", "sparse:\n    - magnitude: {sparsity: 0.1}"))
    weak = run(project, "run", "recipe.yaml", code=4)
    [verdict] = weak["verdicts"].values()
    reasons = [finding for finding in verdict["findings"] if finding["reason"] == "weak-baseline"]
    assert reasons, verdict["findings"]
    assert "accepted_baseline" in verdict["evaluations"]

    baseline = verdict["baseline_sha256"]
    word = ask(project, "policy", "accept-baseline", "recipe.yaml", baseline, "--reason", "to see what happens")
    again = run(project, "run", "recipe.yaml")
    [verdict] = again["verdicts"].values()
    assert "weak-baseline" not in [finding["reason"] for finding in verdict["findings"]]
    assert any(f"tester accepted it in ledger record {word['record']}" in finding["detail"] for finding in verdict["findings"])
    assert again["promotion"]["version"] == "2"
