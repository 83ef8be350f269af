"""The database file: shared commits, faults that are told, and nothing that is written over."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from appengine_compat.errors import ApiError, StoreError, StoreTooNewError
from appengine_compat.local.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "tasks.db"


def put(key: str):
    return lambda connection: connection.execute("INSERT INTO meta VALUES (?, 'x')", (key,))


def keys(store: Store) -> set[str]:
    return store.read(
        lambda connection: {row[0] for row in connection.execute("SELECT key FROM meta")}
    )


def test_what_was_written_is_there_after_reopening(path):
    store = Store(path)
    store.write(put("a"))
    store.close()
    store = Store(path)
    assert "a" in keys(store)
    store.close()


def test_each_database_has_a_secret_of_its_own_that_it_keeps(path, tmp_path):
    store, other = Store(path), Store(tmp_path / "other.db")
    secret = store.secret
    assert len(secret) == 32
    assert other.secret != secret
    store.close()
    other.close()
    store = Store(path)
    assert store.secret == secret
    store.close()


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_only_its_user_can_read_it(path):
    store = Store(path)
    assert path.stat().st_mode & 0o077 == 0
    store.close()


def test_a_folder_that_begins_with_a_dot_is_kept_out_of_git(tmp_path):
    Store(tmp_path / ".appengine-compat" / "tasks.db").close()
    assert (tmp_path / ".appengine-compat" / ".gitignore").read_text() == "*\n"


def test_concurrent_callers_all_get_their_own_result(path):
    store = Store(path)
    failures = []

    def work(number: int) -> None:
        for count in range(40):
            key = f"{number}-{count}"

            def operation(connection, key=key):
                connection.execute("INSERT INTO meta VALUES (?, 'x')", (key,))
                return key

            if store.write(operation) != key:
                failures.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(keys(store)) >= 8 * 40
    store.close()


def test_callers_that_come_while_a_commit_is_made_share_the_next(path):
    store = Store(path)
    commits: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection):
        entered.set()
        assert go_on.wait(10)

    leader = threading.Thread(target=store.write, args=(slow,))
    leader.start()
    assert entered.wait(10)
    followers = [threading.Thread(target=store.write, args=(put(f"f{i}"),)) for i in range(5)]
    for thread in followers:
        thread.start()
    while len(store._waiting) < 5:
        pass
    store._connection.set_trace_callback(
        lambda statement: commits.append(1) if statement == "COMMIT" else None
    )
    go_on.set()
    for thread in [leader, *followers]:
        thread.join(10)
    assert len(commits) == 2
    store.close()


def test_one_callers_refusal_is_not_anothers(path):
    store = Store(path)

    def refuse(connection):
        raise ApiError("NOT_FOUND", "no")

    with pytest.raises(ApiError, match="no"):
        store.write(refuse)
    store.write(put("a"))
    assert "a" in keys(store)
    store.close()


def test_a_fault_in_one_operation_leaves_nothing_of_it_and_all_of_the_others(path):
    store = Store(path)
    entered, go_on = threading.Event(), threading.Event()
    seen: list[BaseException] = []

    def slow(connection):
        entered.set()
        assert go_on.wait(10)

    def broken(connection):
        connection.execute("INSERT INTO meta VALUES ('half', 'x')")
        raise RuntimeError("broken")

    def call(operation):
        try:
            store.write(operation)
        except RuntimeError as error:
            seen.append(error)

    leader = threading.Thread(target=call, args=(slow,))
    leader.start()
    assert entered.wait(10)
    others = [threading.Thread(target=call, args=(each,)) for each in (put("a"), broken, put("b"))]
    for thread in others:
        thread.start()
    while len(store._waiting) < 3:
        pass
    go_on.set()
    for thread in [leader, *others]:
        thread.join(10)
    assert [str(error) for error in seen] == ["broken"]
    assert {"a", "b"} <= keys(store)
    assert "half" not in keys(store)
    store.close()


def test_a_full_disk_is_told_and_ends_when_there_is_room(path):
    store = Store(path)
    pages = store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    store.read(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))
    big = "x" * 100_000
    with pytest.raises(StoreError, match=r"full.*free space on its disk") as caught:
        store.write(
            lambda connection: connection.execute("INSERT INTO meta VALUES ('a', ?)", (big,))
        )
    assert caught.value.path == str(path)
    store.read(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    store.write(put("a"))
    assert "a" in keys(store)
    store.close()


def test_in_memory_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(None)
    store.write(put("a"))
    assert "a" in keys(store)
    assert list(tmp_path.iterdir()) == []
    store.close()


def test_a_closed_database_says_so(path):
    store = Store(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.write(put("a"))


def test_who_comes_together_with_the_end_is_still_on_disk(path):
    store = Store(path)
    entered, go_on, faults = threading.Event(), threading.Event(), []

    def slow(connection):
        entered.set()
        assert go_on.wait(10)

    def call(function, *args):
        try:
            function(*args)
        except StoreError as error:
            faults.append(error)

    calls = [(store.write, slow), (store.write, put("a")), (store.close,), (store.write, put("b"))]
    threads = [threading.Thread(target=call, args=each) for each in calls]
    threads[0].start()
    assert entered.wait(10)
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(store._waiting) < count:
            pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert faults == []
    with pytest.raises(StoreError, match="closed"):
        store.write(put("c"))
    store = Store(path)
    assert {"a", "b"} <= keys(store)
    store.close()


# --- files that are not what they should be ---


@pytest.mark.parametrize(
    "damage", [b"this is no database at all" * 400, b"SQLite format 3\x00" * 300]
)
def test_a_file_that_is_no_database_is_kept_aside_and_said(path, damage, caplog):
    path.parent.mkdir()
    path.write_bytes(damage)
    with caplog.at_level(logging.ERROR):
        store = Store(path)
    (aside,) = path.parent.glob("tasks.db.corrupt-*")
    assert aside.read_bytes() == damage
    assert str(aside) in caplog.text
    assert "tasks that were waiting in it do not run until they are salvaged" in caplog.text
    store.write(put("a"))
    store.close()


def test_a_damaged_database_is_kept_aside_whole(path, caplog):
    store = Store(path)
    for number in range(2000):
        store.write(put(f"key-{number}"), is_durable=False)
    store.close()
    content = bytearray(path.read_bytes())
    for place in range(4096 * 3, len(content), 4096):
        content[place : place + 1000] = os.urandom(1000)
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        store = Store(path)
    (aside,) = path.parent.glob("tasks.db.corrupt-*")
    assert aside.read_bytes() == content
    assert "damaged" in caplog.text
    assert "key-1" not in keys(store)
    store.close()


def test_two_damaged_files_are_both_kept(path, caplog):
    for damage in (b"first" * 1000, b"second" * 1000):
        if path.exists():
            path.unlink()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damage)
        Store(path).close()
        for rest in ("-wal", "-shm"):
            Path(f"{path}{rest}").unlink(missing_ok=True)
    kept = {each.read_bytes() for each in path.parent.glob("tasks.db.corrupt-*")}
    assert kept == {b"first" * 1000, b"second" * 1000}


def test_a_database_of_a_newer_version_is_refused_and_not_touched(path):
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNewError, match=r"newer appengine-compat .*Upgrade"):
        Store(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_not_touched(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="database of another program"):
        Store(path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_a_file_is_told(tmp_path):
    with pytest.raises(StoreError, match=re.escape(str(tmp_path))):
        Store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="APPENGINE_COMPAT_DB"):
        Store(tmp_path / "file" / "tasks.db")


def test_an_empty_file_becomes_a_database(path):
    path.parent.mkdir()
    path.write_bytes(b"")
    store = Store(path)
    store.write(put("a"))
    store.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_told_to_open_it_anew(path):
    store = Store(path)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.write(put("a"))
        except StoreError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert b"opened before a fork" in os.read(reading, 1000)
    os.close(reading)
    store.write(put("b"))
    store.close()


# --- several operations at once ---


def commits_of(store: Store) -> list[str]:
    """Return a list that the store's commits go into from now on."""
    found: list[str] = []
    store._connection.set_trace_callback(
        lambda statement: found.append(statement) if statement == "COMMIT" else None
    )
    return found


