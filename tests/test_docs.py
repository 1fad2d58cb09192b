"""README and docs: Python runs as written, commands exist, links lead somewhere, sentences are short."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch

from tidesplit import __main__ as program
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.profiling.points import profile as profiles

ROOT = Path(program.__file__).parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
LOGS = sorted((ROOT / "docs" / "log").glob("*.md"))
PAGES = [README, *DOCS]
EVERY_PAGE = [*PAGES, *LOGS, ROOT / "CHANGELOG.md"]

BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
REASONS = ("hardware", "long", "needs", "network", "two terminals", "two more terminals", "five terminals", "it writes")
NOT_CODE = {"text", "ini", "mermaid", "yaml"}
FOREIGN = {"iperf3", "scp", "rsync", "sudo", "rpicam-vid", "tensorboard"}
FOLDERS = (
    "agents", "benchmarks", "compression", "data", "deploy", "docs", "envs", "examples", "models", "prepare",
    "profiling", "runtime", "tests",
)  # fmt: skip
LONGEST_README = 150  # lines
LONGEST_SENTENCE = {README: 30}  # words; 35 elsewhere
STIFF = ("alone", "beside", "anew", "told")  # words that take a second reading


class Block(NamedTuple):
    """A fenced block: where it begins, its language and text, and the reason why it is not run (or nothing)."""

    page: Path
    line: int
    language: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start("text")), m["language"], m["text"], m["why"] or "")
        for m in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def commands(block: Block) -> list[list[str]]:
    """The words of every command, without comments; a pipe or && begins another one."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        parts = " ".join("\n" if word in ("|", "&&") else shlex.quote(word) for word in words).split("\n")
        found += [shlex.split(part) for part in parts if part.strip()]
    return found


COMMANDS = [(str(block), words) for block in SHELL for words in commands(block)]


