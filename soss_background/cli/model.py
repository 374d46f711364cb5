"""The subcommand ``soss-background model``."""

from pathlib import Path

from soss_background.cli.options import add_skyflats, file_type, given


def add_parser(commands):
    """Add the subcommand that learns a sky model."""
    parser = commands.add_parser(
        "model",
        help="learn the mean sky and its variation from skyflats",
        description="Write a sky model: the mean of one or more skyflats, the components and the "
        "scatter of their variation, their levels, and their edge. SkyflatSubtractStep uses it as "
        "its prior.",
    )
    add_skyflats(parser, "one or more skyflats of the same pixels")
    parser.add_argument(
        "-o", "--output", type=file_type(".fits", ".asdf"), metavar="FILE",
        default=Path("nis_clear_gr700xd_skymodel.fits"),
        help="sky model to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--plot", type=file_type(".png"), metavar="FILE", help="figure to write")
    parser.add_argument("--author", metavar="NAME", help="AUTHOR (default: that of the skyflats)")
    parser.add_argument(
        "--description", metavar="TEXT", help="DESCRIP (default: number of skyflats)"
    )
    parser.add_argument(
        "--denoise", action="store_true",
        help="also write each skyflat without the 1/f stripes that skyflats of other visits do "
        "not show",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR",
        help="folder of the denoised skyflats (default: denoised)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options):
    """Write a sky model, its figure and denoised skyflats; print a summary of the model."""
    from soss_background.errors import SkyflatError
    from soss_background.io.denoised import denoise_library, plan_denoised
    from soss_background.io.files import save_datamodel, save_whole
    from soss_background.io.sky_library import open_library
    from soss_background.io.sky_models import make_sky_model

    if options.output_dir and not options.denoise:
        raise SkyflatError("--output-dir needs --denoise")
    library, folder = open_library(options.skyflats), options.output_dir or Path("denoised")
    paths = plan_denoised(library, folder) if options.denoise else []
    settings = given(options, "author", "description")
    model = make_sky_model(library, **settings)
    save_datamodel(model, options.output)
    if options.plot:
        from soss_background.report.sky_model_plots import draw_sky_model

        save_whole(draw_sky_model(model).savefig, options.plot)
    _print_summary(model)
    if paths:
        found = denoise_library(library, paths)
        least, most = 100 * min(found), 100 * max(found)
        print(
            f"The skyflats in {folder} have {least:.0f} to {most:.0f} % less variance of stripes."
        )
    print(f"See {' and '.join(map(str, filter(None, (options.output, options.plot))))}")


def _print_summary(model):
    """Print the numbers of a sky model."""
    from soss_background.errors import count

    numbers, members = model.meta.sky_model, model.members
    skies = count(numbers.n_skies, "skyflat")
    components = count(numbers.n_components, "component")
    explained = 100 * model.variances["fraction"].sum()
    verb = "explains" if numbers.n_components == 1 else "explain"
    part = f", which {verb} {explained:.0f} % of its variation" * (numbers.n_components > 0)
    print(
        f"The sky of {skies} has {components}{part}. The smooth scatter is "
        f"{100 * numbers.smooth_rms:.2f} %, the scatter of a pixel {100 * numbers.scatter:.2f} %, "
        f"correlated over {numbers.correlation_length:.0f} columns."
    )
    print(
        f"The levels left of the edge are {members['level'].min():.3g} to "
        f"{members['level'].max():.3g} DN/s; the ratio right/left is {numbers.ratio:.3f} "
        f"with a scatter of {100 * numbers.ratio_rms:.1f} %."
    )
    # The effective number of visits is not an integer.
    if numbers.n_visits < 1.5:
        print("A single visit shows no variation: all scatters are those of the prior.")
