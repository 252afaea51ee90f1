"""Every fault of the table, at every wire: the documented end of the job, the documented number of requests."""

import logging
import shutil
from dataclasses import replace

import fault_bodies
import pytest
from fault_company import make_smaller, play
from fault_server import make_certificates
from fault_table import TABLE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make certificates")
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("wire", fault_bodies.NAMES)
def test_each_fault_ends_as_documented(wire, certificates, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "callboard")
    contexts, trusted = certificates
    make_smaller(monkeypatch, trusted)
    monkeypatch.setenv("FAULTS_KEY", "sk-planted-0123456789abcdef")
    faults = [fault for fault in TABLE if wire in fault.only]
    seen = play(wire, faults, tmp_path, contexts)
    wrong = []
    for fault in faults:
        expected, found = fault.end_at(wire), seen[fault.name]
        comparable = replace(expected, wait=0.0, code="")
        if found.end != comparable:
            wrong.append(
                f"{fault.name}: expected {comparable}\n{' ' * len(fault.name)}  but was  {found.end}  {found.error}"
            )
        elif (
            not expected.wait * 0.95 <= found.hold_seconds <= expected.wait * 2.1 + 1
            and expected.code != "quota_per_day"
        ):
            wrong.append(f"{fault.name}: held for {found.hold_seconds} s, not {expected.wait}")
        elif expected.code and found.error.get("code") != expected.code:
            wrong.append(f"{fault.name}: code {found.error.get('code')}, not {expected.code}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(faults)}", *wrong])