def refuse(connection):
    raise ApiError("NOT_FOUND", "no")


def test_several_operations_share_one_commit_and_have_their_own_results(path):
    store = Store(path)
    commits = commits_of(store)

    def numbered(number: int):
        def operation(connection):
            put(f"key-{number}")(connection)
            return number

        return operation

    assert store.write_each([numbered(number) for number in range(20)]) == list(range(20))
    assert len(commits) == 1
    assert {f"key-{number}" for number in range(20)} <= keys(store)
    store.close()


def test_of_several_operations_none_is_none(path):
    store = Store(path)
    commits = commits_of(store)
    assert store.write_each([]) == []
    assert not commits
    store.close()


def test_of_several_operations_one_that_refuses_is_alone_in_it(path):
    store = Store(path)
    commits = commits_of(store)
    _, refused, _ = store.write_each([put("a"), refuse, put("b")])
    assert isinstance(refused, ApiError)
    assert refused.code == "NOT_FOUND"
    assert {"a", "b"} <= keys(store)
    assert len(commits) == 1
    store.close()


def test_of_several_operations_one_that_breaks_leaves_nothing_and_the_others_stay(path):
    store = Store(path)
    calls: list[str] = []

    def broken(connection):
        calls.append("broken")
        put("half")(connection)
        raise RuntimeError("broken")

    first, error, refused, last = store.write_each([put("a"), broken, refuse, put("b")])
    assert not isinstance(first, Exception)
    assert isinstance(error, RuntimeError)
    assert isinstance(refused, ApiError)
    assert not isinstance(last, Exception)
    assert {"a", "b"} <= keys(store)
    assert "half" not in keys(store)
    assert calls == ["broken"] * 2, "together with the others, then alone"
    store.close()


