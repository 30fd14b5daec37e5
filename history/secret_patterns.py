"""How secrets look: the names they are kept under, and the shapes they have inside a text."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

REDACTED = "[redacted]"

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_LETTER = re.compile(r"[^A-Za-z0-9]+")

_SECRET_KEY = re.compile(
    r"""
    (?: pass(?:word|wd|phrase|code)s? | ^pass
      | (?:^|_) (?: pwd | (?:db|user|smtp|mail|http|proxy|redis|broker|root|admin)_?pass
          | (?:client|app|shared)?_?secrets? | credentials? | creds | auth | authorization | bearer | jwt
          | cookies?
          | x?_?api_?keys? | access_?keys?(?:_?id)? | secret_?(?:access_?)?keys?
          | (?:private|signing|encryption|master|auth|ssh|account|session|snapshot|fernet|license)_?keys?
          | token | (?:access|auth|api|refresh|bearer|session|security|csrf|xsrf|oauth|hf|github|bot)_?tokens?
        )
    )
    (?:_(?:header|value|plain|plaintext|hash|raw|text|string|b64|base64))?$
    """,
    re.VERBOSE,
)

#: Names that end in "token" in the language of models, not of passwords.
_MODEL_TOKEN = re.compile(
    r"(?:^|_)(?:eos|bos|pad|unk|sep|cls|mask|stop|start|end|begin|special|trigger|placeholder|initializer|instance"
    r"|class|image|text|per|first|last|next|max|min|num)_token$"
)

_PASSWORD_KEY = re.compile(r"pass(?:word|wd|phrase|code)s?$|(?:^|_)pwd$")

#: A text without any of these, in small letters, holds nothing that the patterns below could find.
_HINTS = (
    *(
        "://",
        "pass",
        "pwd",
        "secret",
        "token",
        "key",
        "auth",
        "bearer",
        "basic",
        "cookie",
        "sig=",
        "signature",
    ),
    *(
        "credential",
        "eyj",
        "akia",
        "asia",
        "agpa",
        "aida",
        "aroa",
        "anpa",
        "anva",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
    ),
    *(
        "ghr_",
        "github_pat_",
        "glpat-",
        "xox",
        "xapp-",
        "hooks.",
        "webhooks",
        "sk-",
        "sk_",
        "rk_",
        "pk_",
        "whsec_",
    ),
    *("aiza", "ya29.", "hf_", "npm_", "pypi-", "dop_v1_", "sg.", ":aa"),
)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL
)

# A password may hold "/" and "@"; digits before a "/" are a port.
_URL_PASSWORD = re.compile(
    r"(?P<head>\b[a-z][a-z0-9+.\-]{0,30}://[^\s:/?#@\"'<>]*:)(?!\d+(?:[/?#]|$))(?!\*+@)"
    r"(?:(?!://)[^\s\"'<>])+(?=@)",
    re.IGNORECASE,
)
_URL_TOKEN = re.compile(r"(?P<head>\b[a-z][a-z0-9+.\-]{0,30}://)[A-Za-z0-9_\-]{20,}(?=@)", re.IGNORECASE)
_ODD_URL_PASSWORD = re.compile(r"\A(?P<head>[a-z][a-z0-9+.\-]*://[^:/?#@]*:)(?!\d+(?:[/?#]|$)).+(?=@)", re.I | re.S)

_VALUE = r"""(?:\\"[^"\\]+|"[^"]+"|'[^']+'|[^\s"',;&)}\]]+)"""
#: The weight of a word in a prompt, ``(secret:1.2)``.
_NO_WEIGHT = r"(?!\s*\d{1,2}(?:\.\d+)?\s*[)>\]:])"
_RANDOM_TEXT = r"(?=[\w.~+/\-]*\d)[\w.~+/\-]{16,}=*"

