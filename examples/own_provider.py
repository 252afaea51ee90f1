"""A provider of one's own: a model that runs in this process, with Callboard's limits, retries, streaming, ledger and costs.

    python examples/own_provider.py

The class needs no base class and no registration but its name; in a `callboard.toml` it is

    [providers.reverser]
    wire = "own"
    factory = "own_provider:Reverser"
"""

import tempfile
from collections.abc import AsyncIterator

from callboard import Completion, Config, Finish, JobQueue, Request, Supervisor, Usage
from callboard.actors.settings import LimitSettings, ModelSettings, PriceSettings


class Reverser:
    """Says the last message word by word, backwards."""

    async def complete(self, request: Request) -> AsyncIterator[str | Completion]:
        """Answer a request: pieces of text, and last the Completion."""
        words = request.messages[-1].text.split()
        for word in reversed(words):
            yield word + " "
        usage = Usage(input_uncached=len(words), output_visible=len(words))
        yield Completion(text="", finish=Finish.STOP, usage=usage, model=request.model)


def main() -> None:
    """Have one job done by it, and show its answer and what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        backwards = ModelSettings(
            provider="reverser",
            model="r-1",
            limits=LimitSettings(requests_per_minute=60, concurrency=4),
            price=PriceSettings(input=1.0, output=2.0),
        )
        config = Config(database=f"sqlite:///{folder}/jobs.db", models={"backwards": backwards})
        with Supervisor(config, providers={"reverser": Reverser()}), JobQueue(config.database) as queue:
            job = queue.add("chat", {"prompt": "rehearse we again and again"}, model="backwards")
            print(job.wait(timeout=30).result["text"])
            call = job.calls()[0]
            print(
                f"{call.provider} used {call.input_uncached} + {call.output_visible} tokens, {call.cost} nano-dollars"
            )


if __name__ == "__main__":
    main()
