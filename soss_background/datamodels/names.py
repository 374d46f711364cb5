"""File names of products."""

from soss_background.datamodels.exposure_table import describe_exposures, read_value, summarize
from soss_background.errors import SkyflatError

__all__ = ["name_products", "product_name"]


def name_products(products):
    """
    Name the products of an association.

    Parameters
    ----------
    products : list of tuple
        For each product the metadata of its exposures (list of dict) and the product in its
        association (dict), see `product_name`.

    Returns
    -------
    names : list of str
        A file name for each product.

    Raises
    ------
    SkyflatError
        If exposures lack their pointing, time or observation, or if two products would have the
        same name.
    """
    names = []
    for headers, product in products:
        name = product_name(summarize(describe_exposures(headers)), headers, product)
        if name in names:
            raise SkyflatError(f"{name}: the name of two products, run them one by one")
        names.append(name)
    return names


def product_name(summary, headers, product):
    """
    Name a product, which is a skyflat.

    Parameters
    ----------
    summary : dict
        See `summarize`.
    headers : list of dict
        Metadata of the exposures.
    product : dict
        The product in its association: ``obs_group`` tells which uninterrupted sequence of the
        observation it is, 0 if it is the only one; ``file_name``, if it is there, names the file,
        without suffix and extension.

    Returns
    -------
    name : str
        File name.

    Raises
    ------
    SkyflatError
        If the exposures do not tell their observation, or what should be a number is not.
    """
    if "file_name" in product:
        return f"{product['file_name']}_skyflat.fits"
    observation = read_value(headers[0], ("meta.observation.observation_number",), "OBSERVTN")
    obs_group = product.get("obs_group", 0)
    try:
        observation, obs_group = int(observation), int(obs_group)
    except ValueError as err:
        raise SkyflatError(
            f"{headers[0]['name']}: OBSERVTN {observation} or obs_group {obs_group} is no number"
        ) from err
    lon = round(summary["ecliptic_lon"]) % 360
    lat = round(summary["ecliptic_lat"])
    return (
        f"nis_clear_gr700xd_LON{lon:03d}_LAT{lat:+03d}_DOY{summary['day']:03d}"
        f"_{observation:03d}_{obs_group:03d}_skyflat.fits"
    )
