"""sdk, cli: `plan`: what a build would give: whether it fits, how fast it would be, what would help."""

import gc
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.calibration import describe
from edgewise.cli.offload import describe as describe_offload
from edgewise.cli.offload import read_offload, refuse, resident_option, text_option
from edgewise.cli.output import json_option, print_json, rate, size, table
from edgewise.facts import ENCODER_TASKS

if TYPE_CHECKING:
    from edgewise.errors import EdgewiseError
    from edgewise.plan import Plan
    from edgewise.planner.advice import Speed

COLLECT = 100_000  # objects: collections while graphs are made free nothing, and took a third of the time

LIMITS = {
    "bandwidth": "memory bandwidth",
    "compute": "arithmetic",
    "attention": "attention over what is held",
    "operators": "operators, whatever they compute",
}


@click.command()
@click.argument("checkpoint")
@click.option("--target", help="A device by its name, or a profile by its path.  [default: cpu-x64]")
@click.option("--all", "everywhere", is_flag=True, help="One line for each installed device.")
@click.option("--context", type=int, help="Tokens that a session holds.  [default: the device's]")
@click.option("--recipe", type=click.Path(path_type=Path), help="A TOML file of steps, instead of the target's own.")
@click.option("--ignore-config", multiple=True, metavar="KEY", help="A key of config.json to leave out.")
@resident_option
@text_option
@json_option
def plan(
    checkpoint: str,
    target: str | None,
    everywhere: bool,
    context: int | None,
    recipe: Path | None,
    ignore_config: tuple[str, ...],
    resident_experts: int | None,
    routed: Path | None,
    as_json: bool,
) -> None:
    """Say what CHECKPOINT would be on a device: does it fit, how fast is it, what limits it.

    From shapes alone: no weight is read, nothing is built. A model that is too large for the device is an error, which
    names what would fit. Speeds are predicted from the device's profile; `edgewise probe` writes one of this machine.
    With --resident-experts also what a mixture would do of which some experts stay in storage.

    \b
    Example:
      edgewise plan examples/pycoder --target raspberry-pi-5
      edgewise plan examples/pycoder --all --context 2048
    """
    from edgewise.plan import plan_build, plan_everywhere

    if everywhere and target:
        raise click.UsageError("Give '--target' or '--all', not both.")
    if everywhere and resident_experts is not None:
        raise click.UsageError("Give '--resident-experts' or '--all', not both.")
    gc.set_threshold(COLLECT)
    if everywhere:
        found = dict(plan_everywhere(checkpoint, recipe=recipe, context=context, ignore_config=ignore_config))
        if as_json:
            print_json([_plain_or_problem(name, each) for name, each in found.items()])
        else:
            click.echo("\n".join(_survey(found)))
        return
    options: dict[str, Any] = {
        "target": target or "cpu-x64",
        "recipe": recipe,
        "context": context,
        "ignore_config": ignore_config,
    }
    made = plan_build(checkpoint, **options)
    beside = read_offload(checkpoint, resident_experts, routed, **options)
    if as_json:
        print_json(plain(made) | ({"offload": asdict(beside)} if beside else {}))
    else:
        click.echo("\n".join([text(made), *(describe_offload(beside) if beside else [])]))
    refuse(made, beside) if beside else made.refuse_what_does_not_fit()


def plain(plan: "Plan") -> dict[str, Any]:
    """A plan as data."""
    made = asdict(plan) | {"cache": plan.cache, "run_memory": plan.run_memory, "fits": plan.fits}
    if (cost := plan.calibration) is not None:
        names = ("sequences", "length", "memory", "disk", "seconds")
        made["calibration"] = {name: getattr(cost, name) for name in names}
    return made


def text(plan: "Plan") -> str:
    """A plan, as people read it."""
    parts = {**plan.parts, "in all": plan.total}
    rows = [
        {"part": name, "parameters": f"{part.parameters:,}", "before": size(part.before), "after": size(part.after)}
        for name, part in parts.items()
    ]
    device = f" of {size(plan.memory.value)} ({plan.memory.source})" if plan.memory else ""
    return "\n".join(
        [
            f"plan for {plan.target}: {', then '.join(plan.recipe) or 'weights stay as they are'}",
            *table(rows),
            f"bundle    {size(plan.download)} to download",
            f"to build  {size(plan.build_memory)} of memory",
            *([describe(plan.calibration)] if plan.calibration else []),
            *([_prefill(plan)] if plan.prefill else []),
            f"to run    {size(plan.run_memory)} of memory{device}: {_verdict(plan)}; {_held(plan)}",
            *([f"helps     {plan.fitting}"] if plan.fitting else []),
            *(f"note      {sentence}" for sentence in plan.remarks),
            *_speed(plan),
        ]
    )


