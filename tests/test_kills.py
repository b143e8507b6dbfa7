"""Trainings that are killed, or told to stop, go on and end alike."""

import pytest

from benchmarks import kills


@pytest.mark.parametrize(("by", "ended"), [("KILL", "killed"), ("INT", "one line")])
def test_a_training_ends_alike_however_often_it_is_stopped(by, ended, capsys):
    found = kills.measure(kills.Kills(kills=2, by=by, epochs=4, seed=1))
    assert found.keys() <= {f"{ended}, then identical", "had ended, then identical"}
    assert found[f"{ended}, then identical"] and sum(found.values()) == 2
    assert capsys.readouterr().out.count("identical") == 2
