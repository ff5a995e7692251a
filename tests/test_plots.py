"""Figures are legible in a light and in a dark style of matplotlib."""

import numpy as np
import pytest

from sb3_iq import load_demonstrations, plots
from sb3_iq.plots import COLORS, Curve, Panel, figure
from tests.utils import BOX, RandomEnv, random_trajectories

colors = pytest.importorskip("matplotlib.colors", reason="matplotlib is not installed")
style_sheets = pytest.importorskip("matplotlib.style")


def luminance(color):
    """:return: as the guidelines for web pages define it, and the opacity"""
    *rgb, alpha = colors.to_rgba(color)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return np.dot([0.2126, 0.7152, 0.0722], linear), alpha


def contrast(artist, ground):
    """:return: the ratio of the guidelines: text wants 4.5, a thick line 2"""
    color = colors.to_rgba(artist.get_color(), artist.get_alpha())
    rgb = np.array(color[:3]) * color[3] + np.array(colors.to_rgb(ground)) * (1 - color[3])
    dark, light = sorted(luminance(color)[0] for color in (rgb, ground))
    return (light + 0.05) / (dark + 0.05)


def check(drawn, dark):
    """Check all texts and lines of a figure."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    drawn.draw_without_rendering()
    for ground in (drawn.get_facecolor(), *(axes.get_facecolor() for axes in drawn.axes)):
        assert (luminance(ground)[0] < 0.1) == dark
        for text in drawn.findobj(Text):
            assert contrast(text, ground) > 4.5, text
        for axes in drawn.axes:
            for line in axes.get_lines():
                assert isinstance(line, Line2D) and contrast(line, ground) > 2, line


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_curves(style, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, *args, **kwargs: drawn.append(self))
    curves = {f"curve {i}": Curve(np.arange(3), np.ones((2, 3)) * i) for i in range(len(COLORS))}
    curves["level"] = Curve(np.array([2]), np.array([[0.5]]))
    with style_sheets.context(style):
        figure([[Panel("title", curves, {"expert": 9.0}, "return")]], "steps", tmp_path / "figure.png")
        check(drawn[0], dark=style != "default")


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_demonstrations(style):
    with style_sheets.context(style):
        check(load_demonstrations(random_trajectories(RandomEnv(BOX, BOX))).plot(), dark=style != "default")


def test_known_labels_have_their_colours_in_every_figure(tmp_path, monkeypatch):
    drawn = {}

    def note(axes, curves, labels):
        drawn.update({label: COLORS[labels.index(label)] for label in curves})
        draw(axes, curves, labels)

    draw = plots.draw
    monkeypatch.setattr(plots, "draw", note)
    curve = Curve(np.arange(3), np.ones((2, 3)))
    for labels in (["b", "other"], ["a", "b"]):
        figure([[Panel("", {label: curve for label in labels})]], "steps", tmp_path / "figure.png", known=("a", "b"))
        assert drawn["b"] == COLORS[1]
    assert drawn == {"a": COLORS[0], "b": COLORS[1], "other": COLORS[2]}
