"""Files that list cases, for nnmiss_predict --cases and nnmiss_validate_brats --ids."""
from __future__ import annotations

import pytest

from nnmiss.case_lists import read_case_list
from nnmiss.errors import NnmissError


@pytest.mark.parametrize("name", ["ids", "ids.txt", "ids.json"])
@pytest.mark.parametrize("content", [
    '["a", "b.nii.gz", "a", " "]', '\ufeff{"preset": "x", "cases": ["a", "b"]}', "a\n\nb.nii.gz\r\n",
    "# mine\n a  # first\n\tb\n",
])
def test_the_content_says_which_form_it_has(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_case_list(tmp_path / name) == ["a", "b"]


def test_a_number_sign_in_a_name_begins_no_comment(tmp_path):
    (tmp_path / "ids").write_text("case#1\n")
    assert read_case_list(tmp_path / "ids") == ["case#1"]


@pytest.mark.parametrize(("content", "message"), [
    (b"{}", "must hold a list of case names"), (b"[1]", "must hold a list"), (b'{"cases": "a"}', "must hold a list"),
    (b"[", "is not valid JSON"), (b"\n#x\n", "lists no case"), (b"[]", "lists no case"),
    (b"\x1f\x8b\xff", "not a readable text"),
    (None, "not a readable text file")])
def test_what_is_no_list_is_refused_by_name(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(NnmissError, match=message) as refused:
        read_case_list(tmp_path / "ids")
    assert str(tmp_path / "ids") in str(refused.value) and "Errno" not in str(refused.value)
