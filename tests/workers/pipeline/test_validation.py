"""What a pipeline may be, and the sentence that everything else gets."""

from __future__ import annotations

import base64
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.errors import InvalidJob
from jobledger.workers.pipeline import PipelineConfig, StageConfig, validate_pipeline
from jobledger.workers.pipeline.config import InputConfig
from pydantic import ValidationError

LOAD = {"name": "load"}
FULL = {
    "schema_version": 1,
    "prompt": "a lighthouse, (secret:1.2), \u00e9t\u00e9 \U0001f30a",
    "negative_prompt": "",
    "model": "dreamy-xl",
    "vae": None,
    "sampler": "Euler a",
    "scheduler": "karras",
    "seed": -1,
    "subseed": 12,
    "clip_skip": 2,
    "width": 1024,
    "height": 768,
    "steps": 30,
    "cfg_scale": 7,
    "batch": 4,
    "stages": [LOAD, {"name": "resize", "settings": {"width": 64}}, {"name": "save"}],
    "loras": [{"name": "keyword", "weight": 0.8}, "plain"],
    "embeddings": [],
    "styles": ["night"],
    "variants": [{"tokens": ["a", "b"]}],
    "pack_name": "heroes",
    "preset_name": None,
    "input": {"paths": ["a.png"]},
    "output": {"directory": "heroes/night"},
    "metadata": {"author": "Jo", "max_tokens": 77, "token_merging": 0.5, "key_frames": [1, 2], "tokenizer": "clip"},
    "randomizer": {"mode": "fan-out", "plan": [1, 2.5, None, ""]},
}


def refusal_of(raw: Any) -> InvalidJob:
    with pytest.raises(InvalidJob) as refusal:
        validate_pipeline(raw)
    return refusal.value


def test_a_full_pipeline_comes_back_as_it_was_given() -> None:
    plain = validate_pipeline(FULL).as_json()
    assert {key: plain[key] for key in FULL if key not in {"stages", "output"}} == {
        key: FULL[key] for key in FULL if key not in {"stages", "output"}
    }
    assert isinstance(plain["cfg_scale"], int)


def test_the_defaults_of_stages_and_output_are_resolved_at_submission() -> None:
    plain = validate_pipeline({"stages": [LOAD, {"name": "resize", "settings": {"width": 64}}]}).as_json()
    assert plain == {
        "schema_version": 1,
        "stages": [
            {"name": "load", "settings": {"paths": [], "recursive": False}},
            {
                "name": "resize",
                "settings": {"width": 64, "height": None, "mode": "fit", "position": "center", "enlarge": False},
            },
        ],
        "output": {"directory": None, "pattern": "{name}", "format": "png"},
    }


def test_a_resolved_pipeline_passes_again_unchanged() -> None:
    once = validate_pipeline(FULL)
    again = validate_pipeline(json.loads(json.dumps(once.as_json())))
    assert again.as_json() == once.as_json()
    assert again.digest == once.digest
    assert validate_pipeline(once).digest == once.digest


def test_missing_null_and_empty_stay_three_different_things() -> None:
    digests = set()
    for fields in ({}, {"vae": None}, {"vae": ""}):
        config = validate_pipeline({"stages": [LOAD], **fields})
        assert {key: value for key, value in config.as_json().items() if key == "vae"} == fields
        digests.add(config.digest)
    assert len(digests) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_every_unknown_value_round_trips(value: Any) -> None:
    raw = {"stages": [LOAD], "x_extra": value}
    try:
        config = validate_pipeline(raw)
    except InvalidJob as refusal:
        assert "secret" in str(refusal)  # noqa: PT017 - a random text may look like one
        return
    assert config.as_json()["x_extra"] == value
    assert json.dumps(config.as_json()["x_extra"]) == json.dumps(value)


