"""Laws of the words: spelling, plain phrases and short sentences, and no binary file in the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SHOWN = (
    "*.md",
    "docs/**/*.md",
    "client/*.md",
    "packaging/man/*",
    "packaging/etc/*",
    "systemd/**/*.*",
    "debian/dr*",
    "Makefile",
)
CODE = ("draupnir", "draupnir_helper", "client/draupnir_client")
MAX_WORDS = 30

# Phrases that must not return, with what to write instead.
PHRASES = {
    r"whoever": "name the actor: a user, a client, an admin",
    r"is not one's to do": "actions you may not perform",
    r"who one is": "current identity",
    r"(is|until it is) content": "healthy; fix the errors that it reports",
    r"for ever": "without limit, indefinitely",
    r"anew": "again",
    r"meanwhile": "until then, while",
    r"process 1": "PID 1",
    r"taken back": "rolled back",
    r"(made )?to order": "cold start, created on demand",
    r"(takes?|taken) up": "load, reload",
    r"take the comment signs off": "uncomment",
    r"makers keep no more": "end of life",
    r"mend(s|ed|ing)?": "fix, repair, reconcile",
    r"nobody foresaw": "unexpected error",
    r"(has|have|had) left": "was revoked, offboarding",
    r"in the house": "in the repository",
    r"(is|are) told": "reports, returns",
    r"there (is|are) no such|has no such": "does not exist",
    r"knock(s|ed|ing)?": "wake, start on connect",
    r"so much": "limited to",
    r"one's own": "your own, its own",
    r"whose (they are|it is)": "the owner",
    r"worth nothing": "invalid, refused",
    r"as things stand": "in the current state",
    r"how it stands": "its status",
    r"lets? (\w+ )?in": "accept, allow",
    r"(says?|said) otherwise": "unless configured",
    r"cut short": "interrupted",
    r"no longer there|not there any more": "does not exist",
    r"put right": "fix, correct",
    r"cannot be had": "is unavailable",
    r"makes? do with": "accepts",
}
PHRASE = re.compile(
    "|".join(rf"(?P<p{number}>\b(?:{phrase})\b)" for number, phrase in enumerate(PHRASES)), re.IGNORECASE
)


def shown() -> list[Path]:
    """Return the files that people read: documents, man pages, configuration, units, the packages' scripts."""
    return sorted({path for pattern in SHOWN for path in PROJECT.glob(pattern) if path.is_file()})


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Return the string literals of a module, with docstrings only for the client, where they are the help."""
    tree = ast.parse(path.read_text())
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if node not in docstrings or "draupnir_client" in path.parts:
            yield node.lineno, node.value


def faults(text: str) -> list[str]:
    found = []
    # Over line ends and comment signs, which is where a phrase hides.
    for match in PHRASE.finditer(re.sub(r"\s*\n\s*#?\s*", " ", text)):
        assert match.lastgroup is not None
        found.append(f"{match.group()!r}: write {list(PHRASES.values())[int(match.lastgroup[1:])]}")
    return found


def test_the_phrases_of_the_old_idiom_do_not_return() -> None:
    found = []
    for path in shown():
        # Names in code keep their spelling.
        text = re.sub(r"`[^`\n]*`", "", path.read_text()) if path.suffix == ".md" else path.read_text()
        found += [f"{path.relative_to(PROJECT)}: {fault}" for fault in faults(text)]
    for folder in CODE:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for line, text in texts(path):
                found += [f"{path.relative_to(PROJECT)}:{line}: {fault}" for fault in faults(text)]
    assert not found, "\n".join(found)


def sentences(text: str) -> Iterator[str]:
    """Return the sentences of a document, without code, tables and headings. An item of a list is a sentence."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *(\||#|>|!?<!--).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in re.split(r"\n\s*\n|\n *(?:[-*]|\d+\.) ", text):
        yield from re.split(r"(?<=[.!?:])[)*\"]*\s+", " ".join(paragraph.split()))


@pytest.mark.parametrize("path", [path for path in shown() if path.suffix == ".md"], ids=lambda path: path.name)
def test_the_sentences_of_documents_are_short(path: Path) -> None:
    long = [each for each in sentences(path.read_text()) if len(re.findall(r"\w[\w.'/-]*", each)) > MAX_WORDS]
    assert not long, "\n".join(long)


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("path", [path for path in shown() if path.suffix == ".md"], ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", [path for path in shown() if path.suffix == ".md"], ids=lambda path: path.name)
def test_modules_that_documents_name_exist(path: Path) -> None:
    names = re.findall(r"`([\w.-][\w./-]*\.(?:py|sql))`", path.read_text())
    places = [PROJECT / folder for folder in (*CODE, "tests")]
    found = {name for name in names if (PROJECT / name).exists() or any(any(place.rglob(name)) for place in places)}
    assert set(names) == found


def test_the_spelling_is_right() -> None:
    tool = Path(sys.executable).with_name("codespell")
    if not tool.exists():
        pytest.skip("codespell is not installed beside this Python; make check installs it")
    done = subprocess.run([tool, *tracked()], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_binary_file_is_tracked() -> None:
    binary = [name for name in tracked() if b"\0" in (PROJECT / name).read_bytes()]
    assert binary == []


def test_no_link_is_tracked() -> None:
    assert [name for name in tracked() if (PROJECT / name).is_symlink()] == []


def tracked() -> list[str]:
    """Return what git tracks; skip where there is no git, as in the test machine."""
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        pytest.skip("not a checkout with git")
    done = subprocess.run([git, "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("git cannot read this checkout")
    return [name for name in done.stdout.split("\0") if name and (PROJECT / name).exists()]