def prose(page: Path) -> str:
    """The page without code, comments, and the targets of links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))


def sentences(page: Path) -> Iterator[str]:
    """Sentences of paragraphs, list items and table cells."""
    begins = r"\n\s*\n|\n(?=\s*(?:[-|#]|\d+\. ))"
    for part in re.split(begins, prose(page)):
        for cell in part.split("|") if part.lstrip().startswith("|") else [part]:
            yield from re.split(r"(?<=[.!?])[*\"')]*\s+(?=[^a-z])", " ".join(cell.split()))


def words_of(sentence: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained bundle at out/lte, which decides as a trained one does."""
    folder = tmp_path_factory.mktemp("reader")
    scenario, small = scenario_from(trace="lte"), training.PpoConfig(lanes=4, rollout=8, batch=32)
    model = training.new_model(scenario, training.Recipe(ppo=small))
    write_bundle(
        folder / "out" / "lte", training.policy_of(model), profile=profiles.load("efficientnet_lite0"),
        table=scenario.table, machines=("raspberry-pi-4", "x86-2core"), demand=scenario.demands[0],
        config={"trace": "lte.csv"},
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_has_a_known_language_and_a_known_reason_not_to_run(block: Block) -> None:
    assert block.language in {"python", "sh", *NOT_CODE}
    assert not block.why or block.why.startswith(REASONS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_fenced(page: Path) -> None:
    outside = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert "```" not in outside
    assert not re.search(r"^(?: {4}|\t)", outside, re.M), "an indented block, which no test would see"
    assert "not run:" not in outside, "a reason without a block below it"


@pytest.mark.parametrize("block", [b for b in PYTHON if not b.why], ids=str)
def test_python_runs_as_written(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these nets are small: more threads wait for each other on a busy machine
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    torch.set_num_threads(threads)


def test_the_readme_has_python_for_a_start() -> None:
    (block,) = [b for b in PYTHON if b.page == README]
    assert not block.why
    assert sum(bool(line.strip()) for line in block.text.splitlines()) <= 10


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w}-{' '.join(c[:3])}" for w, c in COMMANDS])
def test_commands_and_their_options_exist(where: str, words: list[str]) -> None:
    known = explained(words)
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(?<![\w-]){word.partition('=')[0]}(?![\w-])", known), f"{where}: no option {word}"


def explained(words: list[str]) -> str:
    """The text that documents a command's options; for programs that are not ours, the command itself."""
    match words:
        case ["tidesplit" | "/opt/tidesplit/venv/bin/tidesplit", *rest]:
            name, rest = program.command_of(rest)
            return help_of(program.COMMANDS[name], *rest[:1])
        case ["python", "-m", "pytest"]:
            return ""
        case ["python", "train.py" | "evaluate.py" as script, *_]:
            return help_of(program.COMMANDS[Path(script).stem])
        case ["python", script, *rest]:
            return help_of(script, *rest[:1])
        case ["pip", "install", *rest]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert all(
                set(named.strip("[]").split(",")) <= set(extras) for named in re.findall(r"\[.*\]", str(rest[-1]))
            )
            return ""
    assert words[0] in FOREIGN, f"who is {words[0]}?"
    return " ".join(words)


@cache
def help_of(what: str, verb: str = "-") -> str:
    """What ``--help`` prints, of a verb's own where the program has that verb. ``what``: a module or a script."""
    asked = "" if verb.startswith("-") or verb not in re.findall(r"[\w-]+", " ".join(verbs(what))) else verb
    return printed(what, *([asked] if asked else []), "--help")


def verbs(what: str) -> list[str]:
    return re.findall(r"^    ([a-z][\w-]+)(?: |$)", printed(what, "--help"), re.M)


@cache
def printed(what: str, *arguments: str) -> str:
    """What a program prints for these arguments, run in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as left:
        run(what, *arguments)
    assert left.value.code == 0
    return out.getvalue()


def run(what: str, *arguments: str) -> None:
    """Run a module's ``main`` or a script of the repository."""
    if not what.endswith(".py"):
        importlib.import_module(what).main(list(arguments))
        return
    path = str(ROOT / what)
    with mock.patch.object(sys, "argv", [path, *arguments]), mock.patch.object(sys, "path", [*sys.path]):
        runpy.run_path(path, run_name="__main__")


@pytest.mark.parametrize("block", [b for b in SHELL if not b.why], ids=str)
def test_quick_commands_run(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name, *words in commands(block):
        assert name == "tidesplit", "only tidesplit's own commands run here: give the block a reason not to run"
        assert program.main(words) == 0


def test_inline_options_exist() -> None:
    known = " ".join(printed(module, "--help") for module in program.COMMANDS.values())
    known += printed("benchmarks/emulated.py", "--help")
    known += " ".join(printed(program.COMMANDS["profile"], v, "--help") for v in ("accuracy", "chain"))
    for page in PAGES:
        for option in re.findall(r"`[^`\n]*?(--[a-z][\w-]*)[^`\n]*`", page.read_text(encoding="utf-8")):
            assert re.search(rf"{option}(?![\w-])", known), f"{page.name}: {option}"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            assert (page.parent / file).exists(), target
            assert not anchor or anchor in anchors(page.parent / file if file else page), target
    if page in PAGES:
        for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]*)`", text):
            assert list(ROOT.glob(path)), path


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    linked = {README}
    for _ in range(3):
        for page in list(linked):
            targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
            linked |= {(page.parent / target).resolve() for target in targets if not target.startswith("http")}
    assert {*DOCS, *LOGS} <= linked


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short_and_plain(page: Path) -> None:
    most = LONGEST_SENTENCE.get(page, 35)
    assert [s for s in sentences(page) if words_of(s) > most] == []
    assert [s for s in sentences(page) if re.search(rf"\b({'|'.join(STIFF)})\b", s)] == []


def test_known_answers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\nOne `a b` [two](x.md) three. Four\nfive!\n\n- six (e.g. seven)\n- eight\n\n| nine | ten. Eleven |\n"
        "\n<!-- not run: long -->\n```sh\ntidesplit a --b \\\n    c && d | e  # f\n```\n",
        encoding="utf-8",
    )
    assert [words_of(s) for s in sentences(page)] == [1, 4, 2, 3, 1, 0, 1, 1, 1, 0, 0]
    (block,) = blocks(page)
    assert (block.line, block.language, block.why) == (12, "sh", "long")
    assert commands(block) == [["tidesplit", "a", "--b", "c"], ["d"], ["e"]]
    assert anchors(page) == {"title"}


def test_the_pictures_trace_is_fast_then_gone_then_unchanged() -> None:
    drawn = runpy.run_path(str(ROOT / "benchmarks" / "pictures.py"))
    (lte,) = drawn["load_traces"]("lte")
    trace = drawn["with_outage"](lte)
    assert trace.duration_s == pytest.approx(20.0)
    assert trace.slice(0.0, 8.0).mean_bps == pytest.approx(8 * lte.slice(0.0, 8.0).mean_bps)
    assert trace.slice(8.0, 13.0).mean_bps == 0.0
    assert trace.slice(13.0, 20.0).mean_bps == pytest.approx(lte.slice(13.0, 20.0).mean_bps)
    assert drawn["running"](np.array([1.0, 0.0, 0.0, 1.0]), 2).tolist() == [1.0, 0.5, 0.0, 0.5]
