"""Tests that are collected once and run in forks, each with the code of some functions changed.

Most mutants change the body of a function. To import the package and to collect the tests takes longer than most of
them live, so one process does both, and each mutant gets a fork of it in which the function has the changed code.
Only tests that run the changed statement are asked, which coverage tells once; those that killed mutants before come
first, then the quick ones. A test that uses what another one left behind (a cache) is not asked.
"""

import ast
import contextlib
import gc
import inspect
import math
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest
import torch

OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio", "-m", "not slow")
SURVIVED, KILLED, NO_TESTS = 0, 1, 5
# Beside pytest's statuses: the tests don't import the file; the change is in no body of a function that they imported.
NOT_IMPORTED, ELSEWHERE = 70, 71
# Seconds of processor time that a test gets beside a multiple of what it took, and of waiting after which it is ended.
_SPARE, _WAITING = 5, 30
# Bytes that a fork may take beside what it has: some mutants ask for all there are.
_MEMORY = 8 << 30
# Seconds of processor time of the unchanged file's tests, together.
_MOST = 1200


class Collected:
    """
    A process that has collected a file's tests and run them once.

    Args:
        path (`Path`): The file that is changed.
        tests (`Sequence[str]`): To collect.
        folder (`str`): For the tests' own files.
        patience (`float`): Times a test's time with the unchanged file that it may take.

    Attributes:
        status (`int | None`): `SURVIVED` where the tests pass with the unchanged file, otherwise why they can't judge,
            `None` where they take too long.
        seconds (`float`): Of processor time that they took.
        lines (`dict[str, set[int]]`): By the tests' names, the quickest first, which lines of the file's functions
            each runs.
    """

    def __init__(self, path: Path, tests: Sequence[str], folder: str, patience: float) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        arguments = (path, tests, folder, patience, self._connection, theirs)
        self._process = context.Process(target=_collect, args=arguments)
        self._process.start()
        theirs.close()
        self.status, self.seconds, self.lines = self._connection.recv()

    def __enter__(self) -> "Collected":
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.join()

    def outcome(self, source: str, line: int) -> int | None:
        """
        Args:
            source (`str`): The changed file.
            line (`int`): Of the unchanged file, where the change is.

        Returns:
            `int | None`: `SURVIVED`, `KILLED` or `ELSEWHERE`; `None` where a test took too long.
        """
        self._connection.send((source, line))
        return self._connection.recv()


def readers(source: str, line: int) -> set[int] | None:
    """
    Lines of the statements that read what a line gives a name to.

    Args:
        source (`str`): Of a file.
        line (`int`): Of it.

    Returns:
        `set[int]`: `None` unless it is a name of the file's own, which begins with `_`, that functions alone read.
    """
    tree = ast.parse(source)
    names = {
        name.id
        for node in tree.body
        if isinstance(node, ast.Assign) and node.lineno <= line <= (node.end_lineno or line)
        for target in node.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }
    if not names or not all(name.startswith("_") for name in names):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {line for node in functions for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    reading = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names
    ]
    if not inside.issuperset(reading):
        return None
    statements = _statements(source)
    return {near for place in reading for near in _innermost(statements, place)}


def prepare_fork() -> None:
    """In a new fork: silent, a group of its own with what it starts, and with as much more memory as it may take."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    # Two threads that find torch's pool broken by the fork would mend it at once, and one of them fails.
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))


def end_after(seconds: float) -> None:
    """Ends this process by a signal after so many more seconds of processor time, or many more of any."""
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    signal.alarm(math.ceil(_WAITING + 3 * seconds))


def end_group(child: int) -> int | None:
    """Waits for a fork and ends what it left behind; its status, `None` where it took too long."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # What the tests started has the child's number as its group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return None if code in (-signal.SIGXCPU, -signal.SIGALRM) else code


def _collect(path: Path, tests: Sequence[str], folder: str, patience: float, *ends: Connection) -> None:
    """In the process that collects: answers until the other end is closed."""
    ends[0].close()
    prepare_fork()
    loop = _Loop(path, patience, ends[1])
    status = int(pytest.main([*OPTIONS, f"--basetemp={folder}", *tests], plugins=[loop]))
    if not loop.has_answered:
        ends[1].send((status, 0.0, {}))
    os._exit(0)


class _Loop:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, path: Path, patience: float, connection: Connection) -> None:
        self.path, self.patience, self.connection = path, patience, connection
        self.has_answered = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if not session.items or session.testsfailed:
            return None
        functions = _functions_of(self.path)
        # What was imported stays as it is: no fork should look through it for garbage.
        gc.freeze()
        status, ran = _in_fork(partial(_run_all, session, self.path))
        if status == SURVIVED and not functions and not _is_imported(self.path):
            status = NOT_IMPORTED
        self.has_answered = True
        seconds = [taken for taken, _ in ran]
        names = [f"{item.path}::{item.nodeid.partition('::')[2]}" for item in session.items]
        lines = [run for _, run in ran]
        quickest_first = sorted(zip(seconds, names, lines, strict=False), key=lambda test: test[0])
        self.connection.send((status, sum(seconds), {name: run for _, name, run in quickest_first}))
        if status == SURVIVED:
            self._answer(session, functions, seconds, lines)
        return True

    def _answer(
        self,
        session: pytest.Session,
        functions: dict[CodeType, list[FunctionType]],
        seconds: list[float],
        lines: list[set[int]],
    ) -> None:
        source = self.path.read_text(encoding="utf-8")
        whole, statements = _compiled(source, self.path), _statements(source)
        last_kill = [0] * len(lines)
        for number in range(1, sys.maxsize):
            try:
                source, line = self.connection.recv()
            except EOFError:
                return
            changed = _changed_functions(whole, _compiled(source, self.path))
            if changed is None or any(old not in functions for old, _ in changed):
                self.connection.send(ELSEWHERE)
                continue
            if not changed:  # the compiler makes the same of both
                self.connection.send(SURVIVED)
                continue
            span = _innermost(statements, line)
            order = [place for place, run in enumerate(lines) if not run.isdisjoint(span)]
            order.sort(key=lambda place: (-last_kill[place], seconds[place]))
            swaps = [(function, new) for old, new in changed for function in functions[old]]
            limits = [self.patience * seconds[place] + _SPARE for place in order]
            items = [session.items[place] for place in order]
            status, killer = _in_fork(partial(_run_changed, session, swaps, items, limits))
            if status == KILLED:
                last_kill[order[killer[0]]] = number
            self.connection.send(status)


