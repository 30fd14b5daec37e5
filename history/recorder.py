"""Ships journals into the ledger: whole lines, in batches, each batch exactly once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ..errors import EventRefused
from .job_history_store import JobHistoryStore, JournalOffset
from .journal import CONTROL_PREFIX, SUFFIX, JournalFile, journal_files
from .poison import REFUSALS
from .recordable import RecordableEvent, recordable_line

logger = logging.getLogger("jobledger.recorder")

#: Bytes of journals that one transaction records, about: it bounds both memory and the time a lock is held.
BATCH_BYTES: Final = 1024 * 1024
#: The least of them that one journal gives.
_LEAST_SHARE: Final = 16 * 1024

#: Seconds after which a pass over many journals stops, to go on at the next call: others wait for the caller.
_PASS: Final = 0.25
#: Seconds between two looks whether the writer of a journal without news is gone, the first and the longest.
_LOOK_INTERVAL: Final = 0.1
_LONGEST_LOOK_INTERVAL: Final = 5.0


class _Dropped(msgspec.Struct, frozen=True):
    count: int = msgspec.field(name="@dropped")


@dataclass
class _Progress:
    #: Up to where the ledger holds the journal.
    offset: int = 0
    #: Events that its writer dropped, as far as it was read.
    dropped: int = 0
    look_at: float = 0.0
    look_interval: float = _LOOK_INTERVAL
    #: Why the file cannot be read or deleted.
    obstacle: str | None = None


class _Piece(NamedTuple):
    """What one journal gives to a batch: whole lines, each with its end."""

    file: JournalFile
    progress: _Progress
    start: int
    text: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def halves(self) -> tuple[_Piece, _Piece]:
        middle = self.text.find(b"\n", len(self.text) // 2, -1)
        cut = 1 + (middle if middle >= 0 else self.text.rfind(b"\n", 0, -1))
        return self._replace(text=self.text[:cut]), self._replace(start=self.start + cut, text=self.text[cut:])


class Recorder:
    """Records the journals of one directory.

    Two recorders on one directory do no harm: the ledger takes a batch only at the offset that it holds.
    Every method raises ``HistoryUnavailable`` when the ledger does, and can then be called again.
    """

    def __init__(self, directory: Path, store: JobHistoryStore) -> None:
        self._directory = directory
        self._store = store
        self._decode_dropped = msgspec.json.Decoder(_Dropped).decode
        self._progress: dict[str, _Progress] = {}
        #: The journals that the running pass has yet to look at, and how many bytes of each it takes at most.
        self._pass: deque[tuple[JournalFile, int]] = deque()

    def ship(self) -> int:
        """Record a batch of what is new in all journals, delete the finished ones; return the recorded bytes.

        Where there is much to do, it stops after a moment, and the next call goes on with the other journals.
        """
        if not self._pass:
            self._start_pass()
        shipped = 0
        pause_at = time.monotonic() + _PASS
        while self._pass:
            shipped += self._record(self._gather())
            if time.monotonic() >= pause_at:
                break
        return shipped

    def backlog(self) -> int:
        """Return how many bytes wait to be recorded, by the offsets that this recorder knows."""
        return sum(max(0, file.size() - self._known_end(file)) for file in journal_files(self._directory))

    def obstacle(self) -> str | None:
        """Return what keeps a journal from being read or deleted, if something does."""
        obstacles = (progress.obstacle for progress in list(self._progress.values()))
        return next((obstacle for obstacle in obstacles if obstacle), None)

    def expect_ends(self, files: Iterable[str]) -> None:
        """Look at once whether the writers of these files are gone."""
        for name in files:
            progress = self._progress.get(name.removesuffix(SUFFIX))
            if progress is not None:
                progress.look_at, progress.look_interval = 0.0, _LOOK_INTERVAL

    def is_recorded(self, ends: dict[str, int]) -> bool:
        """Whether each of the journals is recorded up to the given byte, or was deleted because all of it is."""
        return all(self._is_recorded(name, end) for name, end in ends.items())

    def boot_is_recorded(self, boot_id: str) -> bool:
        """Whether all writers of a boot are gone and everything they wrote is in the ledger."""
        return not journal_files(self._directory, boot_id)

    def _is_recorded(self, name: str, end: int) -> bool:
        file = JournalFile(self._directory / f"{name}{SUFFIX}")
        if self._known_end(file) >= end:
            return True
        # The writer cuts a torn half off again, and the recorder deletes only what it has recorded.
        return self._known_end(file) >= min(end, file.size())

    def _known_end(self, file: JournalFile) -> int:
        known = self._progress.get(file.name)
        return known.offset if known else 0

    def _start_pass(self) -> None:
        files = journal_files(self._directory)
        for name in self._progress.keys() - {file.name for file in files}:
            del self._progress[name]
        unknown = [file.name for file in files if file.name not in self._progress]
        if unknown:
            ends = self._store.journal_ends(unknown)
            self._progress.update({name: _Progress(ends.get(name, 0)) for name in unknown})
        self._pass.extend(self._shares(files))

    def _shares(self, files: list[JournalFile]) -> Iterator[tuple[JournalFile, int]]:
        """Each journal gives in proportion to what waits in it.

        A job's events are spread over several journals; so most of them meet in one batch, which writes its row once.
        """
        waiting = [max(0, file.size() - self._progress[file.name].offset) for file in files]
        whole = sum(waiting)
        for file, part in zip(files, waiting, strict=True):
            yield file, max(_LEAST_SHARE, BATCH_BYTES * part // whole) if part else 0

    def _gather(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        room = BATCH_BYTES
        while self._pass and room > 0:
            piece = self._take_if_possible(*self._pass.popleft())
            if piece is not None:
                pieces.append(piece)
                room -= len(piece.text)
        return pieces

    def _take_if_possible(self, file: JournalFile, limit: int) -> _Piece | None:
        progress = self._progress[file.name]
        try:
            piece = self._take(file, progress, limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            if progress.obstacle is None:
                logger.error("A journal waits in %s: %s", self._directory, error)
            progress.obstacle = f"A journal cannot be read or deleted: {error}."
            return None
        progress.obstacle = None
        return piece

    def _take(self, file: JournalFile, progress: _Progress, limit: int) -> _Piece | None:
        text = file.read(progress.offset, limit) if limit else b""
        if text:
            progress.look_at, progress.look_interval = 0.0, _LOOK_INTERVAL
            return _Piece(file, progress, progress.offset, text)
        if time.monotonic() >= progress.look_at:
            self._finish(file, progress)
            progress.look_at = time.monotonic() + progress.look_interval
            progress.look_interval = min(_LONGEST_LOOK_INTERVAL, 2 * progress.look_interval)
        return None

    def _record(self, pieces: Sequence[_Piece]) -> int:
        """Record pieces as one batch; where the ledger does not take it, one by one; return the recorded bytes."""
        if not pieces:
            return 0
        try:
            if self._advance(pieces):
                return sum(len(piece.text) for piece in pieces)
        except REFUSALS as refusal:
            if len(pieces) == 1:
                return self._record_without_poison(pieces[0], refusal)
        if len(pieces) == 1:
            [piece] = pieces
            piece.progress.offset = self._store.journal_ends([piece.file.name]).get(piece.file.name, 0)
            return 0
        return sum(self._record([piece]) for piece in pieces)

    def _record_without_poison(self, piece: _Piece, refusal: Exception) -> int:
        """Record the halves of a piece that the ledger refuses, and so on, down to the line that it means."""
        if piece.text.count(b"\n") > 1:
            first, second = piece.halves()
            recorded = self._record([first])
            return recorded + self._record([second]) if recorded else 0
        self._set_aside(piece.file, piece.start, piece.text, _reason(refusal))
        return len(piece.text) if self._append([], [piece]) else 0

    def _advance(self, pieces: Sequence[_Piece]) -> bool:
        events = [event for piece in pieces for event in self._parse(piece)]
        return self._append(events, pieces)

    def _append(self, events: Sequence[RecordableEvent], pieces: Sequence[_Piece]) -> bool:
        offsets = [
            JournalOffset(journal=piece.file.name, start=piece.start, end=piece.end, dropped=piece.progress.dropped)
            for piece in pieces
        ]
        if not self._store.append(events, offsets):
            return False
        for piece in pieces:
            piece.progress.offset = piece.end
        return True

    def _parse(self, piece: _Piece) -> Iterator[RecordableEvent]:
        position = piece.start
        for text in piece.text.split(b"\n")[:-1]:
            try:
                if text.startswith(CONTROL_PREFIX):
                    piece.progress.dropped = self._decode_dropped(text).count
                else:
                    yield recordable_line(text)
            except (EventRefused, ValueError, RecursionError) as error:
                self._set_aside(piece.file, position, text + b"\n", _reason(error))
            position += len(text) + 1

    def _set_aside(self, file: JournalFile, position: int, line: bytes, reason: str) -> None:
        logger.error("Journal %s, byte %d: an unreadable event was set aside (%s)", file.name, position, reason)
        self._store.record_poison(file.name, position, line, reason)

    def _finish(self, file: JournalFile, progress: _Progress) -> None:
        """Delete a journal whose writer is gone, once all of it is recorded."""
        if not file.writer_is_gone():
            return
        torn = _Piece(file, progress, progress.offset, file.read_tail(progress.offset))
        if b"\n" in torn.text:
            return
        if torn.text:
            self._set_aside(file, torn.start, torn.text, "its writer died in the middle of the line")
            if not self._append([], [torn]):
                progress.offset = self._store.journal_ends([file.name]).get(file.name, 0)
                return
        file.delete()
        self._store.end_journal(file.name)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
