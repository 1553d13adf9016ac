"""What the README shows of CMuSeNet runs as it stands."""

import re
from pathlib import Path

from sixfold.wireless.models.cmusenet import CMuSeNet

README = Path(__file__).resolve().parents[3] / "packages/wireless/README.md"


def test_a_network_is_trained_scored_and_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8").partition("CMuSeNet\n")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, README, "exec"), {})
    assert "pixel_accuracy" in capsys.readouterr().out
    assert CMuSeNet.from_pretrained("mine.safetensors").config.bins == 1024