def _in_fork(run: Callable[[Callable[[Any], None]], int]) -> tuple[int | None, list[Any]]:
    """The status that a function gives in a fork, and what it told before that."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        status = KILLED
        try:
            prepare_fork()
            status = run(writing.send)
        finally:
            os._exit(status)
    writing.close()
    told = []
    while True:
        try:
            told.append(reading.recv())
        except EOFError:
            break
    reading.close()
    return end_group(child), told


def _run_all(session: pytest.Session, path: Path, tell: Callable[[Any], None]) -> int:
    """Runs all tests, and tells of each the seconds of processor time and which lines of the file it ran."""
    end_after(_MOST)
    measured = coverage.Coverage(data_file=None, config_file=False, include=[os.path.realpath(path)])
    seconds = []
    measured.start()
    for place, item in enumerate(session.items):
        measured.switch_context(str(place))
        began = _processor_time()
        if not _passes(session, item, session.items[place + 1 : place + 2]):
            return KILLED
        seconds.append(_processor_time() - began)
    measured.stop()
    data = measured.get_data()
    lines: list[set[int]] = [set() for _ in seconds]
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in contexts:
                if context:
                    lines[int(context)].add(line)
    for taken, run in zip(seconds, lines, strict=True):
        tell((taken, run))
    return SURVIVED


def _run_changed(
    session: pytest.Session,
    swaps: list[tuple[FunctionType, CodeType]],
    items: list[pytest.Item],
    limits: list[float],
    tell: Callable[[Any], None],
) -> int:
    """Runs tests in this order with other code until one fails, and tells which."""
    for function, code in swaps:
        try:
            function.__code__ = code
        except ValueError:  # it closes over other names
            return ELSEWHERE
    for place, (item, limit) in enumerate(zip(items, limits, strict=True)):
        end_after(limit)
        try:
            passes = _passes(session, item, items[place + 1 : place + 2])
        except BaseException:  # what pytest lets through ends a run of its own as well
            passes = False
        if not passes:
            tell(place)
            return KILLED
    return SURVIVED


def _passes(session: pytest.Session, item: pytest.Item, following: list[pytest.Item]) -> bool:
    item.ihook.pytest_runtest_protocol(item=item, nextitem=following[0] if following else None)
    return not session.testsfailed


def _processor_time() -> float:
    """Seconds that this process and its children took."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _is_imported(path: Path) -> bool:
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return os.path.realpath(path) in {os.path.realpath(file) for file in files if file is not None}


def _functions_of(path: Path) -> dict[CodeType, list[FunctionType]]:
    """Code of a file, and the functions that have it."""
    # Those that are frozen are not listed.
    gc.unfreeze()
    found: dict[CodeType, list[FunctionType]] = {}
    names: dict[str, bool] = {}
    for function in gc.get_objects():
        if type(function) is FunctionType:
            name = function.__code__.co_filename
            if name not in names:
                names[name] = os.path.realpath(name) == os.path.realpath(path)
            if names[name]:
                found.setdefault(function.__code__, []).append(function)
    return found


def _compiled(source: str, path: Path) -> CodeType:
    return compile(source, str(path), "exec", dont_inherit=True)


def _changed_functions(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The outermost functions whose code differs, `None` where that of a module or a class does."""
    if _apart_from_functions(old) != _apart_from_functions(new):
        return None
    changed = []
    for before, after in zip(_nested(old), _nested(new), strict=True):
        if before.co_flags & inspect.CO_NEWLOCALS:
            if not _do_the_same(before, after):
                changed.append((before, after))
        else:
            inside = _changed_functions(before, after)
            if inside is None:
                return None
            changed += inside
    return changed


def _do_the_same(old: CodeType, new: CodeType) -> bool:
    """Whether two codes differ in nothing but the lines where they stand."""
    if _apart_from_functions(old) != _apart_from_functions(new):
        return False
    return all(map(_do_the_same, _nested(old), _nested(new)))


def _nested(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _apart_from_functions(code: CodeType) -> tuple[Any, ...]:
    """What a code does itself."""
    # By their words: 1 == 1.0 == True.
    constants = [constant.co_name if isinstance(constant, CodeType) else repr(constant) for constant in code.co_consts]
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    return code.co_code, getattr(code, "co_exceptiontable", None), constants, names, counts


def _statements(source: str) -> list[range]:
    """The lines of each statement."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    return [range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in statements]


def _innermost(statements: list[range], line: int) -> range:
    """The lines of the shortest statement around a line."""
    return min((lines for lines in statements if line in lines), key=len)
