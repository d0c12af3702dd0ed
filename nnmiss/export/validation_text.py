"""A validation report as text: rule by rule, what came, what was expected, what to do, and which cases."""
from __future__ import annotations

from itertools import groupby

from nnmiss.export.rules import RULES, Finding
from nnmiss.export.validation import Report

MAX_CASES = 20


def report_text(report: Report) -> str:
    """The report for a terminal. Equal findings stand in one line with their cases, at most `MAX_CASES` by name."""
    lines = [f"{report.path}: {report.challenge.title}, {report.kind} with {_counted(len(report.cases), 'case')}"]
    for (rule, severity), group in groupby(report.findings, key=lambda f: (f.rule, f.severity)):
        lines.append(f"\n{severity}: {rule} ({RULES[rule].demand})")
        alike: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in group:
            alike.setdefault((finding.came, finding.expected, finding.todo), []).append(finding)
        demands: dict[tuple[str, str], list[str]] = {}
        for (came, expected, todo), findings in alike.items():
            demands.setdefault((expected, todo), []).append(f"    {_cases(findings)}{came}")
        for (expected, todo), found in demands.items():
            lines += [*found, f"      expected: {expected}", f"      to do: {todo}"]
    lines += [""] + [f"note: {note}" for note in report.notes] + [summary_line(report)]
    return "\n".join(lines)


def summary_line(report: Report) -> str:
    """As '2 errors (labels 1, geometry 1) and 1 warning in 125 cases: would not pass'."""
    errors, warnings = len(report.errors), len(report.warnings)
    counts = {rule: sum(f.rule == rule for f in report.errors) for rule in RULES}
    which = ", ".join(f"{rule} {n}" for rule, n in counts.items() if n)
    first = _counted(errors, "error") + (f" ({which})" if which else "")
    verdict = "would be rejected, or lose points" if errors else "would pass"
    return f"{first} and {_counted(warnings, 'warning')} in {_counted(len(report.cases), 'case')}: {verdict}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cases(findings: list[Finding]) -> str:
    """'A, B and 3 more: '. The file instead where there is no case, or its name says more than the case."""
    names = list(dict.fromkeys(f.file if f.file and (not f.case or f.case not in f.file) else f.case or ""
                               for f in findings))
    names = [name for name in names if name]
    if not names:
        return ""
    more = f" and {len(names) - MAX_CASES} more (--json lists all)" if len(names) > MAX_CASES else ""
    return f"{', '.join(names[:MAX_CASES])}{more}: "
