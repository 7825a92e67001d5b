from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.rounds import Action, Position, Rounds, nearest_visible, noise_seed

machines = st.builds(
    lambda rounds, epochs, per, share, span: Rounds(rounds, epochs, per, int(share * (epochs * per - 1)), span),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 7),
    st.floats(0, 1),
    st.sampled_from(["remaining", "restart"]),
)


def by_loops(machine: Rounds) -> list[tuple[str, int]]:
    """The algorithm as the thesis writes it, step by step."""
    out: list[tuple[str, int]] = []
    total = machine.epochs * machine.steps_per_epoch
    for round in range(machine.rounds + 1):
        step = 0 if round == 0 or machine.span == "restart" else machine.rewind_step
        while True:
            if round == 0 and step == machine.rewind_step:
                out.append(("CAPTURE", step))
            stepped = [event for event in out if event != ("CAPTURE", step)][-1:] == [("step", step)]
            if step % machine.steps_per_epoch == 0 and stepped:
                out.append(("END_EPOCH", step))
            if step == total:
                break
            step += 1
            out.append(("step", step))
        if round < machine.rounds:
            out += [("PRUNE", total), ("REWIND", total)]
    return [*out, ("DONE", total)]


@given(machines)
def test_the_walk_is_the_algorithm(machine: Rounds) -> None:
    walked: list[tuple[str, int]] = []
    for at, action in machine.walk():
        if action is Action.TRAIN:
            walked += [("step", step) for step in range(at.step + 1, machine.stop(at) + 1)]
        else:
            walked.append((action.name, at.step))
    assert walked == by_loops(machine)


@given(machines)
def test_epochs_are_counted(machine: Rounds) -> None:
    ended = sum(action is Action.END_EPOCH for _, action in machine.walk())
    assert ended == machine.total_epochs
    assert machine.total_epochs <= machine.epochs * (machine.rounds + 1)


def test_a_round_begins_in_the_middle_of_an_epoch() -> None:
    machine = Rounds(15, 24, 1000, 500)
    assert machine.total_epochs == 16 * 24
    assert machine.stop(Position()) == 500
    assert machine.stop(Position(1, 500, captured=True)) == 1000


def test_a_training_cut_short_goes_on_with_what_follows() -> None:
    machine = Rounds(1, 5, 10)
    at = machine.cut_short(Position(0, 20, captured=True, ended=True))
    assert machine.action(at) is Action.PRUNE
    at = machine.after(machine.after(at))
    assert at == Position(1, 0, captured=True)
    assert machine.action(machine.cut_short(at)) is Action.DONE


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="before 50"):
        Rounds(1, 5, 10, 50)
    with pytest.raises(ValueError, match="span"):
        Rounds(1, 5, 10, 0, "all")
    with pytest.raises(ValueError, match="epochs ≥ 1"):
        Rounds(1, 0, 10)


def test_steps_that_hooks_see() -> None:
    # 64 steps per execution, 160 an epoch: hooks at 64, 128, 160, 224, …
    seen = {s for s in range(481) if len(set(nearest_visible(s, 160, 64))) == 1}
    assert seen == {0, 64, 128, 160, 224, 288, 320, 384, 448, 480}
    assert nearest_visible(100, 160, 64) == (64, 128)
    assert nearest_visible(150, 160, 64) == (128, 160)


def test_noise_seeds_are_stable_across_processes() -> None:
    assert noise_seed(7, 0) == 7
    assert len({noise_seed(7, r) for r in range(100)}) == 100
    code = "from keras_lth.rounds import noise_seed; print(noise_seed(7, 3))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{noise_seed(7, 3)}\n"}
