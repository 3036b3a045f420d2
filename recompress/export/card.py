"""The card of an exported folder, for people: what it is, where it came from, how it is used, and whose licence holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recompress.export.answers import Agreement
from recompress.export.format import Format
from recompress.export.lines import lines_of
from recompress.export.onnx_folder import QUANTIZED, graph_name
from recompress.models.checkpoint import Info
from recompress.models.heads import head_of


def card(
    shape: Format, info: Info, agreement: Agreement, facts: Mapping[str, str], *, side: str = "right", segments: bool = False, notes: Sequence[str] = ()
) -> str:
    """Markdown with the head that hubs read. ``side``: where a long text is cut; ``segments``: whether the model is told which of two texts a token belongs to;
    ``notes``: what is stored otherwise than in the model that was judged."""
    head, file = head_of(info.benchmark), graph_name(info)
    usage = shape.usage.format(
        task=head.pipeline,
        file=file,
        dtype="q8" if file == QUANTIZED else "fp32",
        auto_class=head.auto_class,
        lines=lines_of(info, shape.ask, side=side, segments=segments),
    )
    rows = {
        "made for": info.benchmark,
        "labels": "" if head.outputs else ", ".join(info.labels),
        "answers": ", ".join(f"{name} {value}" for name, value in info.answering.items() if not isinstance(value, list | dict)),
        "longest sequence": f"{info.max_length} tokens",
        "steps": " ".join(info.steps) or "none",
        **facts,
    }
    lines = [
        "---",
        f"pipeline_tag: {head.pipeline}",
        "tags: [recompress]",
        *([f"base_model: {facts['base model']}"] if facts.get("base model", "").count("/") == 1 else []),
    ]
    lines += ["---", "", f"# {facts.get('model', 'Exported model')}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value]
    answers = f"{agreement.texts} texts and random tokens were asked of these files and of the model that was judged: every decision is the same, and no logit differs by "
    lines += ["", "## Answers", "", f"{answers}more than {agreement.largest_change:.2g} of the largest.", ""]
    lines += ["## Files", "", *(f"- {note}" for note in notes), ""] if notes else []
    lines += ["## Use", "", usage]
    lines += [
        "## Licences",
        "",
        "The weights follow from the base model and the data named above, and the licences of both hold for them. This folder grants none of its own.",
        "",
    ]
    return "\n".join(lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