def test_tuples_and_paths_are_normalised() -> None:
    config = validate_pipeline({"stages": (LOAD,), "input": {"paths": (Path("a.png"),)}, "styles": ("x",)})
    assert config.as_json()["input"] == {"paths": ["a.png"]}
    assert config.as_json()["styles"] == ["x"]


def test_a_config_built_in_python_is_the_same_as_its_json() -> None:
    fields: dict[str, Any] = {"steps": 20, "mood": {"warm": True}}
    built = PipelineConfig(stages=[StageConfig(name="load")], input=InputConfig(paths=["a.png"]), **fields)
    assert built.as_json() == {
        "stages": [{"name": "load"}],
        "input": {"paths": ["a.png"]},
        "steps": 20,
        "mood": {"warm": True},
    }
    assert validate_pipeline(built).digest == validate_pipeline(built.as_json()).digest


def test_a_config_built_in_python_checks_its_types() -> None:
    with pytest.raises(ValidationError):
        PipelineConfig(stages=[StageConfig(name="load")], steps="20")  # type: ignore[arg-type]


class Strange:
    def __repr__(self) -> str:
        raise RuntimeError("never shown")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"steps": "20"}, "steps", "must be a whole number, not '20'"),
        ({"steps": 20.5}, "steps", "must be a whole number, not 20.5"),
        ({"steps": True}, "steps", "must be a whole number, not true"),
        ({"steps": 0}, "steps", "greater than or equal to 1, not 0"),
        ({"seed": -2}, "seed", "greater than or equal to -1"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"prompt": 5}, "prompt", "must be text, not 5"),
        ({"cfg_scale": "7"}, "cfg_scale", "must be a finite number, not text"),
        ({"cfg_scale": float("nan")}, "cfg_scale", "must be a finite number, not nan"),
        ({"cfg_scale": float("inf")}, "cfg_scale", "must be a finite number, not inf"),
        ({"loras": "x"}, "loras", "must be a list, not 'x'"),
        ({"metadata": []}, "metadata", "must be an object, not a list"),
        ({"metadata": {"at": datetime(2024, 1, 1)}}, "metadata.at", "not datetime.datetime"),
        ({"metadata": {"a": [1, b"x"]}}, "metadata.a[1]", "not bytes"),
        ({"metadata": {"a": {1: 2}}}, "metadata.a", "must have text as its keys, not a number"),
        ({"metadata": {"a": {"b", "c"}}}, "metadata.a", "not set"),
        ({"metadata": {"a": Strange()}}, "metadata.a", "Strange"),
        ({"metadata": {"a": "\ud800"}}, "metadata.a", "surrogate"),
        ({"input": {"paths": ["a", ""]}}, "input.paths[1]", "at least 1 character"),
        ({"input": {"path": ["a"]}}, "input.path", "no such field; known ones: paths"),
        ({"output": {"format": "gif"}}, "output.format", "'png', 'jpeg' or 'webp', not 'gif'"),
        ({"output": {"folder": "x"}}, "output.folder", "known ones: directory, format, pattern"),
        ({"output": "x"}, "output", "must be an object"),
        ({"stages": None}, "stages", "must be a list, not null"),
        ({"stages": []}, "stages", "at least 1 item"),
        ({"stages": ["load"]}, "stages[0]", "must be an object, not 'load'"),
        ({"stages": [{}]}, "stages[0].name", "is missing"),
        ({"stages": [LOAD, {"name": "blur"}]}, "stages[1].name", "known ones: crop, enhance, load, resize, save"),
        ({"stages": [{"name": "load", "setings": {}}]}, "stages[0].setings", "known ones: name, settings"),
        ({"stages": [{"name": "load", "settings": {"path": []}}]}, "stages[0].settings.path", "paths, recursive"),
        (
            {"stages": [LOAD, {"name": "resize", "settings": {"width": "800"}}]},
            "stages[1].settings.width",
            "must be a whole number, not '800'",
        ),
        (
            {"stages": [LOAD, {"name": "resize", "settings": {"width": 5, "mode": "zoom"}}]},
            "stages[1].settings.mode",
            "'fit', 'cover' or 'exact', not 'zoom'",
        ),
        ({"stages": [{"name": "watermark"}]}, "stages[0].settings.text", "is missing"),
        ({"stages": [{"name": "save", "settings": {"quality": 101}}]}, "stages[0].settings.quality", "100, not 101"),
        ({"schema_version": 2}, "schema_version", "newer Jobledger"),
        ({"schema_version": 0}, "schema_version", "must be 1, not 0"),
        ({"schema_version": "1"}, "schema_version", "must be 1, not '1'"),
        ({"schema_version": True}, "schema_version", "must be 1, not true"),
        ({"schema_version": None}, "schema_version", "must be 1, not null"),
    ],
)
def test_wrong_fields_are_refused_by_name_in_one_sentence(fields: dict[str, Any], field: str, words: str) -> None:
    refusal = refusal_of({"stages": [LOAD], **fields})
    assert refusal.field == field
    assert words in str(refusal)
    assert "\n" not in str(refusal)
    assert str(refusal).endswith(".")


