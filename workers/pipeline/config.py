"""A pipeline as a user asks for it: a versioned, typed, JSON-able request that decides the whole output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    StringConstraints,
    model_validator,
)

from ...history.canonical import DEPTH_LIMIT, digest, kind, plain_json
from ...history.job import SUMMARY_LENGTH
from ...history.redaction import redact_text
from .file_names import checked_pattern

#: The version that this Jobledger writes, and the newest one that it understands.
SCHEMA_VERSION = 1

_SUMMARY_PROMPT = 60


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {kind(value)}")
    return value


def _sub_directory(value: str) -> str:
    parts = PurePosixPath(value).parts
    if not parts or value.startswith(("/", "~")) or ".." in parts or PureWindowsPath(value).drive or "\\" in value:
        raise ValueError("must be a plain relative directory such as 'holiday' or 'holiday/rome', without '..'")
    if not value.isprintable():
        raise ValueError("must hold printable characters only")
    return value


#: A number that stays what it was: 7 is not turned into 7.0.
Number = Annotated[int | float, PlainValidator(_number)]
Text = Annotated[str, StringConstraints(min_length=1)]
PictureFormat = Literal["png", "jpeg", "webp"]

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class StageConfig(BaseModel):
    """One step of a pipeline: the name of a stage, and the settings that this stage defines."""

    model_config = _STRICT

    name: Text
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class InputConfig(BaseModel):
    """Where a pipeline's pictures come from."""

    model_config = _STRICT

    #: Files and folders, absolute or relative to the directories of the worker's setting ``input_dirs``.
    paths: list[Text] = Field(default_factory=list)


class OutputConfig(BaseModel):
    """Where a pipeline's files go, and how they are named; the job's own directory is made inside."""

    model_config = _STRICT

    #: A directory below the worker's output directory, for instance the name of a collection.
    directory: Annotated[str, AfterValidator(_sub_directory)] | None = None
    #: The name of a file without its ending; see ``file_names.PLACEHOLDERS``.
    pattern: Annotated[str, AfterValidator(checked_pattern)] = "{name}"
    format: PictureFormat = "png"


class PipelineConfig(BaseModel):
    """A request for pictures, in schema version 1.

    Unknown keys are kept and come back unchanged. A key that is missing, one that is null and one that is "" stay
    three different things: ``as_json`` writes only what was given. Tuples become lists, and paths become text.

    The constructor checks the types; ``validate_pipeline`` also checks the stages and refuses secrets.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    prompt: str | None = None
    negative_prompt: str | None = None
    #: The names of the model and its decoder, as the image server knows them.
    model: str | None = None
    vae: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    #: -1 draws one when the job runs, and again for its retry; the result says which.
    seed: int | None = Field(default=None, ge=-1, lt=2**63)
    subseed: int | None = Field(default=None, ge=-1, lt=2**63)
    clip_skip: int | None = Field(default=None, ge=0, le=64)
    #: In pixels.
    width: int | None = Field(default=None, ge=1, le=16_384)
    height: int | None = Field(default=None, ge=1, le=16_384)
    steps: int | None = Field(default=None, ge=1, le=10_000)
    cfg_scale: Number | None = None
    #: How many pictures one run of the model makes.
    batch: int | None = Field(default=None, ge=1, le=10_000)
    stages: list[StageConfig] = Field(min_length=1, max_length=100)
    loras: list[JsonValue] | None = None
    embeddings: list[JsonValue] | None = None
    styles: list[JsonValue] | None = None
    variants: list[JsonValue] | None = None
    pack_name: str | None = None
    preset_name: str | None = None
    input: InputConfig | None = None
    output: OutputConfig | None = None
    metadata: dict[str, JsonValue] | None = None

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, raw: object) -> object:
        return plain_json(without_models(raw)) if isinstance(raw, Mapping) else raw

    def as_json(self) -> dict[str, Any]:
        """Return the request as JSON's own types: what was given, and nothing else."""
        return self.model_dump(mode="json", exclude_unset=True)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the canonical JSON: equal for a job and its unchanged retry."""
        return digest(self.as_json())

    def summary(self) -> str:
        """Return a line for people, redacted: the pack or prompt, the model, and the names of the stages."""
        prompt = " ".join(redact_text(self.prompt or "").split())
        title = self.pack_name or self.preset_name or _cut(prompt, _SUMMARY_PROMPT)
        stages = " > ".join(stage.name for stage in self.stages)
        pictures = f"{len(self.input.paths)} paths" if self.input and len(self.input.paths) > 1 else ""
        single = self.input.paths[0] if self.input and len(self.input.paths) == 1 else ""
        parts = (title, self.model, PurePosixPath(single).name, pictures, stages)
        return _cut(redact_text(", ".join(part for part in parts if part)), SUMMARY_LENGTH)


def without_models(value: object, depth: int = 0) -> object:
    """Return ``value`` with every model inside it written as plain fields, without those that were not set."""
    if depth > DEPTH_LIMIT:
        return value
    match value:
        case BaseModel():
            return value.model_dump(exclude_unset=True)
        case Mapping():
            return {key: without_models(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [without_models(item, depth + 1) for item in value]
    return value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
