"""Trainings that are killed go on, and end as if nothing had been."""

from benchmarks import kills


def test_a_training_ends_alike_however_often_it_is_killed(capsys):
    found = kills.measure(kills.Kills(kills=2, epochs=4, seed=1))
    assert found.keys() <= {"killed, then identical", "had ended, then identical"}
    assert found["killed, then identical"] and sum(found.values()) == 2
    assert capsys.readouterr().out.count("identical") == 2