@pytest.mark.parametrize("raw", [None, [], "load", 5, b"{}", True, object(), [["stages", []]]])
def test_what_is_no_object_is_refused(raw: object) -> None:
    refusal = refusal_of(raw)
    assert refusal.field == "pipeline"
    assert "must be an object" in str(refusal)


def test_a_pipeline_without_stages_is_refused() -> None:
    assert refusal_of({}).field == "stages"


def test_endless_nesting_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    assert "nested deeper" in str(refusal_of({"stages": [LOAD], "metadata": {"a": _nested(200)}}))
    assert "deep" in str(refusal_of({"stages": [LOAD], "metadata": circle}))


def _nested(levels: int) -> list[Any]:
    return [_nested(levels - 1)] if levels else []


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
        "data:application/octet-stream;base64,AAAA",
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 60).decode(),
        base64.b64encode(b"\xff\xd8\xff\xe0" + b"\1" * 60).decode(),
        base64.encodebytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 200).decode(),
        base64.b64encode(b"RIFF" + b"\1" * 60).decode(),
        base64.b64encode(bytes(range(256)) * 8).decode(),
        base64.urlsafe_b64encode(bytes(range(256)) * 8).decode(),
    ],
)
def test_a_picture_inside_the_pipeline_is_refused(text: str) -> None:
    refusal = refusal_of({"stages": [LOAD], "metadata": {"init_images": ["a.png", text]}})
    assert refusal.field == "metadata.init_images[1]"
    assert "pass the file's path" in str(refusal)


@pytest.mark.parametrize(
    "text",
    ["a long prompt, " * 200, "a" * 500, "/9j/photos/a.png", "iVBORw0KGgo", "word " * 400, "0123456789abcdef" * 4],
)
def test_a_long_text_is_no_picture(text: str) -> None:
    assert validate_pipeline({"stages": [LOAD], "prompt": text}).prompt == text


def test_an_error_never_shows_a_long_or_secret_value() -> None:
    refusal = refusal_of({"stages": [LOAD], "steps": "x" * 5_000})
    assert len(str(refusal)) < 200


def test_a_summary_is_one_short_line_for_people() -> None:
    summary = validate_pipeline(FULL).summary()
    assert summary == "heroes, dreamy-xl, a.png, load > resize > save"
    long = validate_pipeline({"stages": [LOAD] * 50, "prompt": "a\nb " * 100}).summary()
    assert len(long) == 120
    assert long.isprintable()


def test_summaries_are_redacted() -> None:
    config = PipelineConfig(stages=[StageConfig(name="load")], prompt="see redis://:hunter2@host/0")
    assert "hunter2" not in config.summary()


def test_a_path_object_of_bytes_is_refused() -> None:
    class OddPath(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return b"a"

    assert "text, not of bytes" in str(refusal_of({"stages": [LOAD], "metadata": {"a": OddPath()}}))
