"""Each tidy rule on a planted sample that breaks it and on one that keeps it: a rule that cannot fail is worth nothing."""

from collections.abc import Callable, Iterable

import pytest

from tidy import rules_calls, rules_house, rules_project, rules_shape
from tidy.source import Source, Violation

Rule = Callable[[Source], Iterable[Violation]]
MODULE = '"""What it is; it does not do more."""\n'


def broken(rule: Rule, text: str, path: str = "freehold/room/sample.py") -> list[str]:
    return [violation.subject for violation in rule(Source(path, text))]


def long_function(lines: int) -> str:
    return 'def f():\n    """Return.\n\n    More words, not counted.\n    """\n' + "    x = 1\n" * lines


def test_a_function_body_of_61_lines_is_too_long_and_its_docstring_is_not_counted() -> None:
    assert broken(rules_shape.function_lines, long_function(61)) == ["f"]
    assert broken(rules_shape.function_lines, long_function(60)) == []


def test_a_module_of_501_lines_is_too_long() -> None:
    assert broken(rules_shape.module_lines, "x = 1\n" * 501) == ["freehold.room.sample"]
    assert broken(rules_shape.module_lines, "x = 1\n" * 500) == []


@pytest.mark.parametrize(
    ("signature", "faulty"),
    [
        ("def f(a, b, c): ...", False),
        ("def f(a, b, c, d): ...", True),
        ("def f(a, b, *, c, d, e): ...", False),
        ("def f(a, b, *, c, d, e, g): ...", True),
        ("def f(a, b, c, *, d): ...", True),
        ("def _f(a, b, c, d, *, e): ...", False),
        ("def _f(a, b, c, d, e): ...", True),
        ("class A:\n    def __init__(self, a, b, c, d): ...", True),
        ("class A:\n    def m(self, a, b, c): ...", False),
        ("async def f(a, b, c, d): ...", True),
        ("import click\n@click.option('--a')\ndef f(a, b, c, d, e, g): ...", False),
    ],
)
def test_parameters(signature: str, *, faulty: bool) -> None:
    assert bool(broken(rules_shape.parameters, signature)) is faulty


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("LIMIT_S = 5\n", True),
        ("_LIMIT_S: float = -5.0\n", True),
        ("SIZES = (1, 2 * 1024)\n", True),
        ('LIMIT_S = 5\n"""Source: the kernel."""\n', False),
        ("# Source: the kernel.\nLIMIT_S = 5\n", False),
        ("LIMIT_S = 5  # Source: the kernel.\n", False),
        ("# Source: the kernel.\nFIRST = 1\nSECOND = 2\n", False),
        ("# Source: the kernel.\nFIRST = 1\n\nSECOND = 2\n", True),
        ("SECOND = 2\n# Source of the next.\nNEXT = 1\n", True),
        ("NAME = 'x'\nDEBUG = True\nlower = 5\n", False),
    ],
)
def test_constants(text: str, *, faulty: bool) -> None:
    assert bool(broken(rules_shape.constants, text)) is faulty


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("", ["freehold.room.sample"]),
        ('"""What it is."""\n', ["freehold.room.sample"]),
        (MODULE + "def f(): ...\n", ["f"]),
        (MODULE + 'class A:\n    """An A."""\n    def m(self): ...\n', ["m"]),
        (MODULE + 'class A:\n    """An A."""\n    def _m(self): ...\ndef _f(): ...\n', []),
    ],
)
def test_docstrings(text: str, subjects: list[str]) -> None:
    assert broken(rules_shape.docstrings, text) == subjects


