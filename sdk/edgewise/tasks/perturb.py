"""sdk, tasks: the same question in a form that should change nothing: how much does it change?"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.tasks.task import Task

TYPOS = 0.05  # of the letters


def typos(text: str, rng: random.Random) -> str:
    """Some letters swapped with the next one; at least one, where there are two in a row."""
    places = [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    letters = list(text)
    for i in sorted(rng.sample(places, min(len(places), max(1, round(TYPOS * len(text)))))):
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def case(text: str, rng: random.Random) -> str:
    """All in lower or in upper case."""
    return text.lower() if rng.random() < 0.5 else text.upper()


def order(text: str, rng: random.Random) -> str:
    """Sentences but the last one in another order."""
    sentences = re.findall(r"[^.!?]*[.!?]+\s*|[^.!?]+\Z", text)
    first = sentences[:-1]
    rng.shuffle(first)
    return "".join([*first, *sentences[-1:]])


PERTURBATIONS: Mapping[str, Callable[[str, random.Random], str]] = {"case": case, "order": order, "typos": typos}


def perturbed(task: Task, how: str, seed: int) -> Task:
    """The task with another prompt; of a conversation, its last message. Choices come in another order."""
    if how not in PERTURBATIONS:
        raise OptionError(unknown("perturbation", how, PERTURBATIONS))
    rng = random.Random(f"{seed} {how} {task.id}")
    change = PERTURBATIONS[how]
    if task.kind == "choices" and how == "order":
        numbers = list(range(len(task.choices)))
        rng.shuffle(numbers)
        return replace(task, choices=tuple(task.choices[i] for i in numbers), right=numbers.index(task.right))
    if isinstance(task.prompt, str):
        return replace(task, prompt=change(task.prompt, rng))
    *before, last = task.prompt
    return replace(task, prompt=(*before, {**last, "content": change(str(last.get("content", "")), rng)}))