def test_of_several_operations_that_one_key_keeps_apart_the_first_wins(path):
    store = Store(path)
    first, second = store.write_each([put("a"), put("a")])
    assert not isinstance(first, Exception)
    assert isinstance(second, StoreError)
    store.close()


def test_a_commit_that_fails_is_told_to_each_of_several_and_the_next_works(path):
    store = Store(path)
    pages = store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    store.read(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))

    def big(key: str):
        return lambda connection: connection.execute(
            "INSERT INTO meta VALUES (?, ?)", (key, "x" * 100_000)
        )

    for error in store.write_each([big("a"), big("b"), big("c")]):
        assert isinstance(error, StoreError)
        assert "free space on its disk" in str(error)
    assert not {"a", "b", "c"} & keys(store)
    store.read(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    store.write_each([big("a"), big("b")])
    assert {"a", "b"} <= keys(store)
    store.close()


def test_a_closed_database_says_so_to_each_of_several(path):
    store = Store(path)
    store.close()
    for error in store.write_each([put("a"), put("b")]):
        assert isinstance(error, StoreError)
        assert "closed" in str(error)


def test_groups_and_single_operations_of_many_threads_all_get_their_own(path):
    store = Store(path)
    wrong: list[object] = []

    def keyed(key: str):
        def operation(connection):
            put(key)(connection)
            return key

        return operation

    def work(number: int) -> None:
        for count in range(30):
            names = [f"{number}-{count}-{place}" for place in range(count % 4)]
            got = store.write_each([keyed(name) for name in names])
            single = store.write(keyed(f"{number}-{count}"))
            if got != names or single != f"{number}-{count}":
                wrong.append((got, single))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(keys(store)) >= 8 * (30 + 43)
    store.close()


def test_an_interruption_in_one_of_several_is_not_kept_from_its_caller(path):
    store = Store(path)

    def interrupted(connection):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_each([put("a"), interrupted, put("b")])
    assert not {"a", "b"} & keys(store)
    store.write(put("c"))
    assert "c" in keys(store)
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_waits_for_a_transaction_whose_locks_a_child_would_inherit(tmp_path):
    script = """
        import os, signal, threading
        from appengine_compat.local.store import Store
        put = "INSERT INTO documents VALUES (?, '', NULL)"
        store = Store("tasks.db")
        begun, may_end = threading.Event(), threading.Event()
        def last(connection):
            connection.execute(put, ("parent",))
            begun.set()
            may_end.wait()
        thread = threading.Thread(target=store.write, args=(last,))
        thread.start()
        begun.wait()
        # What is registered later is called earlier: the transaction is under way until the fork.
        os.register_at_fork(before=may_end.set)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            Store("tasks.db").write(lambda connection: connection.execute(put, ("child",)))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        count = "SELECT count(*) FROM documents"
        assert store.read(lambda connection: connection.execute(count).fetchone()[0]) == 2
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)


def test_a_log_that_is_reserved_does_not_grow_with_the_next_commits(path):
    store = Store(path)
    store.write(put("before"))
    store.reserve_log()
    log = Path(f"{path}-wal")
    reserved = log.stat().st_size
    assert reserved > 4_000_000
    for number in range(100):
        store.write(put(f"after{number}"))
    assert log.stat().st_size == reserved
    store.close()
    again = Store(path)
    assert {"before", "after0", "after99"} < keys(again)
    tables = "SELECT count(*) FROM sqlite_master WHERE name = 'reserved'"
    assert again.read(lambda connection: connection.execute(tables).fetchone()) == (0,)
    again.close()


def test_reserving_the_log_leaves_what_another_process_writes(path):
    store, other = Store(path), Store(path)
    other.write(put("theirs"))
    store.reserve_log()
    other.write(put("theirs, later"))
    assert {"theirs", "theirs, later"} < keys(store)
    store.close()
    other.close()


def test_a_database_in_memory_has_no_log_to_reserve():
    store = Store(None)
    store.reserve_log()
    assert "secret" in keys(store)
    store.close()


def test_a_log_that_cannot_be_reserved_is_told_and_harms_nothing(path):
    store = Store(path)
    store.write(put("kept"))
    store.write(lambda connection: connection.execute("PRAGMA max_page_count=1"))
    with pytest.raises(StoreError, match="full"):
        store.reserve_log()
    assert "kept" in keys(store)
    store.close()
