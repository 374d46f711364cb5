"""File names of products."""

from soss_background.datamodels.exposure_table import read_value
from soss_background.errors import SkyflatError

__all__ = ["product_name"]


def product_name(summary, headers, product):
    """Return a skyflat's file name; raise if OBSERVTN or the product's group is no number."""
    # An association may give the name, without suffix and extension.
    if "file_name" in product:
        return f"{product['file_name']}_skyflat.fits"
    observation = read_value(headers[0], ("meta.observation.observation_number",), "OBSERVTN")
    # Number of the uninterrupted sequence in its observation, 0 if there is only one.
    obs_group = product.get("obs_group", 0)
    try:
        observation, obs_group = int(observation), int(obs_group)
    except ValueError as err:
        raise SkyflatError(
            f"{headers[0]['name']}: OBSERVTN {observation} or obs_group {obs_group} is not a number"
        ) from err
    lon = round(summary["ecliptic_lon"]) % 360
    lat = round(summary["ecliptic_lat"])
    return (
        f"nis_clear_gr700xd_LON{lon:03d}_LAT{lat:+03d}_DOY{summary['day']:03d}"
        f"_{observation:03d}_{obs_group:03d}_skyflat.fits"
    )
