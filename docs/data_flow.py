"""Write the diagram of the data flow on the first page, in SVG that follows the page's colours."""

from pathlib import Path

OUTPUT = Path(__file__).parent / "images" / "data_flow.html"

# Size of a box, distance between boxes of a row, and the left ends of the boxes in a row.
WIDTH, HEIGHT, PITCH = 124, 46, 148
COLUMNS = [2 + PITCH * number for number in range(6)]

# Upper ends of the rows of boxes, and of the lines that lead from skyflats to the subtraction.
BUILD, STORE, USE = 30, 140, 270
OUT, IN = 108, 228

HEAD = """<div class="data-flow-frame"><svg class="data-flow" viewBox="0 0 870 330" role="img"
  aria-label="Blank-sky exposures become a skyflat. Skyflats subtract the sky of science exposures"
  font-family="inherit" font-size="13" text-anchor="middle">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
  orient="auto"><path d="M0 0L8 4L0 8z" fill="var(--pst-color-text-muted)"/></marker></defs>"""


def main():
    """Write the file."""
    parts = [HEAD]
    steps = ["skyflat_mask", "skyflat_combine", "skyflat_denoise", "skyflat_quality"]
    parts += draw_row(BUILD, ["Exposures of\nblank sky", *steps, "Skyflat"])
    steps = ["skyflat_subtract", "flicker_noise", "trace_fit", "optimal_extract"]
    parts += draw_row(USE, ["Science\nexposure", *steps, "Spectra"])
    parts += draw_store()
    parts.append(write(COLUMNS[1], BUILD - 10, "SkyflatPipeline", anchor="start"))
    parts.append(write(COLUMNS[2], USE - 10, "SossStarePipeline", anchor="start"))
    OUTPUT.write_text("\n".join([*parts, "</svg></div>\n"]))


def draw_row(top, names):
    """Draw a row of boxes, data at both ends and steps between them, with arrows."""
    middle = top + HEIGHT / 2
    parts = []
    for left, name in zip(COLUMNS, names, strict=True):
        parts += draw_box(left, top, name, is_data=name in (names[0], names[-1]))
    for left in COLUMNS[1:]:
        parts.append(draw_line(f"M{left - PITCH + WIDTH} {middle}H{left}"))
    return parts


def draw_store():
    """Draw the ways from a skyflat to the subtraction: directly, as a model, as a reference."""
    subtract, model, reference, jwst = (COLUMNS[number] for number in (1, 2, 4, 5))
    half, bottom = WIDTH / 2, STORE + HEIGHT
    parts = draw_box(model, STORE, "Sky model", is_data=True)
    parts += draw_box(reference, STORE, "BKG reference\nfile", is_data=True)
    parts += draw_box(jwst, STORE, "jwst's own\nbkg_subtract")
    parts.append(draw_line(f"M{jwst + half} {BUILD + HEIGHT}V{OUT}H{subtract + half}V{USE}"))
    for left in (model, reference):
        parts.append(draw_line(f"M{left + half} {OUT}V{STORE}"))
    parts.append(draw_line(f"M{reference + half} {bottom}V{IN}H{subtract + half}", tip=False))
    parts.append(draw_line(f"M{model + half} {bottom}V{IN}", tip=False))
    parts.append(draw_line(f"M{reference + WIDTH} {STORE + HEIGHT / 2}H{jwst}"))
    return parts


def draw_box(left, top, text, *, is_data=False):
    """Draw a box around one or two lines of text; data have round corners and a filled box."""
    fill, radius = ("var(--pst-color-surface)", 12) if is_data else ("none", 2)
    place = f'x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"'
    parts = [f'<rect {place} fill="{fill}" stroke="var(--pst-color-primary)"/>']
    lines = text.split("\n")
    first = top + HEIGHT / 2 + 5 - 8 * (len(lines) - 1)
    for number, line in enumerate(lines):
        parts.append(write(left + WIDTH / 2, first + 16 * number, line))
    return parts


def draw_line(path, *, tip=True):
    """Draw a line, with an arrow at its end."""
    marker = ' marker-end="url(#tip)"' if tip else ""
    return f'<path d="{path}" fill="none" stroke="var(--pst-color-text-muted)"{marker}/>'


def write(x, y, text, anchor="middle"):
    """Write text in the colour of the page."""
    place = f'x="{x}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} fill="var(--pst-color-text-base)">{text}</text>'


if __name__ == "__main__":
    main()