@pytest.mark.parametrize(
    ("path", "text", "subjects"),
    [
        ("freehold/utils/x.py", "", ["utils"]),
        ("freehold/room/helpers.py", "", ["helpers"]),
        ("freehold/room/_common.py", "", ["_common"]),
        ("freehold/room/a.py", "class ReplicaManager: ...", ["ReplicaManager"]),
        ("freehold/room/commons_law.py", "class Managed: ...", []),
    ],
)
def test_empty_names(path: str, text: str, subjects: list[str]) -> None:
    assert broken(rules_shape.empty_names, text, path) == subjects


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("import time\ntime.sleep(1)", "time.sleep"),
        ("import time as t\nt.time()", "time.time"),
        ("from time import monotonic\nmonotonic()", "time.monotonic"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("print('x')", "builtins.print"),
        ("import os\nos.system('x')", "os.system"),
        ("import pickle\npickle.loads(b'')", "pickle.loads"),
        ("import yaml\nyaml.load('')", "yaml.load"),
        ("import random\nrandom.choice([1])", "random.choice"),
        ("import logging\nlogging.getLogger('x')", "logging.getLogger"),
        ("import requests\nrequests.get('x')", "requests.get"),
        ("import urllib.request\nurllib.request.urlopen('x')", "urllib.request.urlopen"),
        ("import asyncio\nasyncio.get_event_loop()", "asyncio.get_event_loop"),
        ("from unittest import mock\nmock.Mock()", "unittest.mock.Mock"),
    ],
)
def test_banned_names_in_the_package(text: str, subject: str) -> None:
    assert broken(rules_calls.banned_in_package, text) == [subject]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("freehold/core/clock.py", "import time\ntime.time()"),
        ("freehold/fleet/processes/minder.py", "import time\ntime.sleep(1)"),
        ("freehold/cli/serve/status.py", "print('x')"),
        ("freehold/room/a.py", "import random\nrng: random.Random\nrng.choice([1])"),
        ("freehold/room/a.py", "import httpx2\nhttpx2.get('x')"),
        ("freehold/room/a.py", "time = 3\nprinted = time"),
    ],
)
def test_allowed_names_in_the_package(path: str, text: str) -> None:
    assert broken(rules_calls.banned_in_package, text, path) == []


@pytest.mark.parametrize(
    ("rule", "text", "count"),
    [
        (rules_calls.banned_in_tests, "import time\ntime.sleep(0.1)", 1),
        (rules_calls.banned_in_tests, "from unittest.mock import Mock\nMock()", 1),
        (rules_calls.banned_in_tests, "import time\ntime.monotonic()", 0),
        (rules_calls.long_sleeps, "import asyncio\nasyncio.sleep(1)", 1),
        (rules_calls.long_sleeps, "import asyncio\nasyncio.sleep(0.5)\nasyncio.sleep(x)", 0),
    ],
)
def test_waiting_in_tests(rule: Rule, text: str, count: int) -> None:
    assert len(broken(rule, text, "tests/unit/test_x.py")) == count


def test_no_shell() -> None:
    assert broken(rules_calls.shell, "run('x', shell=True)") == ["shell=True"]
    assert broken(rules_calls.shell, "run(['x'], shell=False)") == []


@pytest.mark.parametrize(
    ("path", "handler", "faulty"),
    [
        ("freehold/room/a.py", "except Exception: pass", True),
        ("freehold/room/a.py", "except: pass", True),
        ("freehold/room/a.py", "except (OSError, BaseException): pass", True),
        ("freehold/room/a.py", "except OSError: pass", False),
        ("freehold/room/a.py", "except BaseException:\n    clear()\n    raise", False),
        ("freehold/gateway/run.py", "except Exception: pass", True),
        ("freehold/gateway/run.py", "except Exception: log.exception('bug')", True),
        ("freehold/gateway/run.py", "except Exception:\n    log.exception('bug')\n    bugs.add('x')", False),
        (
            "freehold/gateway/run.py",
            "except Exception: _note()\ndef _note():\n    bugs += 1\n    log.error('bug')",
            False,
        ),
        ("freehold/gateway/run.py", "except Exception: _note()\ndef _note():\n    log.error('bug')", True),
        ("freehold/cli/main.py", "except Exception: _show_bug()", False),
        ("freehold/cli/main.py", "except Exception: return_one()", True),
    ],
)
def test_broad_excepts(path: str, handler: str, *, faulty: bool) -> None:
    assert bool(broken(rules_calls.broad_excepts, f"try:\n    f()\n{handler}\n", path)) is faulty