_ASSIGNMENTS = (
    re.compile(
        r"(?P<head>[?&](?:[\w.\-]*(?:signature|token|secret|password|passwd|credential|api_?key|auth)|sig|key|pwd)=)"
        r"[^&\s\"'<>#]+",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<head>(?:proxy-)?authorization\\?[\"']?\s*[:=]\s*\\?[\"']?)"
        + _NO_WEIGHT
        + r"[^\s\r\n\"'\\,}][^\r\n\"'\\,}]*",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<head>(?:set-)?cookie\\?[\"']?\s*:\s*\\?[\"']?)(?=[^\r\n\"'\\=]{1,80}=)[^\s\r\n\"'\\][^\r\n\"'\\]*",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<head>(?:password|passwd|passphrase|pwd|client[ _\-]?secret|secret[ _\-]?(?:access[ _\-]?)?key"
        r"|(?:api|access|account|private)[ _\-]?key|(?:access|auth|refresh|session)[ _\-]?token)"
        r"\\?[\"']?\s*[=:]\s*)" + _NO_WEIGHT + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<head>(?<![a-z])(?:secret|token)\\?[\"']?\s*=\s*)(?!\d+(?:\.\d+)?(?![\w\-]))" + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(r"(?P<head>(?<![a-z])(?:secret|token)\\?[\"']?\s*:\s*\\?[\"']?)" + _RANDOM_TEXT, re.IGNORECASE),
    re.compile(
        r"(?P<head>(?<![\w\-])--?[\w\-]*(?:password|passwd|token|secret|api-?key)[ =]+)[^\s\"']+",
        re.IGNORECASE,
    ),
)

_BEARER = re.compile(
    r"(?P<head>\bbearer\s+)(?:(?=[\w.~+/\-]*(?:\d|(?-i:[a-z][A-Z])))[\w.~+/\-]{8,}=*|[A-Za-z]{16,})|"
    r"(?P<head2>\btoken\s+)(?=[A-Za-z_]*\d)[A-Za-z0-9_]{20,}\b",
    re.IGNORECASE,
)
_QUOTES = "\\\"'"
_BASIC = re.compile(r"(?P<head>\bbasic\s+)(?P<pair>[A-Za-z0-9+/]{6,}={0,2})", re.IGNORECASE)

_SHAPES = re.compile(
    r"""
    \b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA)[A-Z0-9]{16}\b                # AWS
  | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}         # GitHub
  | \bglpat-[\w\-]{16,}                                                   # GitLab
  | \bxox[a-z]-[\w\-]{10,} | \bxapp-[\w\-]{10,}                           # Slack
  | \bhooks\.slack\.com/services/[\w/]{10,}
  | \bdiscord(?:app)?\.com/api/webhooks/\d+/[\w\-]+
  | \beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*                                  # JWT
  | \bsk-(?=[\w\-]*\d)[\w\-]{20,} | \b[srp]k_(?:live|test)_\w{10,} | \bwhsec_\w{16,}
  | \bAIza[\w\-]{30,} | \bya29\.[\w\-]{20,}                               # Google
  | \bhf_[A-Za-z0-9]{20,} | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[\w\-]{40,} | \bdop_v1_[a-f0-9]{32,}
  | \bSG\.[\w\-]{16,}\.[\w\-]{16,}                                        # SendGrid
  | (?<!\d)\d{8,10}:AA[A-Za-z0-9_\-]{33}(?![\w\-])                        # Telegram
    """,
    re.VERBOSE,
)


def redact_text(text: str) -> str:
    """Return ``text`` with every part that looks like a secret replaced; a second pass changes nothing."""
    if not _may_hold_a_secret(text):
        return text
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _URL_PASSWORD.sub(_keep_head, text)
    text = _URL_TOKEN.sub(_keep_head, text)
    text = _SHAPES.sub(REDACTED, text)
    text = _BEARER.sub(_keep_head, text)
    text = _BASIC.sub(_hide_basic, text)
    for pattern in _ASSIGNMENTS:
        text = pattern.sub(_keep_head, text)
    return text


def _may_hold_a_secret(text: str) -> bool:
    small = text.lower()
    return any(hint in small for hint in _HINTS)


def _keep_head(match: re.Match[str]) -> str:
    heads = (head for name, head in match.groupdict().items() if name.startswith("head") and head is not None)
    head = next(heads)
    value = match[0][len(head) :]
    opening = value[: len(value) - len(value.lstrip(_QUOTES))]
    if value.startswith(REDACTED[:-1], len(opening)):
        return match[0]
    closing = opening if len(value) > len(opening) and value.endswith(opening) else ""
    return head + opening + REDACTED + closing


def _hide_basic(match: re.Match[str]) -> str:
    padded = match["pair"].rstrip("=") + "=" * (-len(match["pair"].rstrip("=")) % 4)
    try:
        decoded = base64.b64decode(padded, validate=True)
    except binascii.Error:
        return match[0]
    return match["head"] + REDACTED if b":" in decoded and decoded.isascii() else match[0]


def hide_password(url: str) -> str:
    """Return a URL (or several, separated by ``;``) that can be shown: user and host stay, no password."""
    hidden = redact_text(url)
    return hidden if hidden != url else _ODD_URL_PASSWORD.sub(_keep_head, url)


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a value of this name is a secret: of ``apiKey`` and ``HF_TOKEN``, not of ``max_tokens``."""
    return any(_SECRET_KEY.search(words) and not _MODEL_TOKEN.search(words) for words in _spellings(key))


@lru_cache(maxsize=4096)
def is_password_key(key: str) -> bool:
    """Whether the name stands for a password, which may also be a number."""
    return any(_PASSWORD_KEY.search(words) for words in _spellings(key))


def _spellings(key: str) -> tuple[str, str]:
    """The key as words in small letters: ``apiKey`` with its capitals as borders, ``PassWord`` without."""
    key = key[:200]
    return _joined(_CAPITAL.sub("_", key)), _joined(key)


def _joined(key: str) -> str:
    return _NO_LETTER.sub("_", key).lower().strip("_").rstrip("0123456789").rstrip("_")
