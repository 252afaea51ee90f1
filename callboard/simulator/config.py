"""What a simulator can be told before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "extractive-1"
"""The name `GET /v1/models` gives the built-in model when no list is configured; any other name is accepted then too."""


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """Settings of one simulator. It always binds 127.0.0.1. Raises ValueError that names the setting.

    - `port`: 0 takes any free one.
    - `keys`: the API keys it accepts; none configured accepts any, and no key at all. Invent them: they are not secrets.
    - `models`: the model names it knows; none configured accepts any name.
    - `rpm`, `tpm`, `concurrency`: limits for each (API key, model). `tpm` is OpenAI's total, and Anthropic's input and output unless
      `input_tpm` or `output_tpm` says otherwise. None: no such limit, and no headers about it.
    - `rpd`: Gemini's requests per day, a day being 1,440 windows from midnight to midnight of the simulator's clock.
    - `window_seconds`: how long "a minute" lasts, for the limits and for the sliding windows of the statistics.
    - `latency`: seconds before the first byte of a completion. `tokens_per_second`: pace after that; None is as fast as it goes.
    - `default_max_tokens`: the limit of a request that names none.
    - `batch_seconds`: how long a batch takes; infinite is until it is told to end (`POST /_simulator/batches`).
    - `faults`: rules as `docs/simulator.md` describes, there from the start.
    - `journal`: a file to which every request is appended, at its arrival and at its end.
    """

    port: int = 0
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    concurrency: int | None = None
    window_seconds: float = 60.0
    latency: float = 0.0
    tokens_per_second: float | None = None
    default_max_tokens: int = 1024
    batch_seconds: float = 1.0
    faults: tuple[Mapping[str, Any], ...] = ()
    journal: Path | None = None

    def __post_init__(self) -> None:
        for name in (
            "rpm",
            "rpd",
            "tpm",
            "input_tpm",
            "output_tpm",
            "concurrency",
            "tokens_per_second",
            "window_seconds",
            "default_max_tokens",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"simulator setting {name!r} must be above 0 and finite, not {value!r}")
        if not 0 <= self.latency < float("inf"):
            raise ValueError(f"simulator setting 'latency' must be 0 or more seconds, not {self.latency!r}")
        if not self.batch_seconds >= 0:
            raise ValueError(f"simulator setting 'batch_seconds' must be 0 or more seconds, not {self.batch_seconds!r}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"simulator setting 'port' must be between 0 and 65535, not {self.port!r}")