def test_suppressing_everything_is_a_broad_except() -> None:
    text = "import contextlib\nwith contextlib.suppress({}): f()"
    assert broken(rules_calls.broad_excepts, text.format("Exception")) == ["suppress"]
    assert broken(rules_calls.broad_excepts, text.format("OSError")) == []


def test_machine_paths_and_left_overs() -> None:
    assert list(rules_project.machine_paths("a.md", "see /" + "root/x\n"))
    assert not list(rules_project.machine_paths("a.md", "the root/x of /var/lib\n"))
    assert list(rules_project.left_overs("a.md", "TO" + "DO: later\n"))
    assert not list(rules_project.left_overs("a.md", "nothing to do\n"))


def test_locks_have_hashes_and_no_address() -> None:
    assert list(rules_project.lock_addresses("r.txt", "--index-url https://example.org/simple\n"))
    assert list(rules_project.lock_hashes("r.txt", "a==1 \\\n    --hash=sha256:0\nb==2\n    # via a\n"))
    assert not list(rules_project.lock_hashes("r.txt", "# head\na==1 \\\n    --hash=sha256:0\n    # via b\n"))


PROJECT = """
[build-system]
requires = ["setuptools>=77"]
[project]
dependencies = ["a>=1", "b>=2; sys_platform != 'win32'"]
[project.optional-dependencies]
hub = ["h>=1"]
"""


def test_requirements_agree_with_pyproject() -> None:
    same = {"run": '# why\na>=1\nb>=2; sys_platform != "win32"\nsetuptools>=77\nwheel\n', "hub": "h>=1\n"}
    assert not list(rules_project.requirements_agree(PROJECT, same))
    missing = {**same, "run": same["run"].replace("a>=1\n", "a>=2\n")}
    assert sorted(row.subject for row in rules_project.requirements_agree(PROJECT, missing)) == [
        "a>=1",
        "a>=2",
    ]
    assert [row.subject for row in rules_project.requirements_agree(PROJECT, {"run": same["run"]})] == [
        "h>=1"
    ]


def test_locks_agree_with_each_other() -> None:
    assert not list(
        rules_project.locks_agree({"run": "a==1 \\\n", "dev": "a==1 \\\nb==2\n", "bench": "c==1\n"})
    )
    assert list(rules_project.locks_agree({"run": "a==1 \\\n", "dev": "b==2\n"}))
    assert list(rules_project.locks_agree({"run": "a==1 \\\n", "dev": "a==1\n", "hub": "a==2\n"}))


def test_decisions_are_numbered_without_a_gap() -> None:
    good = {"0001-first.md": "# 1. First\n\nDate: 2026-11-23. Status: accepted.\n"}
    assert not list(rules_project.decisions(good, good))
    gap = {**good, "0003-third.md": "# 3. Third\n\nDate: 2026-11-23. Status: accepted.\n"}
    assert list(rules_project.decisions(gap, gap))
    undated = {"0001-first.md": "# 1. First\n"}
    assert list(rules_project.decisions(undated, undated))


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("# Changelog\n\n## [Unreleased]\n\n### Added\n- x\n\n## [0.1.0] - 2026-11-23\n", False),
        ("# Changelog\n\n## [0.1.0] - 2026-11-23\n", True),
        ("# Changes\n\n## [Unreleased]\n", True),
        ("# Changelog\n\n## [Unreleased]\n\n### News\n", True),
        ("# Changelog\n\n## [Unreleased]\n\n## 0.1.0\n", True),
    ],
)
def test_changelog(text: str, *, faulty: bool) -> None:
    assert bool(list(rules_project.changelog(text))) is faulty


def test_architecture_names_the_rooms_that_exist_and_no_other() -> None:
    text = "`freehold/core/` and `freehold/spec/`"
    assert not list(rules_project.architecture(text, {"core", "spec"}))
    assert [row.subject for row in rules_project.architecture(text, {"core"})] == ["freehold/spec/"]
    assert [row.subject for row in rules_project.architecture(text, {"core", "spec", "cli"})] == [
        "freehold/cli/"
    ]


