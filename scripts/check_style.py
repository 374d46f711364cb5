"""Check wording and line lengths: ``python scripts/check_style.py [FILE ...]``.

Without arguments, check the documentation, change fragments and Python sources of this repository.
Docstrings, comments and messages are searched for phrases that have a plainer equivalent.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    "README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "changes/*.rst",
    "docs/**/*.rst", "docs/**/*.py", "docs/notebooks/*.ipynb",
    "soss_background/**/*.py", "soss_background/**/*.html", "soss_background/**/*.yaml",
    "benchmarks/*.py", "scripts/*.py", "tests/*.py",
)  # fmt: skip
GENERATED = ("docs/_build", "docs/api")  # made by Sphinx
PROSE = (".md", ".rst")
MAX_COLUMNS = 99

# Phrases, as regular expressions, and what to write instead. A space matches any white space.
PHRASES = {
    r"tell|tells|telling|told": "list, record, describe, distinguish or say",
    r"(?:take|takes|taking|taken|took) out": "subtract, remove",
    r"pictures?": "figure",
    r"letters": "characters",
    r"house|houses|rooms?": "package, module",
    r"but for": "except",
    r"another (?:\w+ )?than": "a different ... than, differs from",
    r"all that (?:is|can be)": "everything, or name what it is",
    r"what (?:fails|stands for|lives|can be had)": "name what it is",
    r"(?:can|cannot|could|to) be had": "available",
    r"(?:is|are|be) taken for": "interpreted as",
    r"parts of 1": "fractions",
    r"per cent": "%",
    r"foretell|foretells|foretold": "predict",
    r"mend|mends|mending": "fix, repair",
    r"(?:made|created|built|written|run) anew": "again",
    r"(?:beside|besides) (?:its|the|their) products": "in the folder of the products",
    r"whence|wherein|thereof|therein": "name the object",
}  # fmt: skip

# A phrase can go on in the next line of a comment or in the next piece of a string.
_GAP = r'(?:[\s#"]+(?:f")?)'
_PATTERNS = {
    re.compile(rf"\b(?:{phrase.replace(' ', _GAP)})\b", re.IGNORECASE): advice
    for phrase, advice in PHRASES.items()
}


def find_faults(text, *, is_prose=False):
    """Find banned phrases and, in prose, lines that are too long.

    Parameters
    ----------
    text : str
        Content of a file.
    is_prose : bool, optional
        Whether lines are limited; rows of Markdown tables and unbreakable lines are exempt.

    Returns
    -------
    list of (int, str)
        Line number and description of each fault.
    """
    faults = []
    for pattern, advice in _PATTERNS.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            phrase = " ".join(match[0].split())
            faults.append((line, f'"{phrase}": better {advice}'))
    if is_prose:
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > MAX_COLUMNS and not line.startswith("|") and " " in line.strip():
                faults.append((number, f"{len(line)} columns, at most {MAX_COLUMNS} are allowed"))
    return sorted(faults)


def list_sources():
    """List the files of this repository that are checked."""
    generated = [ROOT / folder for folder in GENERATED]
    paths = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})
    exempt = {Path(__file__).resolve(), ROOT / "tests" / "test_style.py"}  # they quote the phrases
    return [
        path
        for path in paths
        if path not in exempt and not any(path.is_relative_to(folder) for folder in generated)
    ]


def main(arguments):
    """Print the faults of files and return their number."""
    paths = [Path(argument).resolve() for argument in arguments] or list_sources()
    n_faults = 0
    for path in paths:
        is_prose = path.suffix in PROSE and "changes" not in path.parts
        for line, fault in find_faults(path.read_text(), is_prose=is_prose):
            print(f"{path}:{line}: {fault}")
            n_faults += 1
    return n_faults


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
