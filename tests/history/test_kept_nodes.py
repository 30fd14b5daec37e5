"""The nodes that the next agent must know: kept in files, and only theirs are removed."""

from __future__ import annotations

from pathlib import Path

from jobledger.history.event import now
from jobledger.history.kept_nodes import KeptNodes
from jobledger.history.node import Node


def node(boot_id: str) -> Node:
    return Node(boot_id=boot_id, name="celery@here", host="h", pid=1, pool="solo", concurrency=1, started_at=now())


def test_a_kept_node_comes_back_as_it_was(tmp_path: Path) -> None:
    nodes = [node("a"), node("b")]
    for each in [*nodes, nodes[0]]:
        KeptNodes(tmp_path).keep(each)
    assert KeptNodes(tmp_path).all() == nodes
    assert {path.name for path in tmp_path.iterdir()} == {"a.node", "b.node"}


def test_a_damaged_file_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "0.node").write_bytes(b"\xff")
    (tmp_path / "1.node").mkdir()
    KeptNodes(tmp_path).keep(node("a"))
    assert [each.boot_id for each in KeptNodes(tmp_path).all()] == ["a"]


def test_what_a_boot_left_goes_with_its_node_but_never_a_journal(tmp_path: Path) -> None:
    kept = KeptNodes(tmp_path)
    kept.keep(node("a"))
    kept.keep(node("ab"))
    for name in ("a.board", "a.x.jsonl", "a.x.new", "agent.lock", "home"):
        (tmp_path / name).touch()
    kept.forget("a")
    assert {path.name for path in tmp_path.iterdir()} == {"ab.node", "a.x.jsonl", "a.x.new", "agent.lock", "home"}


def test_an_id_with_wildcards_names_nothing_else(tmp_path: Path) -> None:
    kept = KeptNodes(tmp_path)
    kept.keep(node("a"))
    for boot_id in ("*", "", "?", "[a]"):
        kept.forget(boot_id)
    assert [each.boot_id for each in kept.all()] == ["a"]
