"""What a typed model has against a value, in one sentence that names the field."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...errors import InvalidJob
from ...history.canonical import child_path, kind
from ...history.redaction import redact_text

ModelT = TypeVar("ModelT", bound=BaseModel)

_SHOWN_TEXT = 40

_SENTENCES = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
}


def checked(model: type[ModelT], fields: object, place: str) -> ModelT:
    """Return ``fields`` as a ``model``.

    Raises:
        InvalidJob: about the first wrong field; its name begins with ``place``.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        raise InvalidJob(_field(place, problem), _sentence(model, problem) + ".") from None


def _field(place: str, problem: ErrorDetails) -> str:
    for key in problem["loc"]:
        place = child_path(place, key)
    return place or "pipeline"


def _sentence(model: type[BaseModel], problem: ErrorDetails) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"there is no such field; known ones: {', '.join(_siblings(model, problem)) or 'none'}"
        case "missing":
            return _SENTENCES["missing"]
        case "value_error":
            return problem["msg"].removeprefix("Value error, ")
    sentence = _SENTENCES.get(problem["type"]) or _lowered(problem["msg"])
    return sentence if ", not " in sentence else f"{sentence}, not {shown_value(problem['input'])}"


def _siblings(model: type[BaseModel], problem: ErrorDetails) -> list[str]:
    home = model
    for key in problem["loc"][:-1]:
        home = _model_in(home, key) if isinstance(key, str) else home
    return sorted(home.model_fields)


def _model_in(model: type[BaseModel], field: str) -> type[BaseModel]:
    annotation = model.model_fields[field].annotation
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next(
        candidate for candidate in candidates if isinstance(candidate, type) and issubclass(candidate, BaseModel)
    )


def _lowered(message: str) -> str:
    text = message.replace("Input should be", "must be").replace(" should ", " must ")
    return text[0].lower() + text[1:]


def shown_value(value: object) -> str:
    """Return a wrong value for an error message: short, and without secrets."""
    match value:
        case bool() | None:
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            text = redact_text(value)
            return repr(text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…")
        case int() | float():
            return str(value)
    return kind(value)
