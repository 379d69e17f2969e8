"""Asks Chromium what it shows of pictures; ``python -m tests.kits.chromium`` records it."""

import base64
import html
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

RECORDED = Path(__file__).with_name("chromium_pixels.json")
# Points at the centres of this many cells across and down.
COLUMNS, ROWS = 6, 4

# A canvas behind takes the place of a white page: its pixels can be asked for.
_PAGE = f"""<!doctype html><script>
function shown(image) {{
  const width = image.naturalWidth, height = image.naturalHeight;
  if (!width) return null;
  const canvas = document.createElement('canvas');
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext('2d', {{willReadFrequently: true}});
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  const pixels = [];
  for (let row = 0; row < {ROWS}; row++) for (let column = 0; column < {COLUMNS}; column++) {{
    const x = Math.floor((column + 0.5) * width / {COLUMNS});
    const y = Math.floor((row + 0.5) * height / {ROWS});
    pixels.push(...context.getImageData(x, y, 1, 1).data.slice(0, 3));
  }}
  return {{width, height, pixels}};
}}
window.onload = () => {{
  const found = Object.fromEntries([...document.images].map(image => [image.id, shown(image)]));
  document.body.textContent = JSON.stringify(found);
}};
</script><body>
"""


class Shown(NamedTuple):
    """The size of what is shown of a picture; red, green and blue at `COLUMNS` × `ROWS` points."""

    width: int
    height: int
    pixels: list[int]


CHROMIUM = "chromium"


def version() -> str:
    asked = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def ask(pictures: dict[str, bytes]) -> dict[str, Shown | None]:
    """Have Chromium load pictures into ``<img>``; ``None`` stands for those that it does not show.

    It is given the pictures in the page itself, so it needs no network.
    """
    encoded = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
    images = [
        f'<img id="{html.escape(name)}" src="data:image/x;base64,{text}">'
        for name, text in encoded.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(_PAGE + "\n".join(images))
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb")
        command = [CHROMIUM, *flags, f"--user-data-dir={folder}/user", "--dump-dom", page.as_uri()]
        dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    answer = re.search(r"<body>(\{.*\})</body>", dumped.stdout, re.DOTALL)
    assert answer, dumped.stderr[-2000:]
    found = json.loads(html.unescape(answer[1]))
    return {name: found[name] and Shown(**found[name]) for name in pictures}


def recorded() -> dict[str, Shown | None]:
    pictures = json.loads(RECORDED.read_text())["pictures"]
    return {
        name: shown and Shown(shown[0], shown[1], shown[2:]) for name, shown in pictures.items()
    }


def record(pictures: dict[str, bytes]) -> None:
    """Write what Chromium shows, a line for each picture: width, height and pixels."""
    shown = ask(pictures)
    lines = [
        f"{json.dumps(name)}: {json.dumps(one and [one.width, one.height, *one.pixels])}"
        for name, one in shown.items()
    ]
    body = ",\n".join(lines)
    said = json.dumps(version())
    RECORDED.write_text(f'{{"chromium": {said}, "pictures": {{\n{body}\n}}}}\n')


if __name__ == "__main__":
    from tests.kits.odd_pictures import make

    record(make())
