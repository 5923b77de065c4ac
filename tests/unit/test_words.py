"""Laws of the words: spelling, plain phrases and short sentences, and no binary file in the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from itertools import pairwise
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
TESTED = (*CODE, "tests")
MAX_WORDS = 30

# A docstring that starts with one of these words is not a verb phrase.
NOT_VERB = re.compile(
    "(A|All|An|Any|As|Each|Every|Everything|From|How|If|In|None|Nobody|Of|On|One|That|The|Those|Until|What|Whatever|Where"
    "|Whether|Which|Who|Whom|Whose)(?![\\w-])"
)

# A comment that starts with one of these words lacks the beginning of a sentence.
NOT_SENTENCE = re.compile(
    "(Not(?! (all|every|only))|Because|Whether|What|How|Who|Whose|Whom|Imported|Repeated|Recorded|Inherited|Validated"
    "|Emptied|Otherwise|Also)(?![\\w-])"
)
COMMENT = re.compile("\\s*(?:#|--) (.*)")
COMMENTED = sorted(
    path
    for folder in (*CODE, "tests", "systemd", "packaging")
    for path in (PROJECT / folder).rglob("*")
    if path.suffix in {".py", ".sql", ".service", ".socket", ".slice", ".conf"}
)

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
    r"lest": "so that … not",
    r"(?<!there )is no (?!longer|more )\w+": "is not a",
    r"(nobody|nothing|none|anything|anybody) but": "only",
    r"by (itself|themselves)": "automatically; name the actor",
    r"beats?": "overrides",
    r"under way": "running",
    r"in (nobody|anybody|everybody)'s way": "blocks nobody",
    r"all the same": "still",
    r"ever more": "increasingly",
    r"go(es)? on": "continues",
    r"(is|are) well(?! below|-)": "healthy",
    r"the very": "exactly this",
    r"unsaid|unheard": "silently, without a report",
    r"pass(es|ed)? over": "skips",
    r"whose (the|a|an)": "the owner of",
    r"(nobody|everybody|somebody)'s": "of all users, of another user",
    r"(is|are) meant to": "should",
    r"likeliest|dearest": "most likely, most expensive",
    r"knows no": "is independent of",
    r"(?<=; )(None|False|True) (if|unless|for|without)": "or None if, return False if",
    r"(?<=[.;] )\w+Error (if|for|unless|when)": "Raises …Error if",
    r"(?<=; )raise \w+ (if|unless)": "Raises … if",
    r"unasked": "without a call, automatically",
}
# The boundary stands before the alternatives, so that they are tried only there.
PHRASE = re.compile(
    rf"\b(?:{'|'.join(f'(?P<p{number}>{phrase})' for number, phrase in enumerate(PHRASES))})\b", re.IGNORECASE
)


def shown() -> list[Path]:
    """Return the files that people read: documents, man pages, configuration, units, the packages' scripts."""
    return sorted({path for pattern in SHOWN for path in PROJECT.glob(pattern) if path.is_file()})


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings, docstrings and comments of a module; comments on consecutive lines are one text."""
    comment: list[str] = []
    first = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            line = token.start[0]
            if token.type == tokenize.COMMENT:
                first = first if comment else line
                comment.append(token.string.lstrip("# "))
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                if comment:
                    yield first, " ".join(comment)
                    comment = []
                # Names in code keep their spelling.
                if token.type == tokenize.STRING and " " in token.string:
                    yield line, re.sub(r"`[^`\n]*`", "", token.string)


def sql_comments(path: Path) -> str:
    return " ".join(re.findall(r"^ *-- (.*)$", path.read_text(), re.MULTILINE))


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
    for path in sorted(path for folder in TESTED for path in (PROJECT / folder).rglob("*.py")):
        if path != Path(__file__).resolve():
            for line, text in texts(path):
                found += [f"{path.relative_to(PROJECT)}:{line}: {fault}" for fault in faults(text)]
    for path in sorted(path for folder in CODE for path in (PROJECT / folder).rglob("*.sql")):
        found += [f"{path.relative_to(PROJECT)}: {fault}" for fault in faults(sql_comments(path))]
    assert not found, "\n".join(found)


def test_comments_do_not_begin_in_the_middle_of_a_sentence() -> None:
    found = []
    for path in COMMENTED:
        lines = path.read_text().splitlines()
        for number, (before, line) in enumerate(pairwise(["", *lines]), 1):
            comment = COMMENT.match(line)
            if comment and NOT_SENTENCE.match(comment[1]) and not COMMENT.match(before):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {comment[1]}")
    assert not found, "\n".join(found)


def test_docstrings_of_functions_start_with_a_verb() -> None:
    found = []
    for path in sorted(path for folder in CODE for path in (PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if NOT_VERB.match(docstring):
                    found.append(f"{path.relative_to(PROJECT)}:{node.lineno}: {docstring.splitlines()[0]}")
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
