"""A picture of 4000 x 3000 pixels is enlarged in bounded memory."""

import os
import subprocess
import sys

import pytest

CODE = """
import resource
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from sixfold.vision import CFSR, CFSRConfig
from sixfold.vision.images.enlarging import enlarge_file

folder, scale = Path(sys.argv[1]), int(sys.argv[2])
# One block of the released width: all blocks take the same memory, one after the other.
model = CFSR(CFSRConfig(depths=(1,), upscale=scale, edge_branches=False)).eval()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = peak()
enlarge_file(model, folder / "in.png", folder / "out.png")
print(peak() - start)
Image.MAX_IMAGE_PIXELS = None
with Image.open(folder / "out.png") as image:
    assert image.size == (4000 * scale, 3000 * scale)
"""


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4])
def test_memory_stays_within_a_gibibyte_and_a_half(tmp_path, scale):
    from PIL import Image

    Image.linear_gradient("L").resize((4000, 3000)).convert("RGB").save(tmp_path / "in.png")
    words = [sys.executable, "-c", CODE, str(tmp_path), str(scale)]
    done = subprocess.run(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) < 1536
