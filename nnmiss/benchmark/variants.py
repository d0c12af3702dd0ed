"""What is compared: a method with a preset, settings and a missingness table, written on one line."""
from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError

FULL = "full"  # the name of the missing table that takes nothing away
GRAMMAR = "[NAME:] METHOD [--preset PRESET] [--missing TABLE] [key=value ...]"


@dataclass(frozen=True)
class Variant:
    """One line of the benchmark's list."""

    name: str
    method: str
    preset: str = ""
    """"": the method's own choice."""
    missing: str | None = None
    """Its own missingness table; None: those of the whole benchmark."""
    assignments: dict[str, str] = field(default_factory=dict)
    """As in `nnmiss_train --set`."""

    @property
    def slug(self) -> str:
        """The name as a part of folder names: no spaces, no double underscore (nnU-Net splits folder names there)."""
        return re.sub(r"_{2,}", "_", re.sub(r"[^\w.]+", "-", self.name)).strip("-_.")


def parse_variant(text: str) -> Variant:
    """One variant from its line, such as "alpha0: metakd --preset official alpha=0".

    Without a name the line itself is the name. Raises NnmissError for anything that is not of this form.
    """
    name, _, rest = text.partition(": ") if re.match(r"[^=]*: ", text) else ("", "", text)
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise NnmissError(f"variant {text!r} cannot be split into words ({error}); expected {GRAMMAR}") from None
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise NnmissError(f"variant {text!r} names no method, expected {GRAMMAR}")
    options: dict[str, str] = {}
    assignments: dict[str, str] = {}
    remaining = iter(words[1:])
    for word in remaining:
        if word in ("--preset", "--missing"):
            options[word[2:]] = next(remaining, "")
            if not options[word[2:]] or "=" in options[word[2:]]:
                raise NnmissError(f"variant {text!r}: {word} needs a name after it")
            continue
        key, equals, value = word.partition("=")
        if not key or not equals or key.startswith("-"):
            raise NnmissError(f"variant {text!r}: {word!r} is none of --preset, --missing and key=value ({GRAMMAR})")
        assignments[key] = value
    variant = Variant(name.strip() or " ".join(rest.split()), words[0], options.get("preset", ""),
                      options.get("missing"), assignments)
    if not variant.slug or "|" in variant.name:
        raise NnmissError(f"variant name {variant.name!r} must hold letters or digits and no '|': it names a table's row")
    return variant


def read_variants(lines: list[str], file: str | Path | None = None) -> list[Variant]:
    """The variants of the command line and of a file, in this order.

    Args:
        lines: one variant each, see `parse_variant`.
        file: text with one variant a line ('#' starts a comment), or .json: a list of such lines, or {name: line}.

    Raises:
        NnmissError: no variant at all, a malformed one, or two that would share folders.
    """
    variants = [parse_variant(line) for line in [*lines, *(_lines_of(Path(file)) if file else [])]]
    if not variants:
        raise NnmissError(f"no variants: give --runs or --runs_file with lines {GRAMMAR}")
    seen: dict[str, str] = {}
    for variant in variants:
        slug = variant.slug.lower()
        if slug in seen:
            raise NnmissError(f"variants {seen[slug]!r} and {variant.name!r} would share the folder name {slug!r}: give "
                              "them different names (NAME: METHOD ...)")
        seen[slug] = variant.name
    return variants


def _lines_of(path: Path) -> list[str]:
    if path.suffix == ".json":
        content = read_json(path, "list of variants")
        lines = [f"{name}: {line}" for name, line in content.items()] if isinstance(content, dict) else content
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise NnmissError(f"{path} must hold a list of lines, or names with lines: {GRAMMAR}")
        return lines
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NnmissError(f"cannot read the list of variants {path} ({error})") from None
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line]