def test_the_pure_list_is_whole() -> None:
    head = '[[tool.importlinter.contracts]]\nname = "Pure modules"\nsource_modules = {}\n'
    whole = head.format(list(rules_project.PURE)).replace("'", '"')
    assert not list(rules_project.pure_list(whole, set()))
    assert [row.subject for row in rules_project.pure_list(whole, {"freehold.sizing"})] == ["freehold.sizing"]
    assert len(list(rules_project.pure_list(head.format([]), set()))) == len(rules_project.PURE)


def test_dead_modules() -> None:
    alive = Source(
        "freehold/room/alive.py", "from freehold.room import used\nLAZY = 'x'\nimport_module(\"lazy\")"
    )
    files = [Source(f"freehold/room/{name}.py", "") for name in ("used", "lazy", "dead")]
    tested = Source("freehold/testing/fake.py", "")
    test = Source("tests/unit/test_x.py", "import freehold.testing.fake\nimport freehold.room.dead\n")
    pyproject = 'freehold = "freehold.room.alive:main"'
    dead = rules_project.dead_modules([alive, *files, tested], [test], pyproject)
    assert [row.subject for row in dead] == ["freehold.room.dead"]
    assert "freehold.testing.fake" in {
        row.subject for row in rules_project.dead_modules([alive, tested], [], pyproject)
    }


def house(**texts: str) -> list[Source]:
    return [Source(f"freehold/{name.replace('__', '/')}.py", text) for name, text in texts.items()]


def subjects(found: Iterable[Violation]) -> list[str]:
    return [violation.subject for violation in found]


def test_a_circle_is_found_also_where_it_is_for_types_alone() -> None:
    below = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from freehold.room.top import Top\n"
    ring = house(room__top="from freehold.room import below\n", room__below=below)
    assert len(subjects(rules_house.circles(ring))) == 1
    assert not subjects(rules_house.circles(house(room__top="import freehold.room.below", room__below="")))


def test_two_circles_are_two() -> None:
    pairs = house(a__x="import freehold.a.y", a__y="import freehold.a.x")
    pairs += house(b__x="import freehold.b.y", b__y="import freehold.b.x")
    assert len(subjects(rules_house.circles(pairs))) == 2


def test_a_folder_of_21_modules_is_full_and_registries_are_never() -> None:
    full = house(**{f"room__m{number}": "" for number in range(21)})
    assert subjects(rules_house.full_folders(full)) == ["freehold/room"]
    assert not subjects(rules_house.full_folders(full[:20]))
    assert not subjects(
        rules_house.full_folders(house(**{f"cost__lines__m{number}": "" for number in range(21)}))
    )


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("limit", "limits", True),
        ("process", "processes", True),
        ("watcher", "watching", True),
        ("reload", "reloading", True),
        ("plan", "planning", True),
        ("restart", "start", True),
        ("load", "upload", True),
        ("line", "lines", True),
        ("disk_reader", "disk_child", False),
        ("key", "key_flags", False),
        ("url", "curl_call", False),
        ("limits", "shared_limits", False),
    ],
)
def test_near_names(first: str, second: str, *, near: bool) -> None:
    assert (
        bool(subjects(rules_house.near_names(house(**{f"room__{first}": "", f"room__{second}": ""})))) is near
    )


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("class A: ...\nclass B(A): ...\n", []),
        ("class A: ...\nclass B(A): ...\nclass C(B): ...\n", ["C"]),
        ("class A:\n    def f(self):\n        raise NotImplementedError\n", ["A"]),
    ],
)
def test_deep_inheritance(text: str, faulty: list[str]) -> None:
    assert subjects(rules_house.deep_inheritance(house(gateway__x=text))) == faulty
    assert not subjects(rules_house.deep_inheritance(house(fleet__x=text)))
