"""A pipeline never carries a secret, and what only sounds like one passes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from jobledger.errors import InvalidJob
from jobledger.workers.pipeline import validate_pipeline

# Put together here, so that no scanner of repositories mistakes this file for a leak.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
JWT = ".".join(("ey" + "JhbGciOiJIUzI1NiJ9", "ey" + "JzdWIiOiIxMjM0NSJ9", "c2lnbmF0dXJlLWhlcmU"))
BASIC = "Basic " + base64.b64encode(b"jo:hunter2").decode()
KEY_BLOCK = "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE" + " KEY-----"

SECRETS: list[tuple[Any, str]] = [
    ({"password": "hunter2"}, "password"),
    ({"PassWord": "hunter2"}, "PassWord"),
    ({"db_password": 12345}, "db_password"),
    ({"userpassword": "x"}, "userpassword"),
    ({"passphrase": "open sesame"}, "passphrase"),
    ({"passwd": "x"}, "passwd"),
    ({"pwd": "x"}, "pwd"),
    ({"smtp_pass": "x"}, "smtp_pass"),
    ({"api_key": "x"}, "api_key"),
    ({"apiKey": "x"}, "apiKey"),
    ({"API-KEY": "x"}, "API-KEY"),
    ({"x-api-key": "x"}, "x-api-key"),
    ({"token": "x"}, "token"),
    ({"HF_TOKEN": "x"}, "HF_TOKEN"),
    ({"accessToken": "x"}, "accessToken"),
    ({"APIToken": "x"}, "APIToken"),
    ({"refresh_tokens": ["x"]}, "refresh_tokens"),
    ({"client_secret": "x"}, "client_secret"),
    ({"secret": {"value": "x"}}, "secret"),
    ({"secrets": ["x"]}, "secrets"),
    ({"aws_secret_access_key": "x"}, "aws_secret_access_key"),
    ({"private_key": "x"}, "private_key"),
    ({"credentials": {"user": "jo", "id": "x"}}, "credentials"),
    ({"Authorization": "anything"}, "Authorization"),
    ({"headers": {"Proxy-Authorization": "x"}}, "headers.Proxy-Authorization"),
    ({"headers": {"Cookie": "id=1"}}, "headers.Cookie"),
    ({"headers": [["X-Api-Key", "x"]]}, "headers[0][1]"),
    ({"headers": [{"name": "Authorization", "value": "x"}]}, "headers[0].value"),
    ({"a": [{"b": [{"token": "x"}]}]}, "a[0].b[0].token"),
    ({"url": "redis://:hunter2@cache:6379/0"}, "url"),
    ({"url": "postgresql+psycopg://jo:p@ss/word@db/x"}, "url"),
    ({"url": "https://jo:hunter2@server.example/sdapi"}, "url"),
    ({"url": "AMQP://guest:guest@host//"}, "url"),
    ({"url": f"https://{LETTERS}{LETTERS}@errors.example/1"}, "url"),
    ({"notes": ["see", "connect to mysql://root:1234@h/db please"]}, "notes[1]"),
    ({"url": "https://bucket.example/a.png?X-Amz-Signature=0a1b2c&X-Amz-Expires=60"}, "url"),
    ({"url": "https://blob.example/a.png?sv=2024&sig=abc%3D"}, "url"),
    ({"url": "https://maps.example/?key=abc"}, "url"),
    ({"url": "https://x.example/?access_token=abc"}, "url"),
    ({"note": "Authorization: Bearer abc.def.ghi"}, "note"),
    ({"note": "bearer 0a1b2c3d4e5f6a7b8c9d"}, "note"),
    ({"note": BASIC}, "note"),
    ({"note": KEY_BLOCK}, "note"),
    ({"note": "-----BEGIN PRIVATE" + " KEY-----\nMIIE"}, "note"),
    ({"note": "AKIA" + "IOSFODNN7EXAMPLE"}, "note"),
    ({"note": "gh" + "p_" + "a1B2" * 9}, "note"),
    ({"note": "github" + "_pat_" + "a1B2" * 9}, "note"),
    ({"note": "xox" + "b-1234567890-" + LETTERS}, "note"),
    ({"note": "https://hooks." + "slack.com/services/T000/B000/" + LETTERS}, "note"),
    ({"note": JWT}, "note"),
    ({"note": "sk" + "-proj-" + "a1B2" * 9}, "note"),
    ({"note": "sk" + "_live_" + "a1B2" * 5}, "note"),
    ({"note": "AI" + "za" + "a1B2-" * 7}, "note"),
    ({"note": "h" + "f_" + "a1B2" * 8}, "note"),
    ({"note": "gl" + "pat-" + "a1B2" * 5}, "note"),
    ({"note": "np" + "m_" + "a1B2" * 9}, "note"),
    ({"note": "run with --password hunter2"}, "note"),
    ({"note": '{"api_key": "hunter2"}'}, "note"),
    ({"note": "password=hunter2"}, "note"),
    ({"note": "DefaultEndpointsProtocol=https;AccountKey=hunter2=="}, "note"),
    ({"https://jo:hunter2@host/": 1}, "https://jo:[redacted]@host/"),
]


@pytest.mark.parametrize(("secret", "place"), SECRETS, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("home", ["metadata", "x_extra", "variants"])
def test_a_secret_is_refused_and_its_field_is_named(secret: Any, place: str, home: str) -> None:
    raw = {"stages": [{"name": "load"}], home: [secret] if home == "variants" else secret}
    with pytest.raises(InvalidJob) as refusal:
        validate_pipeline(raw)
    assert refusal.value.field == (f"variants[0].{place}" if home == "variants" else f"{home}.{place}")
    assert "looks like a secret" in str(refusal.value)
    for value in ("hunter2", "a1B2", "open sesame", LETTERS, "IOSFODNN7EXAMPLE", "MIIE"):
        assert value not in str(refusal.value)


def test_a_secret_in_the_settings_of_a_stage_is_refused() -> None:
    stages = [{"name": "load"}, {"name": "watermark", "settings": {"text": "redis://:hunter2@cache/0"}}]
    with pytest.raises(InvalidJob) as refusal:
        validate_pipeline({"stages": stages})
    assert refusal.value.field == "stages[1].settings.text"


@pytest.mark.parametrize(
    "innocent",
    [
        {"max_tokens": 77},
        {"tokens": ["red", "blue"]},
        {"token_merging": 0.5, "token_merging_ratio": "0.4"},
        {"keyword": "castle", "keywords": ["a"]},
        {"tokenizer": "clip", "placeholder_token": "<cat-toy>", "eos_token": "</s>"},
        {"author": "Jo", "authors": ["Jo"], "authority": "x"},
        {"key_frames": [1, 2], "keys": ["a"], "key": "C major", "sort_key": "name", "monkey": "x"},
        {"secretary": "x", "bypass": "x", "compass": "x", "high_pass": "x", "passes": 2},
        {"password": None, "token": "", "secret": False, "api_key": []},
        {"token": 5},
        {"cookie_count": 3},
        {"style": {"name": "secret garden", "weight": 1}},
        {"url": "http://127.0.0.1:7860/sdapi/v1/txt2img"},
        {"url": "redis://cache:6379/0"},
        {"url": "http://host:80/path/@user"},
        {"url": "https://example.org/?page=2&size=3&keyword=x"},
        {"sha": "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"id": "0192f0c1-7a3e-7b52-9c55-0b6d0d3f4a11"},
        {"mail": "jo@example.org"},
        {"note": "standard bearer approaching a castle"},
        {"note": "basic composition, 1920x1080"},
        {"note": "Basic 1920x1080 wallpaper"},
        {"note": "(password:1.2), (secret:0.8), <lora:token:0.5>, [cookie:1.1]"},
        {"note": "a key under the doormat, token of love, secret passage"},
        {"note": "signature style, risk-averse, task-oriented"},
    ],
)
def test_what_only_sounds_like_a_secret_passes_unchanged(innocent: dict[str, Any]) -> None:
    config = validate_pipeline({"stages": [{"name": "load"}], "metadata": innocent})
    assert config.as_json()["metadata"] == innocent
