"""How a data set of this project, or any file or folder, is understood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from recompress.data.infer.looking import look_at
from recompress.data.infer.understood import Understood, understand
from recompress.data.sources import SourceSettings, names, raw_files, read_settings_of
from recompress.errors import InputError
from recompress.settings.file import SettingsFile, as_plain, unknown


def explain(root: Path, what: str, dials: Sequence[str] = ()) -> Understood:
    """``what`` is a data set that ``params.yaml`` describes, and is read as it says there, or a path. ``dials`` are ``key=value``, for a path.

    Raises ``InputError`` and ``DataRefused`` as ``look_at`` does.
    """
    params = root / "params.yaml"
    known = names(SettingsFile(params)) if params.is_file() else []
    if what in known:
        if dials:
            raise InputError(f"the dials of {what!r} stand in {params}; --set is for files that no entry describes")
        settings = read_settings_of(root, what)
        folder = root / settings.source
        files = {path.relative_to(folder).as_posix(): path for path, _, _ in raw_files(folder, settings)}
        return understand(files, SettingsFile(params).values["datasets"][what], folder)
    if not Path(what).exists():
        raise InputError(unknown("data set or file", what, known, str(params) if known else "no data set is described here"))
    return look_at(Path(what), **as_dials(dials))


def as_dials(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` as dials of an entry. Raises ``InputError`` for a key that no entry has."""
    return dict(_dial(text) for text in texts)


def _dial(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set takes key=value, e.g. --set text=body, got {text!r}")
    field = SourceSettings.model_fields.get(key)
    if field is None:
        raise InputError(unknown("dial", key, SourceSettings.model_fields, "--set"))
    return key, value if _is_text(field.annotation) else as_plain(value)


def _is_text(annotation: Any) -> bool:
    """Whether a dial is text or one of some words, or nothing: then YAML must not read a number or a truth value in it."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return all(kind is str or get_origin(kind) is Literal for kind in kinds if kind is not NoneType)
