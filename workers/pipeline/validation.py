"""The gate for pipelines: what passes here can be queued, kept, and run again with the same outcome."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InvalidJob
from ...history.canonical import NotJson, child_path, kind, plain_json
from ...history.redaction import find_secret
from .config import SCHEMA_VERSION, OutputConfig, PipelineConfig, StageConfig, without_models
from .model_errors import checked, shown_value
from .registry import StageRegistry, installed_stages

_WHOLE = "pipeline"

_PICTURE_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK", "PHN2Zy")
_SHORTEST_PICTURE = 64
_SHORTEST_BINARY = 1_024
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")


def validate_pipeline(raw: object, stages: StageRegistry | None = None) -> PipelineConfig:
    """Return the resolved pipeline: checked, with the defaults of its stages and its output written into it.

    What it returns passes again unchanged, so that a retry queues the same request.

    Args:
        raw: A ``PipelineConfig`` or the object that a JSON file holds.
        stages: The stages that may be used; by default those of the installed packages.

    Raises:
        InvalidJob: one sentence that names the field, for instance ``stages[1].settings.width``.
    """
    fields = _plain_fields(raw)
    _refuse_secrets(fields)
    _refuse_inline_pictures(fields)
    _check_version(fields)
    config = checked(PipelineConfig, fields, "")
    known = stages or installed_stages()
    resolved = [_resolved_stage(stage, index, known) for index, stage in enumerate(config.stages)]
    output = checked(OutputConfig, config.output or {}, "output").model_dump(mode="json")
    return checked(
        PipelineConfig,
        {**config.as_json(), "schema_version": SCHEMA_VERSION, "stages": resolved, "output": output},
        "",
    )


def _plain_fields(raw: object) -> dict[str, Any]:
    fields = raw.as_json() if isinstance(raw, PipelineConfig) else without_models(raw)
    if not isinstance(fields, Mapping):
        raise InvalidJob(_WHOLE, f"must be an object with fields such as 'stages', not {kind(raw)}.")
    try:
        plain: dict[str, Any] = plain_json(dict(fields))
    except NotJson as error:
        raise InvalidJob(error.path or _WHOLE, error.problem + ".") from None
    return plain


def _refuse_secrets(fields: dict[str, Any]) -> None:
    place = find_secret(fields)
    if place is not None:
        raise InvalidJob(
            place or _WHOLE,
            "looks like a secret (a password, token, key or signed URL). Take it out: a pipeline is kept and shown; "
            "secrets belong in the worker's settings or environment.",
        )


def _refuse_inline_pictures(fields: dict[str, Any]) -> None:
    for place, text in _texts(fields, ""):
        if _is_inline_picture(text):
            raise InvalidJob(place, "holds a picture as text; save it to a file and pass the file's path.")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield path, value
        case list():
            for index, item in enumerate(value):
                yield from _texts(item, child_path(path, index))
        case dict():
            for key, item in value.items():
                yield from _texts(item, child_path(path, key))


def _is_inline_picture(text: str) -> bool:
    beginning = text[:_SHORTEST_PICTURE].lstrip()
    if re.match(r"data:[\w/+.\-]*;base64,", beginning, re.IGNORECASE):
        return True
    if len(text) < _SHORTEST_PICTURE or not _BASE64.fullmatch(text):
        return False
    if beginning.startswith(_PICTURE_BEGINNINGS) and " " not in beginning:
        return True
    return len(text) >= _SHORTEST_BINARY and " " not in text and _decodes(text)


def _decodes(text: str) -> bool:
    compact = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error:
        return False
    return True


def _check_version(fields: dict[str, Any]) -> None:
    version = fields.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidJob(
            "schema_version",
            f"is {version}, from a newer Jobledger; this one understands {SCHEMA_VERSION}. Upgrade this one.",
        )
    if version is True or version != SCHEMA_VERSION:
        raise InvalidJob("schema_version", f"must be {SCHEMA_VERSION}, not {shown_value(version)}.")


def _resolved_stage(stage: StageConfig, index: int, known: StageRegistry) -> dict[str, Any]:
    place = child_path("stages", index)
    if stage.name not in known:
        raise InvalidJob(
            f"{place}.name",
            f"there is no stage {shown_value(stage.name)}; known ones: {', '.join(known.names) or 'none'}.",
        )
    settings = checked(known.create(stage.name).Settings, stage.settings, f"{place}.settings")
    return {"name": stage.name, "settings": settings.model_dump(mode="json")}
