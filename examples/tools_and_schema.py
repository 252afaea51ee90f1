"""A model that calls functions, and an answer that follows a schema; with the simulator, so that it costs nothing and needs no key.

    python examples/tools_and_schema.py

Every call of the model and every call of a function is a step of its job: after a crash neither is done again. The schema is checked here,
which needs `pip install 'callboard[schema]'`.
"""

import tempfile
from typing import Any

from callboard import Config, JobContext, JobQueue, Message, Supervisor, Tool, ToolResult

REPORT = {
    "type": "object",
    "properties": {
        "headline": {"type": "string", "maxLength": 80},
        "degrees": {"type": "integer", "minimum": -60, "maximum": 60},
    },
    "required": ["headline", "degrees"],
}


def temperature(city: str) -> int:
    """The temperature in a city, in degrees Celsius."""
    return len(city) * 2


def report(ctx: JobContext) -> dict[str, Any]:
    """The short way: the rounds of asking, calling and telling are made for you."""
    # The simulator calls a function when it is told to in so many words; a real model decides by itself.
    told = ctx.complete_with_tools('call temperature {"city": "Bergen"}', {"temperature": temperature}).text
    data: dict[str, Any] = ctx.complete(f"Write the weather report: {told}", schema=REPORT).data
    return {"told": told, **data}


def by_hand(ctx: JobContext) -> str:
    """The long way, for those who want a hand in every round."""
    tools = [
        Tool(
            name="temperature",
            description="The temperature in a city.",
            parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        )
    ]
    messages = [Message("user", 'call temperature {"city": "Oslo"}')]
    answer = ctx.complete(messages, tools=tools)
    while answer.tool_calls:
        results = []
        for place, call in enumerate(answer.tool_calls):
            degrees = ctx.step(f"{len(messages)}-{place}", temperature, **call.arguments)
            results.append(ToolResult(call_id=call.id, name=call.name, content=str(degrees)))
        messages += [answer.message(), Message("tool", tuple(results))]
        answer = ctx.complete(messages, tools=tools)
    return answer.text


def main() -> None:
    """Run both, and print what they return."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/jobs.db"
        handlers = {"report": report, "by-hand": by_hand}
        with JobQueue(database) as queue, Supervisor(Config(database=database), handlers=handlers):
            for kind in handlers:
                print(kind, queue.add(kind, {}).wait(timeout=30).result)


if __name__ == "__main__":
    main()
