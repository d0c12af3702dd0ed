"""Any text as LaTeX that compiles with pdflatex's default encodings: special characters, accents, Greek, symbols."""
from __future__ import annotations

import unicodedata

SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
           '"': "''"}
SYMBOLS = {"EN DASH": "--", "EM DASH": "---", "LEFT SINGLE QUOTATION MARK": "`", "RIGHT SINGLE QUOTATION MARK": "'",
           "LEFT DOUBLE QUOTATION MARK": "``", "RIGHT DOUBLE QUOTATION MARK": "''", "HORIZONTAL ELLIPSIS": r"\ldots{}",
           "PLUS-MINUS SIGN": r"$\pm$", "MULTIPLICATION SIGN": r"$\times$", "MIDDLE DOT": r"$\cdot$",
           "MINUS SIGN": "$-$", "LESS-THAN OR EQUAL TO": r"$\leq$", "GREATER-THAN OR EQUAL TO": r"$\geq$",
           "RIGHTWARDS ARROW": r"$\to$", "UPWARDS ARROW": r"$\uparrow$", "DOWNWARDS ARROW": r"$\downarrow$",
           "BLACK CIRCLE": r"$\bullet$", "WHITE CIRCLE": r"$\circ$", "BULLET": r"$\bullet$", "INFINITY": r"$\infty$",
           "DEGREE SIGN": r"$^\circ$", "DAGGER": r"\dag{}", "DOUBLE DAGGER": r"\ddag{}", "SECTION SIGN": r"\S{}",
           "LATIN SMALL LETTER SHARP S": r"\ss{}", "LATIN SMALL LETTER AE": r"\ae{}", "LATIN CAPITAL LETTER AE": r"\AE{}",
           "LATIN SMALL LIGATURE OE": r"\oe{}", "LATIN CAPITAL LIGATURE OE": r"\OE{}",
           "LATIN SMALL LETTER O WITH STROKE": r"\o{}", "LATIN CAPITAL LETTER O WITH STROKE": r"\O{}",
           "LATIN SMALL LETTER L WITH STROKE": r"\l{}", "LATIN CAPITAL LETTER L WITH STROKE": r"\L{}",
           "LATIN SMALL LETTER DOTLESS I": r"\i{}"}
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
           "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}
GREEK = {"ALPHA": "A", "BETA": "B", "GAMMA": "", "DELTA": "", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "THETA": "",
         "IOTA": "I", "KAPPA": "K", "LAMDA": "", "MU": "M", "NU": "N", "XI": "", "OMICRON": "O", "PI": "", "RHO": "P",
         "SIGMA": "", "FINAL SIGMA": "", "TAU": "T", "UPSILON": "", "PHI": "", "CHI": "X", "PSI": "", "OMEGA": ""}
"""Unicode's name of a Greek letter -> the Latin capital it looks like, for which LaTeX has no command, or ""."""


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is; a character that pdflatex cannot set becomes its code, as in [U+65B9]."""
    return "".join(map(_latex_character, unicodedata.normalize("NFC", text)))


def _latex_character(character: str) -> str:
    known = SPECIAL.get(character) or SYMBOLS.get(unicodedata.name(character, ""))
    if known:
        return known
    if character.isascii():
        return character if character.isprintable() else " "
    if unicodedata.category(character) in ("Zs", "Cf"):  # other spaces; zero-width marks
        return " " if unicodedata.category(character) == "Zs" else ""
    base, *marks = unicodedata.normalize("NFKD", character)
    if not marks and base != character:  # a variant, as a subscript or a full-width letter
        return _latex_character(base)
    if marks and base.isascii() and base.isalpha() and set(marks) <= set(ACCENTS):
        for mark in marks:
            base = rf"\{ACCENTS[mark]}{{{base}}}"
        return base
    return _greek(character) or f"[U+{ord(character):04X}]"


def _greek(character: str) -> str:
    """$\\alpha$ for a Greek letter without accent, "" for anything else."""
    kind, _, letter = unicodedata.name(character, "").partition(" LETTER ")
    if kind not in ("GREEK SMALL", "GREEK CAPITAL") or letter not in GREEK:
        return ""
    command = {"LAMDA": "lambda", "FINAL SIGMA": "varsigma"}.get(letter, letter.lower())
    if kind == "GREEK SMALL":
        return "o" if letter == "OMICRON" else rf"$\{command}$"
    return GREEK[letter] or rf"$\{command.capitalize()}$"
