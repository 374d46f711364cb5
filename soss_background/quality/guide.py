"""Groups of the metrics of a skyflat, and what to do about a metric out of its range."""

__all__ = ["GUIDE"]

# Advice by metric, in the groups of a report. The names lack the row of the edge.
GUIDE = {
    "Exposures": {
        "exposures_used": "Combine more exposures. The table of exposures gives the reason why "
        "an exposure was left out.",
        "exposures_rejected": "Look at the reasons in the table of exposures.",
        "masked_median": "The field is crowded or the mask is too large: raise "
        "skyflat_mask.n_sigma, or observe with a larger dither.",
        "masked_worst": "Look at this exposure: a bright star or a glow may cover it. Exclude it "
        "with skyflat_combine.exclude.",
        "few_samples": "Combine more exposures, or exposures with a larger dither.",
        "level_scatter": "The sky of some exposures is brighter, for example because of stray "
        "light. Exclude them with skyflat_combine.exclude.",
        "deviation_worst": "Look at the residual of the exposure that deviates most, and exclude "
        "it with skyflat_combine.exclude.",
        "deviation_ratio": "One exposure deviates much more than the others: look at its residual, "
        "and lower skyflat_combine.mad_threshold or exclude it.",
    },
    "Sky": {
        "level": "Check that the exposures show blank sky, and that their flat is right.",
        "level_left": "Check that the exposures show blank sky, and that their flat is right.",
        "level_right": "Check that the exposures show blank sky, and that their flat is right.",
        "level_ratio": "Stray light or remaining stars change the ratio: look at the structure "
        "of the sky.",
        "filled": "No exposure shows these pixels: combine more exposures, or exposures with a "
        "larger dither.",
        "hot": "Many pixels are brighter than their column: check the flat, and whether the "
        "exposures have the flags of their bad pixels (DQ).",
        "jackknife": "The halves of the exposures disagree: one of them shows a glow or stars. "
        "Look at the residuals.",
    },
    "Edge": {
        "step_column": "Check the pupil wheel position, and look at the figure of the edge.",
        "step_width": "Stars near the edge distort it: look at the figure of the edge.",
    },
    "Noise": {
        "stripe_rms": "The exposures have strong 1/f noise. Combine more of them.",
        "excess": "The errors of the exposures (ERR) are wrong, or there is noise that they do not "
        "include.",
        "noise": "Compare it with the noise of other skyflats.",
        "noise_ratio": "ERR of the skyflat is wrong, or BKGDN has lost structure of the sky.",
        "chi2": "The exposures scatter more, or less, than ERR predicts: look at the normalised "
        "residuals.",
        "stripes_left": "Stripes or pedestals of the amplifiers remain: look at the residuals.",
        "denoised_ratio": "Stripes or flux of stars remain in BKGDN: look at the structure of the "
        "sky.",
    },
    "Stars": {
        "star_light": "Stars remain: lower skyflat_mask.n_sigma, or raise skyflat_mask.grow.",
        "target_trace": "The exposures show a target instead of blank sky: use those of the "
        "background observation.",
    },
}
