"""Ships journals into the ledger: whole lines, in batches, each batch exactly once."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ..errors import EventRefused
from .event import JobEvent
from .job_history_store import JobHistoryStore, JournalOffset
from .journal import CONTROL_PREFIX, SUFFIX, JournalFile, journal_files

logger = logging.getLogger("jobledger.recorder")

#: Bytes of a journal that one transaction records, about: it bounds both memory and the time a lock is held.
BATCH_BYTES: Final = 512 * 1024

#: Seconds after which a pass over many journals stops, to go on at the next call: others wait for the caller.
_PASS: Final = 0.25
#: Seconds between two looks whether the writer of a journal without news is gone.
_LOOK_INTERVAL: Final = 0.1
#: What an event can make a store raise that has nothing to do with the ledger's state.
_REFUSALS: Final = (EventRefused, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)


class _Dropped(msgspec.Struct, frozen=True):
    count: int = msgspec.field(name="@dropped")


class _Line(NamedTuple):
    start: int
    text: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass
class _Progress:
    #: Up to where the ledger holds the journal.
    offset: int = 0
    #: Events that its writer dropped, as far as it was read.
    dropped: int = 0
    look_at: float = 0.0
    #: Why the file cannot be read or deleted.
    obstacle: str | None = None


class Recorder:
    """Records the journals of one directory.

    Two recorders on one directory do no harm: the ledger takes a batch only at the offset that it holds.
    Every method raises ``HistoryUnavailable`` when the ledger does, and can then be called again.
    """

    def __init__(self, directory: Path, store: JobHistoryStore) -> None:
        self._directory = directory
        self._store = store
        self._decode = msgspec.json.Decoder(JobEvent).decode
        self._decode_dropped = msgspec.json.Decoder(_Dropped).decode
        self._progress: dict[str, _Progress] = {}
        self._pass: deque[JournalFile] = deque()

    def ship(self) -> int:
        """Record a batch of what is new in every journal, delete the finished ones; return the recorded bytes.

        Where there is much to do, it stops after a moment, and the next call goes on with the other journals.
        """
        if not self._pass:
            self._start_pass()
        shipped = 0
        pause_at = time.monotonic() + _PASS
        while self._pass:
            shipped += self._ship_if_possible(self._pass[0])
            self._pass.popleft()
            if time.monotonic() >= pause_at:
                break
        return shipped

    def backlog(self) -> int:
        """Return how many bytes wait to be recorded, by the offsets that this recorder knows."""
        return sum(max(0, file.size() - self._known_end(file)) for file in journal_files(self._directory))

    def obstacle(self) -> str | None:
        """Return what keeps a journal from being read or deleted, if something does."""
        obstacles = (progress.obstacle for progress in self._progress.values())
        return next((obstacle for obstacle in obstacles if obstacle), None)

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
        self._pass.extend(files)

    def _ship_if_possible(self, file: JournalFile) -> int:
        progress = self._progress[file.name]
        try:
            shipped = self._ship_file(file, progress)
        except FileNotFoundError:
            return 0
        except OSError as error:
            if progress.obstacle is None:
                logger.error("A journal waits in %s: %s", self._directory, error)
            progress.obstacle = f"A journal cannot be read or deleted: {error}."
            return 0
        progress.obstacle = None
        return shipped

    def _ship_file(self, file: JournalFile, progress: _Progress) -> int:
        """Record one batch at most, so that a long backlog keeps nobody waiting."""
        lines = self._next_lines(file, progress.offset) if file.size() > progress.offset else []
        if lines:
            progress.look_at = 0.0
            return lines[-1].end - lines[0].start if self._record(file, progress, lines) else 0
        if time.monotonic() >= progress.look_at:
            self._finish(file, progress)
            progress.look_at = time.monotonic() + _LOOK_INTERVAL
        return 0

    def _next_lines(self, file: JournalFile, position: int) -> list[_Line]:
        lines = []
        for text in file.read(position, BATCH_BYTES).split(b"\n")[:-1]:
            lines.append(_Line(position, text + b"\n"))
            position = lines[-1].end
        return lines

    def _record(self, file: JournalFile, progress: _Progress, lines: list[_Line]) -> bool:
        """Record lines as one batch; where the ledger refuses something in them, line by line."""
        try:
            return self._advance(file, progress, self._parse(file, progress, lines), lines[0].start, lines[-1].end)
        except _REFUSALS as refusal:
            if len(lines) == 1:
                self._set_aside(file, lines[0], _reason(refusal))
                return self._advance(file, progress, [], lines[0].start, lines[0].end)
        return all(self._record(file, progress, [line]) for line in lines)

    def _parse(self, file: JournalFile, progress: _Progress, lines: list[_Line]) -> list[JobEvent]:
        events = []
        for line in lines:
            try:
                if line.text.startswith(CONTROL_PREFIX):
                    progress.dropped = self._decode_dropped(line.text).count
                else:
                    events.append(self._decode(line.text))
            except (ValueError, RecursionError) as error:
                self._set_aside(file, line, _reason(error))
        return events

    def _advance(self, file: JournalFile, progress: _Progress, events: list[JobEvent], start: int, end: int) -> bool:
        offset = JournalOffset(journal=file.name, start=start, end=end, dropped=progress.dropped)
        if self._store.append(events, offset):
            progress.offset = end
            return True
        progress.offset = self._store.journal_ends([file.name]).get(file.name, 0)
        return False

    def _set_aside(self, file: JournalFile, line: _Line, reason: str) -> None:
        logger.error("Journal %s, byte %d: an unreadable event was set aside (%s)", file.name, line.start, reason)
        self._store.record_poison(file.name, line.start, line.text, reason)

    def _finish(self, file: JournalFile, progress: _Progress) -> None:
        """Delete a journal whose writer is gone, once all of it is recorded."""
        if not file.writer_is_gone():
            return
        torn = _Line(progress.offset, file.read_tail(progress.offset))
        if b"\n" in torn.text:
            return
        if torn.text:
            self._set_aside(file, torn, "its writer died in the middle of the line")
            if not self._advance(file, progress, [], torn.start, torn.end):
                return
        file.delete()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
