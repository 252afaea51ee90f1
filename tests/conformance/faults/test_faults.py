"""Every fault of the table, at every wire: the documented end of the job, the documented number of requests."""

import logging
import shutil
from dataclasses import asdict, replace

import fault_lane
import fault_page
import pytest
from fault_company import make_smaller, play
from fault_parts import PARTS
from fault_server import make_certificates
from fault_table import LANE, SECTIONS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make certificates")
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def small_world(certificates, monkeypatch, caplog):
    """Caps and deadlines that are soon reached, and the servers' certificates."""
    caplog.set_level(logging.CRITICAL, "callboard")
    contexts, trusted = certificates
    make_smaller(monkeypatch, trusted)
    monkeypatch.setenv("FAULTS_KEY", "sk-planted-0123456789abcdef")
    return contexts


def _held_as_asked(expected, seconds):
    """For as long as the provider asked; where a person has to do something, for 15 to 30 s at first; until midnight if the day is used up."""
    if expected.code == "quota_per_day":
        return 0 < seconds <= 86_400
    return expected.wait * 0.95 <= seconds <= (31 if expected.held in ("auth", "quota") else expected.wait + 2.5)


def _runs(sections):
    """Each part with the rows of each day, and again, under soak, with all of them where that is more."""
    for section in sections:
        for part in section.parts:
            some, whole = section.of_each_day(part), section.of(part)
            if some:
                yield pytest.param(part, some, id=part)
            if len(some) < len(whole):
                yield pytest.param(part, whole, id=f"{part}-all", marks=pytest.mark.soak)


@pytest.mark.parametrize(("part", "faults"), list(_runs(section for section in SECTIONS if section is not LANE)))
def test_each_fault_ends_as_documented(part, faults, small_world, tmp_path):
    seen = play(PARTS[part], faults, tmp_path, small_world)
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


@pytest.mark.parametrize(("part", "faults"), list(_runs([LANE])))
def test_each_fault_of_a_batch_ends_as_documented(part, faults, small_world, tmp_path):
    seen = fault_lane.play(part, faults, tmp_path, small_world)
    wrong = []
    for fault in faults:
        expected, (found, told) = asdict(fault.end_at(part)), seen[fault.name]
        if found != expected:
            wrong.append(f"{fault.name}: expected {expected}\n{' ' * len(fault.name)}  but was  {found}  {told}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(faults)}", *wrong])


def test_the_page_of_failures_says_what_the_table_says():
    assert fault_page.PAGE.read_text(encoding="utf-8") == fault_page.page(), "run: make failures"


def test_every_wire_has_forty_faults_and_each_its_own_name():
    for section in SECTIONS:
        for part in section.parts:
            names = [fault.name for fault in section.of(part)]
            assert len(set(names)) == len(names) >= 40
