"""`make demo`, on the stereo pair alone."""

from __future__ import annotations

from bench import demo


def test_the_demo_agrees_with_scikit_image_and_draws(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(demo, "PHOTOGRAPHS", demo.PHOTOGRAPHS[:2])
    monkeypatch.setattr(demo, "REPEATS", 1)
    assert demo.main(tmp_path) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"features.h5", "motorcycle_left.png", "motorcycle_right.png", "matches.png", "matches.json"}
    assert "100.00%" in capfd.readouterr().out