def _prefill(plan: "Plan") -> str:
    """What the second graph takes."""
    return f"prefill   {size(plan.prefill)} more on the disk, {size(plan.prefill_memory)} of memory: a second graph"


def _held(plan: "Plan") -> str:
    """What the memory is for, beside weights."""
    if plan.task in ENCODER_TASKS:
        return f"texts of up to {plan.context:,} tokens"
    return f"{size(plan.cache)} are the cache of {plan.context:,} tokens"


def _verdict(plan: "Plan") -> str:
    return {True: "it fits", False: "it does NOT fit", None: "whether it fits is not known"}[plan.fits]


def _speed(plan: "Plan") -> list[str]:
    """How fast it will be, by what, and what would help."""
    if plan.task in ENCODER_TASKS:
        return ["speed     not predicted for encoders; benchmarks/encoders.py measures it"]
    if (speed := plan.speed) is None:
        return [
            "speed     not known: the profile has no figures of it; `edgewise probe` measures the machine it runs on"
        ]
    energy = f", {speed.joules_per_token:.2g} J a token" if speed.joules_per_token else ""
    return [
        f"speed     {_seconds(speed.first_token_s)} to the first token after a prompt of {speed.prompt:,}, then "
        f"{rate(speed.decode_tokens_per_s)} tokens/s{energy}",
        *([_full(speed, plan.context)] if plan.context > speed.prompt else []),
        f"limited   decoding by {LIMITS[speed.decode_limit]}, a prompt by {LIMITS[speed.prefill_limit]}",
        *(f"helps     {sentence}" for sentence in plan.helps),
    ]


def _full(speed: "Speed", context: int) -> str:
    each_s = rate(speed.full_tokens_per_s)
    return f"          {_seconds(speed.full_prompt_s)} and {each_s} tokens/s where {context:,} tokens fill the context"


def _survey(found: "dict[str, Plan | EdgewiseError]") -> list[str]:
    """One table; under it, why some devices have no line."""
    from edgewise.errors import EdgewiseError

    plans = [each for each in found.values() if not isinstance(each, EdgewiseError)]
    remarks = dict.fromkeys(sentence for plan in plans for sentence in plan.remarks)
    return [
        *table([_row(plan) for plan in plans]),
        *(f"note: {sentence}" for sentence in remarks),
        *(f"{name}: {each}" for name, each in found.items() if isinstance(each, EdgewiseError)),
    ]


def _row(plan: "Plan") -> dict[str, str]:
    speed = plan.speed
    return {
        "target": plan.target,
        "bundle": size(plan.download),
        "memory": size(plan.run_memory),
        "of": size(plan.memory.value * plan.usable) if plan.memory else "?",
        "fits": {True: "yes", False: "NO", None: "?"}[plan.fits],
        "first token": _seconds(speed.first_token_s) if speed else "?",
        "tokens/s": rate(speed.decode_tokens_per_s) if speed else "?",
        "J/token": f"{speed.joules_per_token:.2g}" if speed and speed.joules_per_token else "?",
        "limited by": _limits(speed) if plan.fits is not False else "memory",
        "helps": next(iter([plan.fitting] if plan.fitting else plan.helps), ""),
    }


def _limits(speed: "Speed | None") -> str:
    return "?" if speed is None else f"{speed.decode_limit}, prompt: {speed.prefill_limit}"


def _seconds(count: float) -> str:
    return f"{count:.0f} s" if count >= 10 else f"{count:.2g} s"


def _plain_or_problem(name: str, found: "Plan | EdgewiseError") -> dict[str, Any]:
    from edgewise.errors import EdgewiseError

    return {"target": name, "problem": str(found)} if isinstance(found, EdgewiseError) else plain(found)
