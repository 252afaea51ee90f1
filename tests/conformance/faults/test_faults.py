"""Every fault of the table, at every wire: the documented end of the job, the documented number of requests."""

import logging
import shutil
from dataclasses import replace

import fault_page
import pytest
from fault_company import make_smaller, play
from fault_parts import PARTS
from fault_server import make_certificates
from fault_table import TABLE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make certificates")
    return make_certificates(tmp_path_factory.mktemp("tls"))


def _held_as_asked(expected, seconds):
    """For as long as the provider asked; where a person has to do something, for 15 to 30 s at first; until midnight if the day is used up."""
    if expected.code == "quota_per_day":
        return 0 < seconds <= 86_400
    return expected.wait * 0.95 <= seconds <= (31 if expected.held in ("auth", "quota") else expected.wait + 2.5)


@pytest.mark.parametrize("part", PARTS)
def test_each_fault_ends_as_documented(part, certificates, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "callboard")
    contexts, trusted = certificates
    make_smaller(monkeypatch, trusted)
    monkeypatch.setenv("FAULTS_KEY", "sk-planted-0123456789abcdef")
    faults = [fault for fault in TABLE if part in fault.only]
    seen = play(PARTS[part], faults, tmp_path, contexts)
    wrong = []
    for fault in faults:
        expected, found = fault.end_at(part), seen[fault.name]
        comparable = replace(expected, wait=0.0, code="")
        if found.end != comparable:
            wrong.append(
                f"{fault.name}: expected {comparable}\n{' ' * len(fault.name)}  but was  {found.end}  {found.error}"
            )
        elif not _held_as_asked(expected, found.hold_seconds):
            wrong.append(f"{fault.name}: held for {found.hold_seconds} s, not {expected.wait}")
        elif expected.code and found.error.get("code") != expected.code:
            wrong.append(f"{fault.name}: code {found.error.get('code')}, not {expected.code}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(faults)}", *wrong])


def test_the_page_of_failures_says_what_the_table_says():
    assert fault_page.PAGE.read_text(encoding="utf-8") == fault_page.page(), "run: make failures"


def test_every_wire_has_forty_faults_and_each_its_own_name():
    for part in PARTS:
        names = [fault.name for fault in TABLE if part in fault.only]
        assert len(set(names)) == len(names) >= 40
