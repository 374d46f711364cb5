"""Parameters of all types, given in all ways, are applied, or refused in one line before work."""

from pathlib import Path

import pytest

from soss_background import (
    EncircledEnergyStep,
    OptimalExtractStep,
    SkyflatCombineStep,
    SkyflatPipeline,
    SkyflatSpec2Pipeline,
    SkyflatSubtractStep,
    SossStarePipeline,
    SurfaceBrightnessStep,
)
from soss_background.errors import SkyflatError


def call(kind, **parameters):
    """Call a class of steps."""
    kind.call("in.fits", **parameters)


def construct(kind, **parameters):
    """Give parameters to the constructor."""
    kind(**parameters).run("in.fits")


def assign(kind, **parameters):
    """Set attributes, also those of sub-steps."""
    step = kind()
    for name, of_part in parameters.pop("steps", {}).items():
        for key, value in of_part.items():
            setattr(getattr(step, name), key, value)
    for name, value in parameters.items():
        setattr(step, name, value)
    step.run("in.fits")


WAYS = pytest.mark.parametrize("way", [call, construct, assign])
FLAT = Path("none.fits")

REFUSED = [
    (SkyflatSubtractStep, {"skyflat": 5}, "skyflat is .5., not a file name, path or model"),
    (SkyflatSubtractStep, {"skyflat": ["a.fits", None]}, "skyflat is .* not a file name"),
    (SkyflatCombineStep, {"exclude": 5}, "exclude is .5., not a file name, path or model"),
    (SkyflatPipeline, {"steps": {"skyflat_combine": {"exclude": [5]}}}, "exclude is .5., not"),
    (SkyflatSubtractStep, {"n_sigma": "many"}, 'n_sigma\': the value "many" is of the wrong'),
    (SkyflatSubtractStep, {"override_bkg": 5}, "override_bkg.*5"),
    (SkyflatCombineStep, {"bad_pixels": 5}, 'bad_pixels\': the value "5" is of the wrong type'),
    (EncircledEnergyStep, {"radii": 5}, 'radii\': the value "5" is of the wrong type'),
    (SurfaceBrightnessStep, {"sky_annulus": ["a", "b"]}, 'sky_annulus\': the value "a" is of'),
    # Paths are names, also of files that are missing.
    (SkyflatSubtractStep, {"override_bkg": FLAT}, "none.fits: no such file"),
    (SkyflatCombineStep, {"bad_pixels": FLAT}, "none.fits: no such file"),
    (OptimalExtractStep, {"standard": FLAT}, "none.fits: no such file"),
    (EncircledEnergyStep, {"psf": FLAT}, "none.fits: no such file"),
    (SkyflatPipeline, {"steps": {"flat_field": {"override_flat": FLAT}}}, "none.fits: no such"),
    # An unset variable of a shell.
    (OptimalExtractStep, {"response": ""}, "response is empty: give a file, or omit it"),
    (SkyflatSubtractStep, {"skyflat": ""}, "skyflat is empty"),
    (SkyflatPipeline, {"steps": {"skyflat_combine": {"bad_pixels": ""}}}, "bad_pixels is empty"),
    # Those of jwst's own steps.
    (SkyflatSpec2Pipeline, {"steps": {"assign_wcs": {"override_specwcs": 5}}}, "specwcs.*5"),
    (SkyflatSpec2Pipeline, {"steps": {"flat_field": {"user_supplied_flat": 5}}}, "flat.*5"),
    (SossStarePipeline, {"ranges": FLAT, "output_dir": Path()}, "none.fits: no such file"),
]


@WAYS
@pytest.mark.parametrize(("kind", "parameters", "message"), REFUSED)
def test_what_is_refused(way, kind, parameters, message):
    Path("in.fits").touch()
    with pytest.raises(SkyflatError, match=message) as caught:
        way(kind, **parameters)
    assert "\n" not in str(caught.value)
    assert [path.name for path in Path().iterdir()] == ["in.fits"]


@WAYS
def test_what_is_converted(way, monkeypatch):
    """Strings become numbers, and None the default."""
    found = {}

    def note(step, _):
        found.update(radii=step.radii, n_sigma=step.n_sigma)
        raise SkyflatError("that is all")

    monkeypatch.setattr(EncircledEnergyStep, "process", note)
    with pytest.raises(SkyflatError, match="that is all"):
        way(EncircledEnergyStep, n_sigma="4", radii=None)
    assert found == {"radii": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15], "n_sigma": 4.0}


def test_paths_of_the_steps_of_jwst(monkeypatch):
    """Paths become strings, which these steps expect."""
    found = {}

    def note(pipeline, _):
        found.update(vars(pipeline.flat_field))
        raise SkyflatError("that is all")

    monkeypatch.setattr(SkyflatSpec2Pipeline, "process", note)
    monkeypatch.setattr(SkyflatSpec2Pipeline, "prefetch_references", False)
    pipeline = SkyflatSpec2Pipeline()
    for name in ("override_flat", "user_supplied_flat"):
        Path("a.fits").touch()
        setattr(pipeline.flat_field, name, Path("a.fits"))
    with pytest.raises(SkyflatError, match="that is all"):
        pipeline.run("in.fits")
    assert found["override_flat"] == found["user_supplied_flat"] == "a.fits"
